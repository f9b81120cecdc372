//! Images of 2011 as another writer leaves them when it dies: all data are there, but some mappings
//! stand only in the journal, where nothing but recovery finds them.

use core::ops::Range;

use fvd::format::{Dialect, Header};

use crate::disk::SimDisk;
use crate::engine::Devices;
use crate::sector::SECTOR;
use crate::stamp::{Value, stamp};
use crate::workload::Setup;

/// Guest chunks that were written, the store chunk of each, and whether only the journal knows. None
/// is at its own number, and the last place in use is not the last chunk.
const WRITTEN: [(u32, u32, bool); 3] = [(0, 2, true), (2, 0, true), (3, 1, false)];

/// Turns a new image into one that an earlier writer left unclean.
pub(super) fn leave(setup: &Setup, header: &Header, devices: &Devices) {
    let forger = Forger {
        setup,
        header,
        metadata: &devices.metadata,
        data: devices.data.as_ref().unwrap_or(&devices.metadata),
    };
    if setup.unclean == 2 {
        // As recovery erases it, so that only what says something can be torn by that.
        for sector in 0..(header.core.journal.bytes / SECTOR as u64) as u32 {
            forger.put_records(sector, &[0xFF; SECTOR]);
        }
    }
    let chunks = setup.guest_sectors.div_ceil(setup.chunk_sectors);
    let written = WRITTEN.into_iter().filter(|(chunk, ..)| *chunk < chunks);
    for (number, (chunk, store, journaled)) in (0..).zip(written) {
        forger.put_data(chunk, store);
        if journaled {
            let mut records = forger.bits_record(chunk);
            records.extend(forger.entry_record(1 + u64::from(number), chunk, store));
            forger.put_records(number, &records);
        } else {
            forger.map(chunk, store);
        }
    }
    if setup.unclean == 2 {
        // A second place for the first chunk, which recovery must not believe.
        forger.put_records(5, &forger.entry_record(9, 0, 3));
    }
    let (clean, epoch) = match header.dialect {
        Dialect::Reference => (4300, None),
        _ => (3216, Some(3208)),
    };
    edit(forger.metadata, clean, &0u32.to_le_bytes());
    if let Some(at) = epoch {
        edit(forger.metadata, at, &1u64.to_le_bytes());
    }
}

struct Forger<'a> {
    setup: &'a Setup,
    header: &'a Header,
    metadata: &'a SimDisk,
    data: &'a SimDisk,
}

impl Forger<'_> {
    /// Guest sectors of a chunk.
    fn sectors(&self, chunk: u32) -> Range<u32> {
        let size = self.setup.chunk_sectors;
        let end = (chunk + 1) * size;
        chunk * size..end.min(self.setup.guest_sectors)
    }

    /// Those of them that were written.
    fn written(&self, chunk: u32) -> Range<u32> {
        let Range { start, end } = self.sectors(chunk);
        let written = (start..end).filter(|sector| self.setup.was_written(*sector));
        start..start + written.count() as u32
    }

    /// Puts a whole chunk into the store; zeros where nothing was written.
    fn put_data(&self, chunk: u32, store: u32) {
        let core = &self.header.core;
        let first = if self.header.has_table() {
            u64::from(store * self.setup.chunk_sectors)
        } else {
            u64::from(chunk * self.setup.chunk_sectors)
        };
        let first = core.data_offset as usize / SECTOR + first as usize;
        for (index, sector) in self.sectors(chunk).enumerate() {
            let value = if self.setup.was_written(sector) {
                Value::EARLIER
            } else {
                Value::ZERO
            };
            self.data.put(first + index, &stamp(value, sector.into()));
        }
    }

    /// The record that hides the base behind a chunk; empty without a base.
    fn bits_record(&self, chunk: u32) -> Vec<u8> {
        if !self.header.has_bitmap() {
            return Vec::new();
        }
        let written = self.written(chunk);
        let mut record = 0x3F2A_B8ED_u32.to_le_bytes().to_vec();
        record.extend((written.len() as u32).to_le_bytes());
        record.extend(i64::from(written.start).to_le_bytes());
        record
    }

    /// The record that gives a chunk its place; empty without a table.
    fn entry_record(&self, epoch: u64, chunk: u32, store: u32) -> Vec<u8> {
        if !self.header.has_table() {
            return Vec::new();
        }
        let mut record = 0xB4E6_F7AC_u32.to_le_bytes().to_vec();
        let words = match self.header.dialect {
            Dialect::Reference => [chunk, 1, store],
            _ => {
                record.extend(epoch.to_le_bytes());
                [1, chunk, store]
            }
        };
        record.extend(words.into_iter().flat_map(u32::to_le_bytes));
        record
    }

    fn put_records(&self, sector: u32, records: &[u8]) {
        let at = self.header.core.journal.offset + u64::from(sector) * SECTOR as u64;
        edit(self.metadata, at, records);
    }

    /// What a checkpoint would have put in place.
    fn map(&self, chunk: u32, store: u32) {
        let core = &self.header.core;
        if self.header.has_table() {
            let at = core.table.offset + 4 * u64::from(chunk);
            edit(self.metadata, at, &store.to_le_bytes());
        }
        if !self.header.has_bitmap() {
            return;
        }
        let blocks = self.header.bitmap_blocks();
        for sector in self.written(chunk) {
            let block = u64::from(sector / self.setup.block_sectors);
            if block < blocks {
                let at = core.bitmap.offset + block / 8;
                let [byte] = look(self.metadata, at);
                edit(self.metadata, at, &[byte | 1 << (block % 8)]);
            }
        }
    }
}

/// One byte of a disk.
fn look(disk: &SimDisk, at: u64) -> [u8; 1] {
    let (sector, byte) = (at as usize / SECTOR, at as usize % SECTOR);
    [disk.get(sector)[byte]]
}

/// Changes bytes within a sector.
fn edit(disk: &SimDisk, at: u64, bytes: &[u8]) {
    let (sector, byte) = (at as usize / SECTOR, at as usize % SECTOR);
    let mut contents = disk.get(sector);
    contents[byte..byte + bytes.len()].copy_from_slice(bytes);
    disk.put(sector, &contents);
}
