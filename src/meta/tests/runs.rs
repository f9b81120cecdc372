//! Runs against the meaning of each sector.

use super::super::runs::Run;
use super::*;

/// Where one sector is, from the mapping of its chunk alone (docs/SPEC.md §5 and §6).
fn sector_source(map: &Map, offset: u64) -> Source {
    let chunk = ChunkIndex((offset / CHUNK) as u32);
    let block = offset % CHUNK / BLOCK;
    let mapping = map.mapping(chunk);
    if block < u64::from(map.group_len(chunk)) && mapping.bits >> block & 1 == 0 {
        return if offset < map.base_bytes {
            Source::Base(offset)
        } else {
            Source::Zero
        };
    }
    match mapping.entry {
        _ if !map.has_table => Source::Store(map.data_offset + offset),
        TableEntry::Chunk(at) => {
            Source::Store(map.data_offset + u64::from(at.0) * CHUNK + offset % CHUNK)
        }
        TableEntry::Unmapped => Source::Zero,
        TableEntry::Unreadable | TableEntry::Split(_) => Source::Unreadable,
    }
}

/// The sector that continues a source.
fn after(source: Source) -> Source {
    match source {
        Source::Store(at) => Source::Store(at + SECTOR),
        Source::Base(at) => Source::Base(at + SECTOR),
        other => other,
    }
}

fn longest_run(map: &Map, start: u64, end: u64) -> Run {
    let source = sector_source(map, start);
    let (mut last, mut at) = (source, start + SECTOR);
    while at < end && sector_source(map, at) == after(last) {
        last = after(last);
        at += SECTOR;
    }
    Run {
        source,
        bytes: at - start,
    }
}

#[test]
fn a_run_is_as_long_as_its_sectors_continue_each_other() {
    let chunks = 40;
    let disk_bytes = chunks * CHUNK + 3 * SECTOR;
    for table in [false, true] {
        // None, shorter with a ragged end, to the end of a chunk, as long as the disk, longer.
        for base_bytes in [0, 21 * CHUNK + 2560, 20 * CHUNK, disk_bytes, 2 * disk_bytes] {
            for seed in 0..20 {
                let mut rng = Rng(seed);
                let mut map = map(disk_bytes, table, base_bytes);
                scatter(&mut map, &mut rng);
                if seed == 19 && base_bytes != 0 {
                    // Opened on a base that is shorter than what is on record.
                    map.base_bytes = CHUNK + SECTOR;
                }
                for _ in 0..100 {
                    let start = rng.below(disk_bytes / SECTOR) * SECTOR;
                    let sectors = 1 + rng.below((disk_bytes - start) / SECTOR);
                    let end = start + sectors * SECTOR;
                    let wanted = longest_run(&map, start, end);
                    assert_eq!(
                        map.run(start, end),
                        wanted,
                        "{table} {base_bytes} {start}..{end}"
                    );
                }
            }
        }
    }
}

#[test]
fn without_table_and_base_a_request_is_one_run_laid_out_like_a_raw_disk() {
    let map = map(1 << 20, false, 0);
    let wanted = Run {
        source: Source::Store(map.data_offset + 512),
        bytes: 100_000,
    };
    assert_eq!(map.run(512, 100_512), wanted);
}
