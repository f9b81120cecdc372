//! What of a piece has to be written, in runs of whole granules.

use std::collections::VecDeque;

/// Unit in which zeros and differences are looked for: smaller holes are not kept as holes, bytes.
pub(super) const GRANULE_BYTES: u64 = 4096;

/// A range of the disk to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte on the disk.
    pub(super) start: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Whether all of them are zero.
    pub(super) zero: bool,
}

/// Runs of a piece, in order, none touching another of its kind.
pub(super) type Runs = VecDeque<Run>;

/// What to do with one granule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Zero,
    Write,
}

/// Everything but zeros, for a target that holds zeros.
pub(super) fn not_zero(start: u64, data: &[u8]) -> Runs {
    runs(start, data, |_, granule| {
        if is_zero(granule) {
            Fate::Keep
        } else {
            Fate::Write
        }
    })
}

/// Everything, for a target that holds anything.
pub(super) fn all(start: u64, data: &[u8]) -> Runs {
    runs(start, data, |_, granule| {
        if is_zero(granule) {
            Fate::Zero
        } else {
            Fate::Write
        }
    })
}

/// Everything that `old`, the target's content of the same place, does not hold already.
pub(super) fn that_differ(start: u64, data: &[u8], old: &[u8]) -> Runs {
    runs(start, data, |at, granule| {
        if old.get(at..at + granule.len()) == Some(granule) {
            Fate::Keep
        } else if is_zero(granule) {
            Fate::Zero
        } else {
            Fate::Write
        }
    })
}

/// Whole blocks of zeros, at multiples of their size; the last block of a disk that ends at `end` may
/// be shorter.
pub(super) fn zero_blocks(start: u64, data: &[u8], block_bytes: u64, end: u64) -> Runs {
    let mut runs = Runs::new();
    let stop = start + data.len() as u64;
    let mut at = start.next_multiple_of(block_bytes);
    while at < stop {
        let next = (at + block_bytes).min(end);
        let block = data.get((at - start) as usize..(next - start) as usize);
        if block.is_some_and(is_zero) {
            push(
                &mut runs,
                Run {
                    start: at,
                    len: next - at,
                    zero: true,
                },
            );
        }
        at = next;
    }
    runs
}

/// Appends a run, or lets the last one grow by it.
fn push(runs: &mut Runs, run: Run) {
    match runs.back_mut() {
        Some(last) if last.zero == run.zero && last.start + last.len == run.start => {
            last.len += run.len;
        }
        _ => runs.push_back(run),
    }
}

fn runs(start: u64, data: &[u8], fate: impl Fn(usize, &[u8]) -> Fate) -> Runs {
    let mut runs = Runs::new();
    let mut at = 0;
    for granule in data.chunks(GRANULE_BYTES as usize) {
        let fate = fate(at, granule);
        let (place, len) = (start + at as u64, granule.len() as u64);
        at += granule.len();
        if fate == Fate::Keep {
            continue;
        }
        push(
            &mut runs,
            Run {
                start: place,
                len,
                zero: fate == Fate::Zero,
            },
        );
    }
    runs
}

/// Whether all bytes are zero. Looks at whole cache lines, which the compiler turns into vectors.
fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(64)
        .all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 3 << 20;
    const GRANULE: usize = GRANULE_BYTES as usize;

    /// Granules filled with these bytes; the last one is half as long.
    fn granules(fill: &[u8]) -> Vec<u8> {
        let mut data: Vec<u8> = fill.iter().flat_map(|&byte| vec![byte; GRANULE]).collect();
        data.truncate(data.len() - GRANULE / 2);
        data
    }

    fn places(runs: &Runs) -> Vec<(u64, u64, bool)> {
        let place = |run: &Run| (run.start - START, run.len, run.zero);
        runs.iter().map(place).collect()
    }

    const G: u64 = GRANULE_BYTES;

    #[test]
    fn zeros_are_left_out_where_the_target_holds_zeros() {
        let data = granules(&[1, 2, 0, 0, 3, 0, 4]);
        let expected = [(0, 2 * G, false), (4 * G, G, false), (6 * G, G / 2, false)];
        assert_eq!(places(&not_zero(START, &data)), expected);
        assert!(not_zero(START, &granules(&[0, 0])).is_empty());
    }

    #[test]
    fn one_byte_keeps_a_granule_from_being_zero() {
        for at in [0, 1, 63, 64, GRANULE - 1] {
            let mut data = vec![0; GRANULE];
            data[at] = 1;
            assert!(!is_zero(&data), "byte {at}");
        }
        assert!(is_zero(&[]));
        assert!(is_zero(&[0; 100]));
    }

    #[test]
    fn all_of_a_piece_is_covered_where_the_target_holds_anything() {
        let data = granules(&[1, 0, 0, 3]);
        let expected = [(0, G, false), (G, 2 * G, true), (3 * G, G / 2, false)];
        assert_eq!(places(&all(START, &data)), expected);
    }

    #[test]
    fn only_differences_are_written_over_a_base() {
        let data = granules(&[1, 0, 0, 3, 5, 6]);
        let old = granules(&[1, 2, 0, 3, 4, 6]);
        let expected = [(G, G, true), (4 * G, G, false)];
        assert_eq!(places(&that_differ(START, &data, &old)), expected);
        assert!(that_differ(START, &data, &data).is_empty());
    }

    #[test]
    fn only_whole_aligned_blocks_of_zeros_count() {
        let block = 4 * G;
        // From the middle of one block to the middle of another, with two whole ones in between.
        let data = vec![0; 12 * GRANULE];
        let runs = zero_blocks(START - 2 * G, &data, block, u64::MAX);
        assert_eq!(places(&runs), [(0, 2 * block, true)]);
        let mut data = vec![0; 8 * GRANULE];
        data[5 * GRANULE] = 1;
        assert_eq!(
            places(&zero_blocks(START, &data, block, u64::MAX)),
            [(0, block, true)]
        );
    }

    #[test]
    fn the_last_block_of_a_disk_may_be_short() {
        let block = 4 * G;
        let data = vec![0; 6 * GRANULE];
        let runs = zero_blocks(START, &data, block, START + 6 * G);
        assert_eq!(places(&runs), [(0, 6 * G, true)]);
        assert_eq!(
            places(&zero_blocks(START, &data, block, START + 7 * G)),
            [(0, block, true)]
        );
    }
}
