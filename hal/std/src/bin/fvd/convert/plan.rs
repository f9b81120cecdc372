//! What a copy does next: which part of the source is read, which part of the target is zeroed.
//!
//! Invariant: the parts are given out in order, none overlaps another, and together they are
//! everything that the target does not hold already, as far as that is known without reading.

use core::ops::Range;

use fvd::device::Geometry;
use fvd_std::sparse::SparseDevice;

use super::runs::{GRANULE_BYTES, Run};
use crate::failure::{Doing, Failure};

/// Longest piece, and the alignment of pieces, bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// Longest piece of known zeros, bytes.
const ZEROES_MAX_BYTES: u64 = 1 << 30;

/// What the target holds before the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Zeros everywhere: only what is not zero is written.
    Zeroes,
    /// Anything: everything is written.
    Unknown,
    /// A base: it is read, and what differs is written.
    Base,
    /// The source itself, as its base: nothing is written, but whole blocks of this many bytes that
    /// are zero are told to it, so that nobody has to read them again.
    Source {
        /// Unit of copy-on-write of the target.
        block_bytes: u64,
    },
}

/// What the devices take in one operation, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest read of both.
    pub(super) piece: u64,
    /// Longest write to the target.
    pub(super) write: u64,
    /// Longest write-zeroes to the target.
    pub(super) zeroes: u64,
}

impl Limits {
    pub(super) fn new(source: &Geometry, target: &Geometry) -> Limits {
        let whole = |bytes: u64| bytes.max(GRANULE_BYTES) & !(GRANULE_BYTES - 1);
        let transfer =
            |of: &Geometry| whole(of.transfer_max_bytes.min(of.segment_max_bytes).into());
        let zeroes = target
            .write_zeroes
            .map_or(GRANULE_BYTES, |limits| limits.max_bytes);
        Limits {
            piece: PIECE_BYTES.min(transfer(source)).min(transfer(target)),
            write: transfer(target),
            zeroes: whole(zeroes.min(ZEROES_MAX_BYTES)),
        }
    }
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read this range of the source, and write what has to be written of it.
    Read(Range<u64>),
    /// Zero this range of the target.
    Zero(Run),
    /// Nothing is left.
    End,
}

/// How far a copy is.
#[derive(Debug)]
pub(super) struct Plan {
    content: Content,
    piece: u64,
    /// Everything before this was given out or needs nothing.
    position: u64,
    end: u64,
}

impl Plan {
    pub(super) fn new(content: Content, limits: Limits, end: u64) -> Plan {
        Plan {
            content,
            piece: limits.piece,
            position: 0,
            end,
        }
    }

