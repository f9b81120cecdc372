//! Golden images of the dialects of 2011. They have no checksums: to forge one is to write bytes.

use fvd::blocking;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::Ram;
use fvd::format::{CreateParams, Dialect, StoreChoice, plan_layout};

use crate::common;
use crate::device::{Devices, FOREIGN};
use crate::image::{BASE, CHUNK, DISK, End, FULL, Image, STORE_CHUNKS, WRITES, field, options};

/// Where the chunks start: header, bitmap, table and journal lie before.
pub(crate) const OLD_DATA_OFFSET: usize = 20 << 10;
const OLD_JOURNAL: usize = 16 << 10;
const NONE: [u8; 4] = [0xFF; 4];

/// Where the header of a dialect has which field, and how many bytes the field takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldFields {
    pub(crate) dialect: Dialect,
    pub(crate) version: (usize, usize),
    pub(crate) disk: (usize, usize),
    /// Where the chunks start.
    pub(crate) data: (usize, usize),
    pub(crate) data_file: usize,
    pub(crate) base_name: usize,
    pub(crate) base_size: (usize, usize),
    pub(crate) bitmap: (usize, usize),
    pub(crate) bitmap_size: (usize, usize),
    pub(crate) block: (usize, usize),
    pub(crate) table: (usize, usize),
    pub(crate) chunk: (usize, usize),
    pub(crate) grow: (usize, usize),
    pub(crate) command: usize,
    pub(crate) journal: (usize, usize),
    pub(crate) journal_size: (usize, usize),
    pub(crate) clean: (usize, usize),
    pub(crate) prefetched: (usize, usize),
    pub(crate) need_zero_init: (usize, usize),
    /// Copy-on-read and prefetch, from the first byte to the last.
    pub(crate) hints: [(usize, usize); 2],
    /// Only in the written specification.
    pub(crate) table_size: Option<(usize, usize)>,
    pub(crate) epoch: Option<(usize, usize)>,
}

pub(crate) const REFERENCE: OldFields = OldFields {
    dialect: Dialect::Reference,
    version: (4, 4),
    disk: (12, 8),
    data: (20, 8),
    data_file: 1108,
    base_name: 28,
    base_size: (1068, 8),
    bitmap: (1076, 8),
    bitmap_size: (1084, 8),
    block: (1092, 4),
    table: (2212, 8),
    chunk: (2220, 8),
    grow: (2228, 8),
    command: 2236,
    journal: (4284, 8),
    journal_size: (4292, 8),
    clean: (4300, 4),
    prefetched: (8, 4),
    need_zero_init: (4304, 4),
    hints: [(1096, 12), (2148, 60)],
    table_size: None,
    epoch: None,
};

/// Where version 2 has them too.
pub(crate) const SPEC2011: OldFields = OldFields {
    dialect: Dialect::Spec2011,
    version: (4, 4),
    disk: (field::DISK_SIZE, 8),
    data: (field::DATA_OFFSET, 8),
    data_file: field::DATA_FILE,
    base_name: field::BASE_NAME,
    base_size: (field::BASE_SIZE, 8),
    bitmap: (field::BITMAP, 8),
    bitmap_size: (field::BITMAP_SIZE, 8),
    block: (field::BLOCK_SIZE, 8),
    table: (field::TABLE, 8),
    chunk: (field::CHUNK_SIZE, 8),
    grow: (field::GROW_UNIT, 8),
    command: field::COMMAND,
    journal: (field::JOURNAL, 8),
    journal_size: (field::JOURNAL_SIZE, 8),
    clean: (field::CLEAN, 4),
    prefetched: (field::PREFETCHED, 4),
    need_zero_init: (field::NEED_ZERO_INIT, 4),
    hints: field::HINTS,
    table_size: Some((field::TABLE_SIZE, 8)),
    epoch: Some((field::STABLE_SEQ, 8)),
};

impl OldFields {
    /// Every number of the header that means something.
    pub(crate) fn numbers(&self) -> Vec<(usize, usize)> {
        let mut all = vec![
            self.version,
            self.disk,
            self.data,
            self.base_size,
            self.bitmap,
            self.bitmap_size,
            self.block,
            self.table,
            self.chunk,
            self.grow,
            self.journal,
            self.journal_size,
            self.clean,
            self.prefetched,
            self.need_zero_init,
        ];
        all.extend(self.table_size);
        all.extend(self.epoch);
        all
    }

