//! Mappings, the pages that hold them, and what a checkpoint may write.

use super::*;

/// Three table pages and two bitmap pages, the last of each partly used.
const DISK_BYTES: u64 = 2500 * CHUNK + 5 * SECTOR;
const BASE_BYTES: u64 = 2200 * CHUNK + 4 * BLOCK + 512;

fn every_kind() -> [Map; 4] {
    [
        map(DISK_BYTES, true, BASE_BYTES),
        map(DISK_BYTES, true, 0),
        map(DISK_BYTES, false, BASE_BYTES),
        map(DISK_BYTES, false, 0),
    ]
}

fn copy_of(part: &[u8]) -> Vec<u8> {
    part.to_vec()
}

#[test]
fn a_mapping_reads_back_and_touches_no_other() {
    for mut map in every_kind() {
        let mut rng = Rng(1);
        scatter(&mut map, &mut rng);
        let chunks = map.shape.chunk_count();
        for _ in 0..500 {
            let chunk = ChunkIndex(rng.below(u64::from(chunks)) as u32);
            let near: Vec<ChunkIndex> = (chunk.0.saturating_sub(2)..(chunk.0 + 3).min(chunks))
                .map(ChunkIndex)
                .collect();
            let before: Vec<Mapping> = near.iter().map(|chunk| map.mapping(*chunk)).collect();
            let new = Mapping {
                entry: TableEntry::Chunk(StoreChunk(rng.below(1 << 20) as u32)),
                bits: rng.below(1 << 16) as u16,
            };
            map.set_mapping(chunk, new);
            for (near, before) in near.into_iter().zip(before) {
                let wanted = if near != chunk {
                    before
                } else {
                    let covered = bitmap::group_mask(map.group_len(chunk));
                    Mapping {
                        entry: if map.has_table {
                            new.entry
                        } else {
                            TableEntry::Unmapped
                        },
                        bits: new.bits & covered,
                    }
                };
                assert_eq!(map.mapping(near), wanted, "{near:?} after {chunk:?}");
            }
        }
    }
}

#[test]
fn bits_cover_the_blocks_of_the_base_and_no_more() {
    let map = map(DISK_BYTES, true, BASE_BYTES);
    // The base ends within the fifth block of chunk 2200.
    for (chunk, covered) in [(0, 16), (2199, 16), (2200, 5), (2201, 0), (2500, 0)] {
        assert_eq!(map.group_len(ChunkIndex(chunk)), covered, "chunk {chunk}");
    }
    assert_eq!(every_kind()[1].group_len(ChunkIndex(0)), 0, "no base");
}

#[test]
fn a_record_says_what_is_new_and_what_its_image_has_room_for() {
    let value = Mapping {
        entry: TableEntry::Chunk(StoreChunk(3)),
        bits: 5,
    };
    let nothing = Mapping {
        entry: TableEntry::Unmapped,
        bits: 0,
    };
    let [both, table_only, bitmap_only, _] = every_kind();
    let more = Mapping { bits: 7, ..value };
    let record = both.record(ChunkIndex(0), value, more);
    assert_eq!((record.entry, record.bits), (None, Some(2)));
    assert!(both.record(ChunkIndex(0), more, more).is_empty());
    let said = |map: &Map, chunk| {
        let record = map.record(ChunkIndex(chunk), nothing, value);
        assert_eq!(record.chunk, ChunkIndex(chunk));
        (record.entry, record.bits)
    };
    assert_eq!(said(&both, 0), (Some(value.entry), Some(5)));
    assert_eq!(
        said(&both, 2300),
        (Some(value.entry), None),
        "beyond the base"
    );
    assert_eq!(said(&table_only, 0), (Some(value.entry), None));
    assert_eq!(said(&bitmap_only, 0), (None, Some(5)));
}

