//! Zeros and discards on and around a base: what is sent, and what is left of the base.

mod common;

use common::gate::Gate;
use common::guest::{Guest, based, options};
use common::{BLOCK_BYTES, CHUNK_BYTES, DISK_BYTES, SECRET, Setup};
use fvd::blocking;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{OpKind, Ram};
use fvd::format::table::{TableEntry, write_entry};
use fvd::format::{CreateParams, Dialect, Header, plan_layout};
use fvd::stores::{One, WithBase};
use fvd::units::{ChunkIndex, StoreChunk};

const OVER_BASE: Setup = Setup {
    base_bytes: DISK_BYTES,
    table: true,
    external: true,
    used: false,
};
/// Without a table, the base ends inside a block.
const RAGGED: Setup = Setup {
    table: false,
    base_bytes: DISK_BYTES / 2 + 1536,
    external: true,
    used: true,
};

#[test]
fn zeros_over_whole_blocks_of_the_base_take_no_operation_and_no_chunk() {
    let mut guest = based(&OVER_BASE, options());
    guest.run(OpKind::WriteZeroes, BLOCK_BYTES, 2 * BLOCK_BYTES, 0);
    assert!(guest.sent().is_empty());
    let stats = guest.disk.stats();
    assert_eq!((stats.chunks_reserved, stats.fills), (0, 0));
    assert_eq!(guest.read(2 * BLOCK_BYTES, 512), [0; 512]);
    common::close(guest.disk);
}

#[test]
fn where_the_base_ends_inside_a_block_zeros_cover_it_and_nothing_behind_it() {
    let mut guest = based(&RAGGED, options());
    let last = DISK_BYTES / 2;
    guest.run(OpKind::WriteZeroes, last, BLOCK_BYTES, 0);
    assert_eq!(guest.read(last, BLOCK_BYTES), [0; BLOCK_BYTES as usize]);
    let behind = guest.read(last + BLOCK_BYTES, BLOCK_BYTES);
    assert_eq!(behind, [SECRET; BLOCK_BYTES as usize]);
    common::close(guest.disk);
}

#[test]
fn a_discard_of_the_base_sends_nothing() {
    let mut guest = based(&RAGGED, options());
    let last = DISK_BYTES / 2;
    guest.run(OpKind::Discard, last - BLOCK_BYTES, 2 * BLOCK_BYTES, 0);
    assert!(guest.sent().is_empty());
    common::close(guest.disk);
}

/// The bytes of an image of 2011, and its header.
fn image_of_2011(setup: &Setup, block_bytes: u64) -> (&'static mut [u8], Header) {
    let params = CreateParams {
        dialect: Dialect::Spec2011,
        block_bytes,
        ..setup.params()
    };
    let header = plan_layout(&params).expect("legal");
    let device = Ram::new(common::bytes(setup.device_bytes().0, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = blocking::create(device, header, true, arena, common::idle());
    created.result.expect("created");
    let image = created.device.into_memory();
    (image.unwrap_or_else(|_| panic!("idle")), header)
}

fn open(setup: &Setup, image: &'static mut [u8]) -> Guest<WithBase<One<Gate>, Ram>> {
    let stores = WithBase::new(One(Gate::new(Ram::new(image))), setup.base());
    Guest::open(stores, options())
}

#[test]
fn zeros_in_a_block_of_chunks_apart_from_each_other_leave_the_rest_of_the_base() {
    // Only images of 2011 have blocks that are longer than their chunks.
    let block_bytes = 4 * CHUNK_BYTES;
    let setup = Setup {
        external: false,
        ..OVER_BASE
    };
    let (image, header) = image_of_2011(&setup, block_bytes);
    let table = &mut image[header.core.table.offset as usize..];
    for chunk in 0..4 {
        let entry = TableEntry::Chunk(StoreChunk(2 * chunk));
        assert!(write_entry(table, ChunkIndex(chunk), entry));
    }
    let mut guest = open(&setup, image);
    let zeros = 512..block_bytes as usize - 1024;
    guest.run(OpKind::WriteZeroes, 512, zeros.len() as u64, 0);
    let after = guest.read(0, block_bytes);
    for (index, byte) in after.into_iter().enumerate() {
        let base = common::base_byte(index);
        let expected = if zeros.contains(&index) { 0 } else { base };
        assert_eq!(byte, expected, "{index}");
    }
    common::close(guest.disk);
}

#[test]
fn zeros_that_start_behind_the_end_of_the_base_do_not_end_with_its_last_block() {
    // In images of 2011 the bit of that block says nothing of what is behind the base.
    let setup = Setup {
        external: false,
        base_bytes: DISK_BYTES / 2 + 1536,
        ..OVER_BASE
    };
    let (image, _) = image_of_2011(&setup, BLOCK_BYTES);
    let mut guest = open(&setup, image);
    let last_chunk = DISK_BYTES / 2;
    let next_chunk = last_chunk + CHUNK_BYTES;
    guest.run(OpKind::Write, next_chunk, CHUNK_BYTES, 1);
    let start = last_chunk + 2048;
    let len = next_chunk + BLOCK_BYTES - start;
    guest.run(OpKind::WriteZeroes, start, len, 0);
    assert_eq!(guest.read(start, len), vec![0; len as usize]);
    let behind = guest.read(next_chunk + BLOCK_BYTES, 512);
    assert_eq!(behind, [1; 512]);
    common::close(guest.disk);
}
