//! Rows B: bitmaps, with right checksums where somebody who forges one would make them right.

use fvd::format::PAGE_BYTES;

use crate::bench::Class::{Corrupt, Opens};
use crate::image::{BITS, BLOCK, CHUNK, DISK, End, FULL, Image, KINDS, field, fresh, golden};
use crate::row::Row;

fn with_byte(mut image: Image, at: usize, byte: u8) -> Image {
    image.set_in_page(field::BITMAP, at, &[byte]);
    image
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let last = (BITS / 8) as usize;
    for (at, byte) in [
        (last, 2),
        (last, 0x80),
        (last + 1, 1),
        (PAGE_BYTES - 1, 0x80),
    ] {
        let image = with_byte(golden(FULL, End::Closed), at, byte);
        let what = format!("byte {at} is {byte:#x}, behind the last block");
        rows.push(Row::new("B1", what, image, Corrupt));
    }

    let hidden = with_byte(fresh(FULL), 0, 1);
    let mut contents = hidden.last_state().to_vec();
    contents[..BLOCK as usize].fill(0);
    rows.push(Row::shows(
        "B2",
        "a bit over an unmapped chunk",
        hidden,
        contents,
    ));

    // The session wrote the first block of chunk 1, block 4 of the disk.
    let image = golden(FULL, End::Closed);
    let byte = image.metadata[image.u64_at(field::BITMAP) as usize];
    let shown = with_byte(image, 0, byte & !0x10);
    let mut contents = shown.last_state().to_vec();
    let block = CHUNK as usize..(CHUNK + BLOCK) as usize;
    contents[block.clone()].copy_from_slice(&shown.base.as_ref().expect("a base")[block]);
    rows.push(Row::shows(
        "B3",
        "no bit over a mapped chunk",
        shown,
        contents,
    ));

    let without_table = fresh(KINDS[2]);
    let mut all_ones = without_table.clone();
    all_ones.set_in_page(field::BITMAP, 0, &[0xFF, 0xFF, 0xFF, 1]);
    let mut cut = all_ones.clone();
    cut.metadata
        .truncate((64 << 10) + DISK as usize / 1024 * 512);
    rows.push(Row::new(
        "B4",
        "all ones, half of the store gone",
        cut,
        Corrupt,
    ));
    let store = all_ones.metadata[64 << 10..][..DISK as usize].to_vec();
    rows.push(Row::shows(
        "B4",
        "all ones: what the store holds",
        all_ones,
        store,
    ));

    let ragged = golden(FULL, End::Closed);
    rows.push(Row::new(
        "B5",
        "a last block that is cut off",
        ragged,
        Opens,
    ));

    // One block, and one bit for it.
    let mut small = fresh(FULL);
    small.set_u64(field::BASE_SIZE, 512);
    small.base.as_mut().expect("a base").truncate(512);
    let mut contents = vec![0; DISK as usize];
    contents[..512].copy_from_slice(&small.last_state()[..512]);
    rows.push(Row::shows(
        "B6",
        "a base shorter than a block",
        small.clone(),
        contents,
    ));
    let image = with_byte(small, 0, 2);
    rows.push(Row::new(
        "B6",
        "a second bit over such a base",
        image,
        Corrupt,
    ));

    for end in [0, PAGE_BYTES - 1] {
        let mut image = golden(FULL, End::Closed);
        let at = image.u64_at(field::BITMAP) as usize + end;
        image.metadata[at] ^= 0x20;
        rows.push(Row::new(
            "B7",
            format!("byte {end} changed"),
            image,
            Corrupt,
        ));
    }
    rows
}
