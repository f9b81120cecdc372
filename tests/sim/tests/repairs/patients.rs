//! Images with each kind of fault that a repair mends.

use fvd::blocking;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::format::{
    BaseParams, CreateParams, FormatName, Header, ImageId, JournalChoice, Limits, Name, PAGE_BYTES,
    SLOT_BYTES, SlotIndex, StoreChoice, choose_slot, plan_layout,
};
use fvd::units::Instant;
use fvd_sim::engine::arena_memory;
use fvd_sim::sector::{SECTOR, SectorId};

use super::{BASE_BYTES, Clinic, DISK_BYTES, Image, Patient, options};

const CHUNK: usize = 2048;

fn header() -> Header {
    let mut params = CreateParams::new(DISK_BYTES as u64, ImageId(*b"fvd-sim a repair"));
    params.block_bytes = 1024;
    params.chunk_bytes = CHUNK as u64;
    params.atomic_unit = SECTOR as u32;
    params.journal = JournalChoice::Bytes(8 * SECTOR as u64);
    params.limits = Limits::FORMAT;
    params.base = Some(BaseParams {
        name: Name::EMPTY,
        format: FormatName::EMPTY,
        bytes: BASE_BYTES as u64,
        id: [0; 16],
        generation: 0,
    });
    let roomy = CreateParams {
        store: StoreChoice::FixedZeroed {
            device_bytes: 1 << 30,
        },
        ..params
    };
    let end = plan_layout(&roomy).expect("legal").core.data_offset + 10 * CHUNK as u64;
    params.store = StoreChoice::FixedZeroed { device_bytes: end };
    plan_layout(&params).expect("legal")
}

/// A new image.
fn created(clinic: &Clinic) -> Image {
    let header = header();
    let disk = clinic.disk(&vec![SectorId::ZERO; header.store_bytes as usize / SECTOR]);
    let memory = arena_memory(CREATE_ARENA_BYTES);
    let made = blocking::create(disk.clone(), header, true, memory, |_| Instant::ZERO);
    made.result.expect("created");
    disk.image()
}

fn bytes_of(clinic: &Clinic, image: &[SectorId]) -> Vec<u8> {
    let sectors = clinic.sectors.borrow();
    let bytes = image.iter().map(|id| sectors.get(*id).expect("readable"));
    bytes.flatten().copied().collect()
}

fn image_of(clinic: &Clinic, bytes: &[u8]) -> Image {
    let mut sectors = clinic.sectors.borrow_mut();
    let sector = |bytes: &[u8]| sectors.intern(bytes.try_into().expect("a sector")).0;
    bytes.chunks(SECTOR).map(sector).collect()
}

fn found(bytes: &[u8]) -> (Header, SlotIndex) {
    let (first, rest) = bytes.split_at(SLOT_BYTES);
    let chosen = choose_slot(first, &rest[..SLOT_BYTES], &Limits::FORMAT).expect("a header");
    (chosen.header, chosen.slot)
}

/// After a session that wrote here and there and was closed.
fn closed(clinic: &Clinic) -> Image {
    let disk = clinic.disk(&created(clinic));
    clinic
        .session(&disk, options(), &mut |guest| {
            for (value, at) in [(1, 0), (2, 3 * CHUNK + 512), (3, 7 * CHUNK)] {
                guest.write(at, &[value; 1536]);
                guest.flush();
            }
            true
        })
        .expect("opens");
    disk.image()
}

/// Everything that a crash leaves of a session on a closed image. All its writes were flushed, so
/// that the guest reads the same from each.
fn crashed(clinic: &Clinic) -> Vec<Image> {
    let disk = clinic.disk(&closed(clinic));
    clinic
        .session(&disk, options(), &mut |guest| {
            for (value, at) in [(4, CHUNK), (5, 3 * CHUNK), (6, 5 * CHUNK + 1024)] {
                guest.write(at, &[value; 1024]);
                guest.flush();
            }
            false
        })
        .expect("opens");
    clinic.power_loss(&disk)
}

/// Changes the bytes of an image.
fn changed(clinic: &Clinic, image: &[SectorId], change: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = bytes_of(clinic, image);
    change(&mut bytes);
    image_of(clinic, &bytes)
}

/// Damages the header that does not count.
fn lose_header(bytes: &mut [u8]) {
    let (_, slot) = found(bytes);
    bytes[slot.other().offset() as usize + 3400] ^= 0xFF;
}

/// Writes the header that counts anew, in place.
fn change_header(bytes: &mut [u8], change: impl FnOnce(&mut Header)) {
    let (mut header, slot) = found(bytes);
    change(&mut header);
    let slot = bytes[slot.offset() as usize..].first_chunk_mut();
    header.encode(slot.expect("a slot")).expect("legal");
}

/// Writes behind the last entry and the last bit, where no checksum looks.
fn write_tails(bytes: &mut [u8], table: bool, bitmap: bool) {
    let (header, _) = found(bytes);
    let regions = [(table, header.core.table), (bitmap, header.core.bitmap)];
    for (_, region) in regions.into_iter().filter(|region| region.0) {
        let page = &mut bytes[region.offset as usize..][..PAGE_BYTES];
        page[PAGE_BYTES - 600..].fill(7);
    }
}

/// Images with each kind of fault, closed ones and crashed ones.
pub fn all(clinic: &Clinic) -> Vec<Patient> {
    let closed = closed(clinic);
    let content = clinic.content(&closed).expect("opens");
    let mut patients = Vec::new();
    let mut add = |name, image| {
        patients.push(Patient {
            name,
            image,
            content: content.clone(),
        });
    };
    let make = |change: &dyn Fn(&mut Vec<u8>)| changed(clinic, &closed, change);
    let low_floor = |bytes: &mut Vec<u8>| {
        change_header(bytes, |header| header.zero_floor_chunk = 1);
    };
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 4 * CHUNK);
    add("lost header", make(&|bytes| lose_header(bytes)));
    add("zero floor", make(&low_floor));
    add("short store", make(&cut));
    add("table tail", make(&|bytes| write_tails(bytes, true, false)));
    add(
        "bitmap tail",
        make(&|bytes| write_tails(bytes, false, true)),
    );
    add(
        "all at once",
        make(&|bytes| {
            low_floor(bytes);
            write_tails(bytes, true, true);
            lose_header(bytes);
            cut(bytes);
        }),
    );
    let crashed = crashed(clinic);
    let content = clinic.content(&crashed[0]).expect("opens");
    for image in crashed {
        let mut add = |name, image| {
            patients.push(Patient {
                name,
                image,
                content: content.clone(),
            });
        };
        let make = |change: &dyn Fn(&mut Vec<u8>)| changed(clinic, &image, change);
        add("crashed", image.clone());
        add("crashed, lost header", make(&|bytes| lose_header(bytes)));
        add(
            "crashed, all at once",
            make(&|bytes| {
                low_floor(bytes);
                write_tails(bytes, true, true);
                lose_header(bytes);
            }),
        );
    }
    patients
}