#[test]
fn a_change_marks_the_pages_that_hold_it() {
    for (chunk, pages) in [
        (0, &[0, 3][..]),
        (1023, &[0, 3]),
        (1024, &[1, 3]),
        (2047, &[1, 3]),
        (2048, &[2, 4]),
        (2200, &[2, 4]),
        (2201, &[2]),
    ] {
        let mut map = map(DISK_BYTES, true, BASE_BYTES);
        map.mark_dirty(ChunkIndex(chunk));
        let marked: Vec<u32> = (0..5).filter(|page| map.dirty.is_current(*page)).collect();
        assert_eq!(marked, pages, "chunk {chunk}");
    }
    let mut map = map(DISK_BYTES, false, BASE_BYTES);
    map.mark_dirty(ChunkIndex(2048));
    assert!(map.dirty.is_current(1) && !map.dirty.is_current(0));
}

/// Law 6: pages in place hold only what is durable.
#[test]
fn a_staged_page_has_every_pending_change_taken_back() {
    for mut map in every_kind() {
        let mut rng = Rng(2);
        scatter(&mut map, &mut rng);
        let durable = copy_of(&map.pages);
        let chunks = u64::from(map.shape.chunk_count());
        let edges = [0, 1023, 1024, 2047, 2048, 2200, 2201, 2500].map(ChunkIndex);
        let random = (0..40).map(|_| ChunkIndex(rng.below(chunks) as u32));
        for chunk in edges.into_iter().chain(random) {
            if map.pending.find(chunk.0).is_none() {
                let old = map.mapping(chunk);
                map.pending.insert(chunk.0, old).expect("room");
            }
            let new = Mapping {
                entry: TableEntry::Chunk(StoreChunk(5000 + chunk.0)),
                bits: !map.bits(chunk),
            };
            map.set_mapping(chunk, new);
        }
        let total = map.counts.total();
        let mut buffer = [0xEE; PAGE_BYTES];
        for number in 0..total {
            let range = number as usize * PAGE_BYTES..(number as usize + 1) * PAGE_BYTES;
            assert!(map.stage_page(number, &mut buffer, false));
            assert!(buffer == durable[range.clone()], "page {number} of {total}");
            assert!(map.stage_page(number, &mut buffer, true));
            assert!(buffer == map.pages[range.clone()], "page {number}, live");
            assert!(buffer != durable[range], "page {number} was changed");
        }
        assert!(!map.stage_page(total, &mut buffer, false), "no such page");
    }
}

#[test]
fn a_chunk_lives_where_its_entry_says_or_where_it_will_be() {
    let mut map = map(DISK_BYTES, true, BASE_BYTES);
    let chunk = ChunkIndex(7);
    assert_eq!(map.store_chunk(chunk, NONE), None);
    let at = map.pending.insert(7, map.mapping(chunk)).expect("room");
    assert_eq!(map.store_chunk(chunk, NONE), None, "nothing reserved");
    map.pending.get_mut(at).expect("in use").reserved = 9;
    let other = map.pending.insert(8, map.mapping(ChunkIndex(8)));
    for guess in [at, other.expect("room"), at + 2, NONE] {
        let found = map.store_chunk(chunk, guess);
        assert_eq!(found, Some(StoreChunk(9)), "whatever is guessed");
    }
    let entry = TableEntry::Chunk(StoreChunk(4));
    map.set_mapping(chunk, Mapping { entry, bits: 0 });
    assert_eq!(map.store_chunk(chunk, NONE), Some(StoreChunk(4)));
    let [_, _, plain, _] = every_kind();
    assert_eq!(
        plain.store_chunk(chunk, NONE),
        Some(StoreChunk(7)),
        "in order"
    );
}

