//! Turns an input into changes of a golden image, checksums made right again.

use std::sync::OnceLock;

use crate::image::{
    CHUNK, DISK, End, Image, KINDS, Unit, field, fresh, golden, map_record, store_record,
};
use crate::input::Input;
use crate::old_image::{OLD_DATA_OFFSET, OldFields, REFERENCE, SPEC2011, old_golden};

/// Numbers of a header, each 8 bytes long.
const NUMBERS: [usize; 22] = [
    field::DISK_SIZE,
    field::DATA_OFFSET,
    field::BASE_SIZE,
    field::BITMAP,
    field::BITMAP_SIZE,
    field::BLOCK_SIZE,
    field::TABLE,
    field::TABLE_SIZE,
    field::CHUNK_SIZE,
    field::GROW_UNIT,
    field::JOURNAL,
    field::JOURNAL_SIZE,
    field::STABLE_SEQ,
    field::CLEAN,
    field::PREFETCHED,
    field::INCOMPATIBLE,
    field::GENERATION,
    field::ZERO_FLOOR,
    field::STORE_BYTES,
    field::CHECKSUM_A,
    field::CHECKSUM_A + 8,
    field::CHECKSUM_SIZE,
];

const PLACES: [u64; 10] = [
    0,
    512,
    4096,
    CHUNK,
    DISK,
    64 << 10,
    1 << 31,
    1 << 32,
    1 << 63,
    u64::MAX,
];

/// One of the golden images: six kinds, each new, closed and crashed.
pub(crate) fn chosen(number: u8) -> &'static Image {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let of = |kind| {
            [
                golden(kind, End::Closed),
                golden(kind, End::Crashed),
                fresh(kind),
            ]
        };
        let mut images: Vec<Image> = KINDS.into_iter().flat_map(of).collect();
        for image in &mut images {
            // Not looked at here, and large to copy.
            image.states.clear();
        }
        images
    });
    &images[usize::from(number) % images.len()]
}

/// A golden image with up to 16 changes, and whether it may lie now about what its device holds.
pub(crate) fn edited(input: &mut Input<'_>) -> (Image, bool) {
    let mut image = chosen(input.u8()).clone();
    let (mut numbers, mut bytes, mut lies) = (Vec::new(), Vec::new(), false);
    for _ in 0..input.u8() % 17 {
        // What may change the header comes last: the other edits find their places by it.
        match input.u8() % 8 {
            0 | 1 => numbers.push((
                NUMBERS[usize::from(input.u8()) % NUMBERS.len()],
                input.edge(&PLACES),
            )),
            2 if image.kind.table => {
                image.set_entry(usize::from(input.u16() % 1024), input.u32());
            }
            3 if image.kind.table => {
                image.set_entry(usize::from(input.u8() % 16), u32::from(input.u8() % 20));
            }
            4 if image.kind.base => {
                let at = usize::from(input.u16() % 4096);
                image.set_in_page(field::BITMAP, at, &[input.u8()]);
            }
            5 | 6 if image.kind.table || image.kind.base => {
                put_unit(&mut image, input);
                lies = true;
            }
            _ => {
                let end = image.metadata.len().min(64 << 10);
                bytes.push((usize::from(input.u16()) % end, input.u8()));
            }
        }
    }
    lies |= !bytes.is_empty() || !numbers.is_empty();
    for (at, byte) in bytes {
        image.metadata[at] = byte;
    }
    for (at, value) in numbers {
        image.set_u64(at, value);
    }
    (image, lies)
}

/// A unit that proves itself, of records that are often right.
fn put_unit(image: &mut Image, input: &mut Input<'_>) {
    let seq = image
        .seq()
        .wrapping_add_signed(i64::from(input.u8() as i8) % 20);
    let mut list = Vec::new();
    for _ in 0..input.u8() % 8 {
        list.push(match input.u8() % 4 {
            0 => store_record(u32::from(input.u8()), input.edge(&PLACES)),
            1 => input.bytes(12),
            _ => map_record(
                input.u8() % 4,
                u16::from(input.u8()),
                u32::from(input.u8() % 16),
                u32::from(input.u8() % 20),
            ),
        });
    }
    let records: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
    let mut unit = Unit::new(seq, image.seq(), &records);
    unit.flags = u16::from(input.u8());
    if unit.flags & 0x80 != 0 {
        unit.used = input.u16();
    }
    image.put(&unit);
}

/// An image of 2011 with up to 16 changes.
pub(crate) fn edited_old(input: &mut Input<'_>) -> Image {
    static IMAGES: OnceLock<Vec<(OldFields, Image)>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let of = |fields: OldFields| {
            [End::Closed, End::Crashed].map(|end| (fields, old_golden(&fields, end)))
        };
        [REFERENCE, SPEC2011].into_iter().flat_map(of).collect()
    });
    let (fields, image) = &images[usize::from(input.u8()) % images.len()];
    let mut image = image.clone();
    let numbers = fields.numbers();
    for _ in 0..input.u8() % 17 {
        let (at, bytes) = match input.u8() % 4 {
            0 | 1 => {
                let (at, len) = numbers[usize::from(input.u8()) % numbers.len()];
                (at, input.edge(&PLACES).to_le_bytes()[..len].to_vec())
            }
            2 => {
                let len = usize::from(input.u8() % 40);
                let at = fields.journal_start(&image) + usize::from(input.u16()) % 4096;
                (at, input.bytes(len))
            }
            _ => {
                let at = usize::from(input.u16()) % OLD_DATA_OFFSET;
                (at, vec![input.u8()])
            }
        };
        let end = (at + bytes.len()).min(image.metadata.len());
        let at = at.min(end);
        image.metadata[at..end].copy_from_slice(&bytes[..end - at]);
    }
    image
}
