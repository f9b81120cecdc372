//! Rows T: lookup tables, with right checksums.

use fvd::blocking::Blocking;
use fvd::device::DeviceError;

use crate::bench::Class::{Corrupt, Opens};
use crate::common;
use crate::image::{
    CHUNK, CHUNKS, DISK, End, FULL, Image, KINDS, STORE_CHUNKS, field, fresh, golden, options,
};
use crate::row::Row;

fn with_entry(chunk: usize, entry: u32) -> Image {
    let mut image = golden(FULL, End::Closed);
    image.set_entry(chunk, entry);
    image
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut bad = |id, what: &str, image| rows.push(Row::new(id, what, image, Corrupt));
    bad(
        "T1",
        "the chunk behind the store",
        with_entry(0, STORE_CHUNKS as u32),
    );
    let mut partly = with_entry(0, STORE_CHUNKS as u32 - 1);
    let store_bytes = partly.u64_at(field::STORE_BYTES) - 512;
    partly.set_u64(field::STORE_BYTES, store_bytes);
    partly.set_u64(field::ZERO_FLOOR, STORE_CHUNKS - 1);
    bad("T1", "a chunk that the end of the store cuts off", partly);
    for entry in [0x7FFF_FFFF, 0x7FFF_FFFE, 0x4000_0000] {
        bad("T2", "a chunk far behind everything", with_entry(0, entry));
    }
    let image = golden(FULL, End::Closed);
    let mapped = image.entry(1);
    assert!(mapped < 16, "the session mapped chunk 1");
    for chunk in [0, 7, 12] {
        bad("T3", "two chunks in one place", with_entry(chunk, mapped));
    }
    for journal in [64 << 10, (64 << 10) + CHUNK, (64 << 10) + 15 * CHUNK] {
        let mut inside = golden(FULL, End::Closed);
        inside.set_u64(field::JOURNAL, journal);
        bad("T4", "the journal inside the chunks", inside);
    }
    for entry in [0x8000_0000, 0x8000_0000 | mapped, 0xFFFE_FFFF] {
        bad(
            "T6",
            "a split record that is not there",
            with_entry(1, entry),
        );
    }
    for entry in [0xFFFF_FFFE, 0xFFFF_FFFC, 0xFFFF_0000] {
        bad("T6", "an entry without a meaning", with_entry(1, entry));
    }
    for entry in [0, mapped, 0x8000_0000, 0xFFFF_FFFD] {
        bad(
            "T8",
            "an entry behind the last chunk",
            with_entry(CHUNKS as usize, entry),
        );
        bad(
            "T8",
            "an entry at the end of the page",
            with_entry(1023, entry),
        );
    }

    // Behind the base a chunk without a place is zeros.
    let unmapped = with_entry(9, u32::MAX);
    let mut contents = unmapped.last_state().to_vec();
    contents[9 * CHUNK as usize..10 * CHUNK as usize].fill(0);
    rows.push(Row::shows("T5", "unmapped", unmapped, contents));
    let mut full = full_table();
    full.metadata
        .truncate(((64 << 10) + CHUNKS as usize * CHUNK as usize).next_multiple_of(512));
    rows.push(Row::new(
        "T10",
        "all mapped, a device without a byte more",
        full,
        Opens,
    ));
    rows
}

/// An image that maps each chunk, in a store of just as many.
fn full_table() -> Image {
    let mut image = fresh(KINDS[1]);
    let store = (64 << 10) + u64::from(CHUNKS) * CHUNK;
    image.set_u64(field::STORE_BYTES, store);
    image.set_u64(field::ZERO_FLOOR, u64::from(CHUNKS));
    let mut contents = vec![0; DISK as usize];
    for chunk in 0..CHUNKS as usize {
        // Backwards, so that no two are in a row.
        let place = CHUNKS as usize - 1 - chunk;
        image.set_entry(chunk, place as u32);
        let at = (64 << 10) + place * CHUNK as usize;
        image.metadata[at..at + CHUNK as usize].fill(chunk as u8 + 1);
        let start = chunk * CHUNK as usize;
        let end = (start + CHUNK as usize).min(DISK as usize);
        contents[start..end].fill(chunk as u8 + 1);
    }
    image.metadata.truncate(store as usize);
    image.states = vec![contents];
    image
}

/// T9: the next chunk after the last one is no chunk at all, and everything else goes on.
#[test]
fn a_full_store_takes_overwrites_and_refuses_the_rest() {
    let mut image = full_table();
    image.set_entry(4, u32::MAX);
    // One place is free again: chunk 4 gets it, and then there is none.
    image.set_entry(6, u32::MAX);
    let store = (64 << 10) + u64::from(CHUNKS - 1) * CHUNK;
    image.set_entry(0, CHUNKS - 1 - 6);
    image.set_u64(field::STORE_BYTES, store);
    image.set_u64(field::ZERO_FLOOR, u64::from(CHUNKS - 1));
    image.metadata.truncate(store as usize);
    let disk = common::open(image.devices::<true>(), options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    disk.write_at(4 * CHUNK, &[0x44; 512])
        .expect("the last free place");
    let refused = disk.write_at(6 * CHUNK, &[0x66; 512]);
    assert_eq!(refused, Err(DeviceError::NoSpace));
    disk.write_at(5 * CHUNK, &[0x55; 512])
        .expect("an overwrite");
    disk.flush().expect("flushes");
    let mut sector = [0; 512];
    for (chunk, value) in [(4, 0x44), (5, 0x55), (6, 0), (7, 8)] {
        disk.read_at(chunk * CHUNK, &mut sector).expect("reads");
        assert_eq!(sector, [value; 512], "chunk {chunk}");
    }
    let devices = common::close(disk.into_parts().0);
    assert_eq!(devices.faults, [""; 0]);
}
