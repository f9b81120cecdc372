//! Mappings of the old dialects, sector by sector.

use super::*;
use crate::meta::loose::BlockRun;
use crate::units::Shape;

/// Blocks and chunks of any size, the base's end inside a block: disk, base, block and chunk in
/// sectors.
const SHAPES: [(u64, u64, u64, u64); 5] = [
    (300, 300, 3, 7),
    (300, 200, 7, 3),
    (301, 143, 4, 32),
    (64, 64, 128, 5),
    (90, 400, 1, 16),
];

/// A map of an old dialect, with the bits that `bit` names.
fn loose(
    (disk, base, block, chunk): (u64, u64, u64, u64),
    mut bit: impl FnMut(u64) -> bool,
) -> Map {
    let (disk, base) = (disk * SECTOR, base * SECTOR);
    let mut map = map(1 << 20, true, 1 << 20);
    map.loose = true;
    map.shape = Shape::loose(disk, block * SECTOR, chunk * SECTOR).expect("legal");
    map.base_bytes = base.min(disk);
    map.cover_bytes = base.min(disk);
    map.bitmap_blocks = map.shape.blocks_covering(map.cover_bytes);
    for block in 0..map.bitmap_blocks {
        if bit(block) {
            bitmap::set_bit(map.bitmap_mut(), block);
        }
    }
    map
}

/// Long runs and short ones.
fn patches(rng: &mut Rng) -> impl FnMut(u64) -> bool {
    let (mut set, mut left) = (false, 0);
    move |_| {
        if left == 0 {
            set = !set;
            left = 1 + rng.below(12);
        }
        left -= 1;
        set
    }
}

/// Whether a sector shows the base.
fn shows(map: &Map, at: u64) -> bool {
    at < map.cover_bytes && !bitmap::read_bit(map.bitmap(), map.shape.block_of(GuestOffset(at)).0)
}

fn sectors(start: u64, end: u64) -> impl Iterator<Item = u64> {
    (start..end).step_by(SECTOR as usize)
}

/// A range on the disk, of at least a sector.
fn any_range(map: &Map, rng: &mut Rng) -> (u64, u64) {
    let sectors = map.shape.virtual_bytes() / SECTOR;
    let start = rng.below(sectors);
    let end = start + 1 + rng.below((sectors - start).min(40));
    (start * SECTOR, end * SECTOR)
}

/// The part of a range that is in a chunk.
fn within(map: &Map, chunk: ChunkIndex, start: u64, end: u64) -> (u64, u64) {
    let from = start.max(map.shape.chunk_start(chunk).0);
    (from, end.min(map.shape.chunk_end(chunk).0).max(from))
}

fn each(mut test: impl FnMut(Map, &mut Rng)) {
    for shape in SHAPES {
        for seed in 0..8 {
            let mut rng = Rng(seed);
            let map = match seed {
                0 => loose(shape, |_| false),
                1 => loose(shape, |_| true),
                _ => loose(shape, patches(&mut Rng(seed))),
            };
            test(map, &mut rng);
        }
    }
}

#[test]
fn a_piece_is_as_long_as_its_sectors_agree() {
    each(|map, rng| {
        for _ in 0..200 {
            let (start, stop) = any_range(&map, rng);
            let wanted = (start < map.cover_bytes).then(|| {
                let in_base = shows(&map, start);
                let end = sectors(start, stop).find(|at| shows(&map, *at) != in_base);
                BlockRun {
                    in_base,
                    end: end.unwrap_or(stop),
                }
            });
            assert_eq!(map.loose_piece(start, stop), wanted, "{start}..{stop}");
        }
    });
}

#[test]
fn a_chunk_shows_the_base_as_its_sectors_do() {
    each(|map, rng| {
        for _ in 0..200 {
            let (start, end) = any_range(&map, rng);
            let chunk = ChunkIndex(rng.below(u64::from(map.shape.chunk_count())) as u32);
            let (from, to) = within(&map, chunk, start, end);
            let wanted = sectors(from, to).any(|at| shows(&map, at));
            assert_eq!(map.shows_base(chunk, start, end), wanted, "{chunk:?}");
        }
        for chunk in (0..map.shape.chunk_count()).map(ChunkIndex) {
            let (from, to) = within(&map, chunk, 0, map.shape.virtual_bytes());
            let wanted = sectors(from, to).all(|at| shows(&map, at));
            assert_eq!(map.is_all_base(chunk), wanted, "{chunk:?}");
            assert_eq!(
                map.group_len(chunk),
                0,
                "its bits are not part of a mapping"
            );
        }
    });
}

#[test]
fn without_a_base_nothing_shows_it() {
    let mut map = loose(SHAPES[0], |_| false);
    (map.bitmap_blocks, map.base_bytes) = (0, 0);
    let chunk = ChunkIndex(0);
    assert_eq!(map.loose_piece(0, SECTOR), None);
    assert!(!map.shows_base(chunk, 0, SECTOR) && !map.is_all_base(chunk));
    assert!(!map.hide(chunk, 0, SECTOR));
    map.hide_range(0, SECTOR);
    assert!(map.bitmap().iter().all(|byte| *byte == 0));
}