#[test]
fn touched_bits_name_each_block_that_a_range_touches() {
    let map = map(DISK_BYTES, true, BASE_BYTES);
    let mut rng = Rng(3);
    for turn in 0..4000 {
        let chunk = ChunkIndex([0, 5, 2199, 2200, 2201][turn % 5]);
        let begin = map.shape.chunk_start(chunk).0;
        // From a little before the chunk to a little behind it.
        let start = (begin + rng.below(CHUNK + 1024)).saturating_sub(512);
        let end = start + 1 + rng.below(CHUNK);
        let touched = (0..u64::from(map.group_len(chunk))).filter(|block| {
            let from = begin + block * BLOCK;
            start < from + BLOCK && from < end
        });
        let wanted = touched.fold(0, |bits, block| bits | 1 << block);
        let got = map.touched_bits(chunk, start, end);
        assert_eq!(got, wanted, "{chunk:?} {start}..{end}");
    }
    assert_eq!(map.touched_bits(ChunkIndex(0), 512, 512), 0, "empty");
    assert_eq!(map.first_chunk(3 * CHUNK - 1), 2);
}

#[test]
fn a_chunk_shows_the_base_where_its_bits_are_clear() {
    let mut map = map(DISK_BYTES, true, BASE_BYTES);
    let chunk = ChunkIndex(1);
    map.set_mapping(chunk, mapped(1, 0b1011));
    for (first, last, shows) in [
        (0, 2, false),
        (1, 3, true),
        (2, 3, true),
        (3, 4, false),
        (0, 4, true),
    ] {
        let (start, end) = (CHUNK + first * BLOCK, CHUNK + last * BLOCK);
        assert_eq!(map.shows_base(chunk, start, end), shows, "{first}..{last}");
    }
    assert!(!map.shows_base(chunk, 0, CHUNK), "of another chunk");
}

#[test]
fn memory_comes_back_to_the_arena_that_lent_it() {
    let header = header(DISK_BYTES, true, BASE_BYTES);
    for part in 0..5 {
        let mut arenas = [(); 2].map(|()| Arena::new(arena_memory(1 << 20)).expect("aligned"));
        let [mut map, stranger] = arenas.each_mut().map(|arena| carve(arena, &header));
        match part {
            0 => map.pages = stranger.pages,
            1 => map.sums = stranger.sums,
            2 => map.dirty = stranger.dirty,
            3 => map.pending = stranger.pending,
            _ => {}
        }
        let [mut ours, _] = arenas;
        assert_eq!(map.reclaim(&mut ours), part == 4, "part {part}");
        assert_eq!(ours.finish().is_ok(), part == 4);
    }
}

/// The checksum of each page of a map as it stands.
fn sums_of(map: &Map) -> Vec<u32> {
    let id = ImageId([7; 16]);
    let page = |number| page_checksum(&id, number, map.page(number).expect("a page"));
    (0..map.counts.total()).map(page).collect()
}

fn put_sums(map: &mut Map) {
    for (number, sum) in (0..).zip(sums_of(map)) {
        assert!(write_checksum(&mut map.sums, number, sum));
    }
}

fn sums_on_record(map: &Map) -> Vec<u32> {
    let sum = |number| read_checksum(&map.sums, number).expect("a checksum");
    (0..map.counts.total()).map(sum).collect()
}

/// Chunks on every page, with bits at both ends of a word.
const EDGES: [u32; 9] = [0, 1, 2, 1023, 1024, 2047, 2048, 2200, 2500];

fn mapped(chunk: u32, bits: u16) -> Mapping {
    Mapping {
        entry: TableEntry::Chunk(StoreChunk(5000 + chunk)),
        bits,
    }
}

const UNMAPPED: Mapping = Mapping {
    entry: TableEntry::Unmapped,
    bits: 0,
};

#[test]
fn a_replayed_record_changes_the_checksum_as_it_changes_the_page() {
    for mut map in [
        map(DISK_BYTES, true, BASE_BYTES),
        map(DISK_BYTES, true, 0),
        map(DISK_BYTES, false, BASE_BYTES),
    ] {
        map.table_mut().fill(0xFF);
        put_sums(&mut map);
        for chunk in EDGES.map(ChunkIndex) {
            let covered = bitmap::group_mask(map.group_len(chunk));
            for (told, value) in [
                (UNMAPPED, mapped(chunk.0, 0x8001)),
                (mapped(chunk.0, 0x8001), mapped(chunk.0, 0x9009)),
            ] {
                let record = map.record(chunk, told, value);
                map.set_mapping(
                    chunk,
                    Mapping {
                        bits: value.bits & covered,
                        ..value
                    },
                );
                map.sum_replayed(&record);
                assert_eq!(sums_on_record(&map), sums_of(&map), "{chunk:?}");
            }
        }
    }
}