    pub(super) fn content(&self) -> Content {
        self.content
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Gives out the next part.
    pub(super) fn next(
        &mut self,
        source: &dyn SparseDevice,
        target: &dyn SparseDevice,
    ) -> Result<Next, Failure> {
        while self.position < self.end {
            let from = self.position;
            let cannot = || format!("cannot find the data of SRC from {from} on");
            let data = source.next_data(from).doing(cannot)?;
            let data = whole_granules(data.unwrap_or(self.end..self.end), self.end);
            if data.start <= from {
                let boundary = (from / PIECE_BYTES + 1) * PIECE_BYTES;
                self.position = data.end.min(boundary).min(from + self.piece);
                return Ok(Next::Read(from..self.position));
            }
            if let Some(zeroes) = self.next_zeroes(data.start, target) {
                let (start, len) = (zeroes.start, zeroes.end - zeroes.start);
                return Ok(Next::Zero(Run {
                    start,
                    len,
                    zero: true,
                }));
            }
        }
        Ok(Next::End)
    }

    /// The next range before `end`, all zeros in the source, that the target has to be told. Moves
    /// the position behind it, or to `end` if there is none.
    fn next_zeroes(&mut self, end: u64, target: &dyn SparseDevice) -> Option<Range<u64>> {
        let from = self.position;
        let range = match self.content {
            Content::Zeroes => None,
            Content::Unknown => Some(from..end),
            Content::Base => match target.next_data(from) {
                Ok(data) => data.filter(|data| data.start < end).map(|data| {
                    let data = whole_granules(data, end);
                    data.start.max(from)..data.end
                }),
                // An answer that is not to be had is no reason to skip anything.
                Err(_) => Some(from..end),
            },
            Content::Source { block_bytes } => {
                let inner = if end == self.end {
                    end
                } else {
                    end - end % block_bytes
                };
                let start = from.next_multiple_of(block_bytes);
                (start < inner).then_some(start..inner)
            }
        };
        self.position = match (&range, self.content) {
            // What follows it is less than a block.
            (Some(_), Content::Source { .. }) | (None, _) => end,
            (Some(range), _) => range.end,
        };
        range
    }
}

/// `range` in whole granules around it, up to `end`.
fn whole_granules(range: Range<u64>, end: u64) -> Range<u64> {
    let stop = range
        .end
        .checked_next_multiple_of(GRANULE_BYTES)
        .unwrap_or(end);
    (range.start - range.start % GRANULE_BYTES).min(end)..stop.min(end)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one island is a case like any other
mod tests {
    use std::io;

    use fvd::buffer::Op;
    use fvd::device::{BlockDevice, When};
    use fvd::units::Instant;

    use super::*;

    const M: u64 = 1 << 20;
    const K: u64 = 1 << 10;

    /// A device that only knows where its data are.
    struct Islands(Vec<Range<u64>>);

    impl BlockDevice for Islands {
        fn geometry(&self) -> Geometry {
            Geometry::basic(8 * M)
        }

        fn submit(&mut self, op: Op) -> Result<(), Op> {
            Err(op)
        }

        fn poll(&mut self, _now: Instant) -> Option<Op> {
            None
        }

        fn poll_at(&self) -> When {
            When::Event
        }
    }

    impl SparseDevice for Islands {
        fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
            let island = self.0.iter().find(|island| island.end > from);
            Ok(island.map(|island| island.start.max(from)..island.end))
        }
    }

    fn plan(content: Content, source: &[Range<u64>], target: &[Range<u64>]) -> Vec<Next> {
        let (source, target) = (Islands(source.to_vec()), Islands(target.to_vec()));
        let limits = Limits::new(&source.geometry(), &target.geometry());
        let mut plan = Plan::new(content, limits, 8 * M);
        let mut all = Vec::new();
        loop {
            match plan.next(&source, &target).expect("a plan") {
                Next::End => return all,
                next => all.push(next),
            }
        }
    }

    fn zero(range: Range<u64>) -> Next {
        Next::Zero(Run {
            start: range.start,
            len: range.end - range.start,
            zero: true,
        })
    }

    #[test]
    fn only_data_is_read_for_a_target_of_zeros_in_pieces_at_multiples_of_their_size() {
        let islands = [M + 5000..3 * M + 100, 7 * M..8 * M];
        let expected = [
            Next::Read(M + 4 * K..2 * M),
            Next::Read(2 * M..3 * M),
            Next::Read(3 * M..3 * M + 4 * K),
            Next::Read(7 * M..8 * M),
        ];
        assert_eq!(plan(Content::Zeroes, &islands, &[]), expected);
        assert!(plan(Content::Zeroes, &[], &[]).is_empty());
    }

    #[test]
    fn a_target_of_unknown_content_is_covered_completely() {
        let expected = [zero(0..M), Next::Read(M..M + 4 * K), zero(M + 4 * K..8 * M)];
        assert_eq!(plan(Content::Unknown, &[M..M + 10], &[]), expected);
    }

    #[test]
    fn zeros_over_a_base_are_told_only_where_the_base_has_data() {
        let base = [K..5 * K, 2 * M..3 * M, 7 * M + 1000..8 * M - 1000];
        let expected = [
            zero(0..8 * K),
            zero(2 * M..2 * M + 512 * K),
            Next::Read(2 * M + 512 * K..3 * M),
            zero(7 * M..8 * M),
        ];
        assert_eq!(
            plan(Content::Base, &[2 * M + 512 * K..3 * M], &base),
            expected
        );
    }

    #[test]
    fn holes_of_the_base_itself_are_told_in_whole_blocks() {
        let block_bytes = 64 * K;
        let expected = [
            zero(0..960 * K),
            Next::Read(M - 4 * K..M),
            Next::Read(M..M + 4 * K),
            zero(M + 64 * K..8 * M),
        ];
        let islands = [M - 4 * K..M + 4 * K];
        assert_eq!(
            plan(Content::Source { block_bytes }, &islands, &[]),
            expected
        );
        let none = [4 * K..8 * M - 4 * K];
        let reads = plan(Content::Source { block_bytes }, &none, &[]);
        // Neither hole is a whole block.
        assert!(
            reads.iter().all(|next| matches!(next, Next::Read(_))),
            "{reads:?}"
        );
    }
}