/// The blocks that a range of sectors touches, and no others, must be hidden.
fn expect_hidden(map: &Map, before: &[u8], from: u64, to: u64) -> bool {
    let to = to.min(map.cover_bytes);
    let touched = |block: u64| {
        let begin = map.shape.block_start(crate::units::BlockIndex(block)).0;
        from < to && begin < to && from < begin + map.shape.block_bytes()
    };
    let mut changed = false;
    for block in 0..map.bitmap_blocks + 8 {
        let old = bitmap::read_bit(before, block);
        let hidden = touched(block);
        assert_eq!(bitmap::read_bit(map.bitmap(), block), old || hidden);
        changed |= hidden && !old;
    }
    changed
}

#[test]
fn hiding_touches_the_blocks_of_its_range_and_says_whether_one_was_new() {
    each(|mut map, rng| {
        for _ in 0..40 {
            let (start, end) = any_range(&map, rng);
            let chunk = ChunkIndex(rng.below(u64::from(map.shape.chunk_count())) as u32);
            let before = map.bitmap().to_vec();
            let changed = map.hide(chunk, start, end);
            let (from, to) = within(&map, chunk, start, end);
            assert_eq!(expect_hidden(&map, &before, from, to), changed);
        }
        for _ in 0..10 {
            let (start, end) = any_range(&map, rng);
            let before = map.bitmap().to_vec();
            map.dirty.clear_current();
            map.hide_range(start, end);
            expect_hidden(&map, &before, start, end);
            // Also what says so already: the page on the device may not.
            let named = start < end.min(map.cover_bytes);
            assert_eq!(marked(&map), if named { &[1][..] } else { &[] });
        }
    });
}

#[test]
fn a_grouped_map_keeps_its_bits_in_its_mappings() {
    let mut map = loose((64, 64, 2, 32), |_| false);
    map.loose = false;
    assert!(!map.hide(ChunkIndex(0), 0, SECTOR));
    assert!(map.bitmap().iter().all(|byte| *byte == 0));
}

/// Three table pages and two bitmap pages, as in version 2, with blocks that straddle chunks.
fn large() -> Map {
    let mut map = map(2500 * CHUNK, true, 2500 * CHUNK);
    map.loose = true;
    map.cover_bytes = map.base_bytes;
    assert_eq!((map.counts.table_pages, map.counts.total()), (3, 5));
    map
}

#[test]
fn what_changes_marks_the_pages_that_hold_it() {
    // A page of the bitmap has the blocks of 2048 chunks, one of the table the entries of 1024.
    for (chunk, entry_page, bit_page) in [(0, 0, 3), (1023, 0, 3), (2047, 1, 3), (2048, 2, 4)] {
        let chunk = ChunkIndex(chunk);
        let mut map = large();
        map.mark_loose(chunk);
        assert_eq!(marked(&map), [entry_page, bit_page], "{chunk:?}");
        let mut map = large();
        map.has_table = false;
        map.mark_loose(chunk);
        assert_eq!(marked(&map), [bit_page]);
        let mut map = large();
        map.bitmap_blocks = 0;
        map.mark_loose(chunk);
        assert_eq!(marked(&map), [entry_page]);
        let mut map = large();
        map.set_loose_entry(chunk, TableEntry::Chunk(StoreChunk(9)));
        assert_eq!(marked(&map), [entry_page]);
        assert_eq!(map.entry(chunk), TableEntry::Chunk(StoreChunk(9)));
        let mut map = large();
        let start = map.shape.chunk_start(chunk).0;
        map.hide_range(start, start + CHUNK);
        assert_eq!(marked(&map), [bit_page]);
    }
    let mut map = large();
    map.hide_range(2047 * CHUNK, 2048 * CHUNK + 1);
    assert_eq!(marked(&map), [3, 4], "a range over both");
    let mut map = large();
    map.set_loose_entry(ChunkIndex(1 << 20), TableEntry::Chunk(StoreChunk(9)));
    assert_eq!(marked(&map), [], "behind the table");
}

#[test]
fn a_sealed_page_is_the_live_one_of_that_moment() {
    let header = header(2500 * CHUNK, true, 2500 * CHUNK);
    let mut arena = Arena::new(arena_memory(1 << 20)).expect("aligned");
    let pages = header.page_counts().total() as usize;
    let size = MapSize {
        sealed_bytes: pages * PAGE_BYTES,
        page_bytes: pages * PAGE_BYTES,
        sum_bytes: 0,
        page_count: pages,
        pending: 8,
    };
    let shape = header.shape();
    let mut map = Map::carve(&mut arena, &header, shape, &size, 0).expect("ample room");
    for number in 0..pages {
        map.pages[number * PAGE_BYTES..][..PAGE_BYTES].fill(number as u8 + 1);
    }
    map.seal_page(1);
    map.pages.fill(0x77);
    map.seal_page(4);
    let first = |number| map.sealed_page(number).map(|page| page[0]);
    assert_eq!([0, 1, 2, 4].map(first), [0, 2, 0, 0x77].map(Some));
    assert!(
        map.sealed_page(1)
            .is_some_and(|page| page.iter().all(|byte| *byte == 2))
    );
    assert_eq!(first(5), None);
}