/// Law 3 lets pages run ahead of a checkpoint's cut; their checksums may not.
#[test]
fn what_settles_during_a_checkpoint_is_not_in_its_checksums() {
    let mut map = map(DISK_BYTES, true, BASE_BYTES);
    map.table_mut().fill(0xFF);
    put_sums(&mut map);
    let settle = |map: &mut Map, chunk: u32, bits| {
        let old = map.mapping(ChunkIndex(chunk));
        let new = mapped(chunk, bits);
        map.set_mapping(ChunkIndex(chunk), new);
        let at = map.pending.insert(chunk, old).expect("room");
        map.pending.mark_dirty(at);
        map.pending.seal_next(new).expect("dirty");
        let sealed = map.pending.take_sealed().expect("sealed");
        map.settle(sealed);
    };
    // Pages 0 and 3 belong to the checkpoint, and 2, which is staged last.
    settle(&mut map, 0, 1);
    settle(&mut map, 2500, 0);
    map.cut();
    let at_cut = sums_of(&map);
    for bits in [0x8000, 0x8001, 0xC001] {
        settle(&mut map, 1, bits);
    }
    let mut buffer = [0; PAGE_BYTES];
    for page in [0, 3] {
        assert!(map.stage_page(page, &mut buffer, false));
        map.sum_staged(page, page_checksum(&ImageId([7; 16]), page, &buffer));
        map.dirty.clear_old(page);
        // Page 0 is staged by now, page 3 is not when this settles.
        settle(&mut map, 2 + page, 3);
    }
    // Of pages that the checkpoint does not have, or not any more, nothing is noted.
    settle(&mut map, 1024, 1);
    settle(&mut map, 2047, 1);
    map.sum_staged(2, sums_of(&map)[2]);
    map.dirty.clear_old(2);
    settle(&mut map, 2499, 0);
    assert_eq!(sums_on_record(&map), at_cut);
}

/// What no checksum covers can only be cleared.
#[test]
fn what_stands_behind_the_last_entry_or_bit_is_seen_and_cleared() {
    // The first byte behind the entries and the first bit behind the bits, and the last of each.
    let entries = 2501 * 4;
    let bit = 2200 * 16 + 5;
    for (in_table, in_bitmap) in [
        (Some(entries), None),
        (Some(3 * PAGE_BYTES - 1), None),
        (None, Some(bit)),
        (None, Some(2 * 8 * PAGE_BYTES as u64 - 1)),
    ] {
        let mut map = map(DISK_BYTES, true, BASE_BYTES);
        for chunk in [0, 1000, 2200, 2500] {
            map.set_mapping(ChunkIndex(chunk), mapped(chunk, u16::MAX));
        }
        assert!(!map.has_tails());
        let clean = copy_of(&map.pages);
        if let Some(at) = in_table {
            map.table_mut()[at] = 0;
        }
        if let Some(bit) = in_bitmap {
            bitmap::set_bit(map.bitmap_mut(), bit);
        }
        assert!(map.has_tails(), "{in_table:?} {in_bitmap:?}");
        map.clear_tails();
        assert!(!map.has_tails());
        assert_eq!(copy_of(&map.pages), clean);
        assert_eq!(marked(&map), [2, 4], "the pages with a tail");
    }
}

#[test]
fn the_bitmap_of_a_base_that_is_not_needed_has_no_tail() {
    let mut map = map(DISK_BYTES, true, BASE_BYTES);
    map.bitmap_blocks = 0;
    map.bitmap_mut().fill(0xFF);
    assert!(!map.has_tails());
    map.clear_tails();
    assert!(map.bitmap().iter().all(|byte| *byte == 0xFF));
    assert_eq!(marked(&map), [2]);
}
