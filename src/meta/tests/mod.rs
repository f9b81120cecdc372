//! The mapping in memory, held against plain lists and against its meaning sector by sector.

extern crate std;

mod dirty;
mod loose;
mod map;
mod pending;
mod runs;

use std::vec::Vec;

use super::*;
use crate::device::testing::arena_memory;
use crate::format::page::{page_checksum, read_checksum, write_checksum};
use crate::format::{BaseParams, CreateParams, ImageId, StoreChoice, plan_layout};

const SECTOR: u64 = 512;
const BLOCK: u64 = 1024;
const CHUNK: u64 = 16 * BLOCK;

/// A small deterministic generator (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

fn header(disk_bytes: u64, table: bool, base_bytes: u64) -> Header {
    let base = BaseParams {
        name: Default::default(),
        format: Default::default(),
        bytes: base_bytes,
        id: [0; 16],
        generation: 0,
    };
    let params = CreateParams {
        block_bytes: BLOCK,
        chunk_bytes: CHUNK,
        table,
        base: (base_bytes != 0).then_some(base),
        store: StoreChoice::FixedZeroed {
            device_bytes: 1 << 30,
        },
        ..CreateParams::new(disk_bytes, ImageId([7; 16]))
    };
    plan_layout(&params).expect("legal")
}

pub(crate) fn carve(arena: &mut Arena, header: &Header) -> Map {
    let pages = header.page_counts().total() as usize;
    let size = MapSize {
        sealed_bytes: 0,
        page_bytes: pages * PAGE_BYTES,
        sum_bytes: header.checksum_bytes as usize,
        page_count: pages,
        pending: 64,
    };
    let mut map = Map::carve(arena, header, header.shape(), &size, header.core.base_bytes)
        .expect("ample room");
    map.table_mut().fill(0xFF);
    map
}

/// The map of a new image: nothing mapped, no block hidden.
fn map(disk_bytes: u64, table: bool, base_bytes: u64) -> Map {
    let mut arena = Arena::new(arena_memory(1 << 20)).expect("aligned");
    carve(&mut arena, &header(disk_bytes, table, base_bytes))
}

/// Gives every chunk of the map a mapping that its image may have.
fn scatter(map: &mut Map, rng: &mut Rng) {
    let chunks = map.shape.chunk_count();
    let mut last = 0;
    for chunk in (0..chunks).map(ChunkIndex) {
        let entry = match rng.below(8) {
            0 | 1 => TableEntry::Unmapped,
            2 => TableEntry::Unreadable,
            // Often the neighbour of the one before, so that runs join.
            3..=5 => TableEntry::Chunk(StoreChunk(last + 1)),
            _ => TableEntry::Chunk(StoreChunk(rng.below(1000) as u32)),
        };
        if let TableEntry::Chunk(at) = entry {
            last = at.0;
        }
        let bits = match rng.below(4) {
            0 => 0,
            1 => u16::MAX,
            _ => rng.below(1 << 16) as u16,
        };
        let bits = bits & bitmap::group_mask(map.group_len(chunk));
        map.set_mapping(chunk, Mapping { entry, bits });
    }
}

/// Pages that changed since the last cut.
fn marked(map: &Map) -> Vec<u32> {
    let pages = map.counts.total();
    (0..pages)
        .filter(|page| map.dirty.is_current(*page))
        .collect()
}