    pub(crate) fn get(&self, image: &Image, (at, len): (usize, usize)) -> u64 {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&image.metadata[at..at + len]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a number; what does not fit the field is cut off.
    pub(crate) fn set(&self, image: &mut Image, (at, len): (usize, usize), value: u64) {
        image.metadata[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    pub(crate) fn set_entry(&self, image: &mut Image, chunk: usize, entry: u32) {
        let at = self.get(image, self.table) as usize + 4 * chunk;
        image.metadata[at..at + 4].copy_from_slice(&entry.to_le_bytes());
    }

    pub(crate) fn journal_start(&self, _: &Image) -> usize {
        OLD_JOURNAL
    }

    /// Puts records into a sector of the journal; it holds nothing else then.
    pub(crate) fn put(&self, image: &mut Image, sector: usize, records: &[Vec<u8>]) {
        let at = OLD_JOURNAL + sector * 512;
        let bytes = records.concat();
        image.metadata[at..at + 512].fill(0);
        image.metadata[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    pub(crate) fn table_record(&self, epoch: u64, first: u32, count: u32, bytes: &[u8]) -> Vec<u8> {
        let mut record = 0xB4E6_F7AC_u32.to_le_bytes().to_vec();
        let (first, count) = (first.to_le_bytes(), count.to_le_bytes());
        if self.dialect == Dialect::Spec2011 {
            record.extend(epoch.to_le_bytes());
            record.extend([count, first].concat());
        } else {
            record.extend([first, count].concat());
        }
        record.extend(bytes);
        record
    }

    pub(crate) fn entries(&self, epoch: u64, first: u32, entries: &[u32]) -> Vec<u8> {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        self.table_record(epoch, first, entries.len() as u32, &bytes)
    }
}

pub(crate) fn bitmap_record(first: i64, sectors: u32) -> Vec<u8> {
    let mut record = 0x3F2A_B8ED_u32.to_le_bytes().to_vec();
    record.extend(sectors.to_le_bytes());
    record.extend(first.to_le_bytes());
    record
}

/// A golden image: table and base on one device that was used before. A crashed one has what its
/// session mapped only in its journal.
pub(crate) fn old_golden(fields: &OldFields, end: End) -> Image {
    let device_bytes = OLD_DATA_OFFSET as u64 + STORE_CHUNKS * CHUNK;
    let params = CreateParams {
        dialect: fields.dialect,
        store: StoreChoice::FixedUsed { device_bytes },
        ..FULL.params()
    };
    let header = plan_layout(&params).expect("a legal image");
    assert_eq!(header.core.data_offset, OLD_DATA_OFFSET as u64);
    let ram = Ram::new(common::bytes(device_bytes as usize, FOREIGN));
    let memory = common::memory(CREATE_ARENA_BYTES);
    let created = blocking::create(ram, header, false, memory, common::idle());
    created.result.expect("created");
    let metadata = created.device.into_memory();
    let metadata = metadata.unwrap_or_else(|_| panic!("idle")).to_vec();
    let base = common::base_bytes(BASE as usize).to_vec();
    let mut contents = base.clone();
    contents.resize(DISK as usize, 0);
    let devices: Devices<true> = Devices::new(metadata, None, Some(base.clone()));
    let disk = common::open(devices, options());
    let mut disk = blocking::Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    for (number, (at, len)) in WRITES.into_iter().enumerate() {
        let place = at as usize..(at + len) as usize;
        contents[place.clone()].fill(number as u8 + 1);
        disk.write_at(at, &contents[place]).expect("writes");
    }
    let devices = common::close(disk.into_parts().0);
    assert_eq!(devices.faults, [""; 0]);
    let mut image = Image {
        kind: FULL,
        metadata: devices.metadata.bytes,
        data: None,
        base: Some(base),
        states: vec![contents],
        slot: 0,
    };
    if end == End::Crashed {
        move_to_journal(fields, &mut image);
    }
    image
}

/// Takes table and bitmap back, and says the same by one sector per chunk that is mapped.
fn move_to_journal(fields: &OldFields, image: &mut Image) {
    let table = fields.get(image, fields.table) as usize;
    let bitmap = fields.get(image, fields.bitmap) as usize;
    let mut sector = 0;
    for chunk in 0..DISK.div_ceil(CHUNK) {
        let at = table + 4 * chunk as usize;
        let entry: [u8; 4] = image.metadata[at..at + 4].try_into().expect("four");
        if entry == NONE {
            continue;
        }
        image.metadata[at..at + 4].copy_from_slice(&NONE);
        let mut records = vec![fields.entries(1, chunk as u32, &[u32::from_le_bytes(entry)])];
        for (at, len) in WRITES {
            if at / CHUNK <= chunk && (at + len - 1) / CHUNK >= chunk {
                records.push(bitmap_record((at / 512) as i64, (len / 512) as u32));
            }
        }
        fields.put(image, sector, &records);
        sector += 1;
    }
    assert!((4..8).contains(&sector), "{sector} sectors");
    image.metadata[bitmap..bitmap + 4096].fill(0);
    fields.set(image, fields.clean, 0);
    if let Some(epoch) = fields.epoch {
        fields.set(image, epoch, 1);
    }
}
