//! Golden images, made by the engine itself, and the tools of somebody who forges them: every
//! checksum can be made right again.

use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Ram};
use fvd::format::{
    BaseParams, CreateParams, ImageId, JournalChoice, Limits, Name, SLOT_BYTES, StoreChoice,
    choose_slot, plan_layout,
};
use fvd::open::OpenOptions;
use fvd::{Disk, blocking};

use crate::common;
use crate::device::{Devices, FOREIGN};

pub(crate) const ID: ImageId = ImageId(*b"hostile image id");
/// Size of every disk: the last block and the last chunk are cut off.
pub(crate) const DISK: u64 = 12 * CHUNK + 1024;
pub(crate) const CHUNK: u64 = 8192;
/// Chunks of every disk.
pub(crate) const CHUNKS: u32 = 13;
pub(crate) const BLOCK: u64 = 2048;
/// Size of a base: it ends inside a block.
pub(crate) const BASE: u64 = 6 * CHUNK + 512;
/// Bits of the bitmap over such a base.
pub(crate) const BITS: u64 = 25;
/// Chunks of a store: some more than the disk needs.
pub(crate) const STORE_CHUNKS: u64 = 16;
const PAGE: usize = 4096;

/// What an image is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) table: bool,
    pub(crate) base: bool,
    pub(crate) external: bool,
    /// Bytes of a journal unit.
    pub(crate) unit: u32,
    /// Whether the store held somebody else's data when the image was made.
    pub(crate) used: bool,
}

/// Table and base on one device that was used before.
pub(crate) const FULL: Kind = Kind {
    table: true,
    base: true,
    external: false,
    unit: 512,
    used: true,
};

/// The kinds that differ in their metadata.
pub(crate) const KINDS: [Kind; 6] = [
    FULL,
    Kind {
        base: false,
        used: false,
        ..FULL
    },
    Kind {
        table: false,
        ..FULL
    },
    Kind {
        table: false,
        base: false,
        ..FULL
    },
    Kind {
        external: true,
        ..FULL
    },
    Kind {
        unit: 4096,
        used: false,
        ..FULL
    },
];

/// How the session ended that wrote to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    /// After its last flush.
    Crashed,
}

/// An image, its devices as bytes.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) kind: Kind,
    pub(crate) metadata: Vec<u8>,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) base: Option<Vec<u8>>,
    /// What the guest read after each flush, the first one before any write.
    pub(crate) states: Vec<Vec<u8>>,
    /// Where the slot that counts starts.
    pub(crate) slot: usize,
}

impl Kind {
    fn device_bytes(&self) -> (u64, u64) {
        let data = STORE_CHUNKS * CHUNK;
        if self.external {
            (self.data_offset(), data)
        } else {
            (self.data_offset() + data, 0)
        }
    }

    /// Where the metadata end, on the metadata device.
    fn data_offset(&self) -> u64 {
        64 << 10
    }

    pub(crate) fn params(&self) -> CreateParams {
        let (metadata, data) = self.device_bytes();
        let device_bytes = if self.external { data } else { metadata };
        CreateParams {
            block_bytes: BLOCK,
            chunk_bytes: CHUNK,
            table: self.table,
            base: self.base.then(|| BaseParams {
                name: Name::new(b"base.raw").expect("short"),
                format: Default::default(),
                bytes: BASE,
                id: [0; 16],
                generation: 0,
            }),
            journal: if self.table || self.base {
                JournalChoice::Bytes(8 * u64::from(self.unit))
            } else {
                JournalChoice::None
            },
            atomic_unit: self.unit,
            store: if self.used {
                StoreChoice::FixedUsed { device_bytes }
            } else {
                StoreChoice::FixedZeroed { device_bytes }
            },
            external_data: self.external,
            limits: Limits::FORMAT,
            ..CreateParams::new(DISK, ID)
        }
    }

    /// A new image with the data area further behind, so that all kinds have it in one place.
    fn create(&self) -> Image {
        let mut header = plan_layout(&self.params()).expect("a legal image");
        if !self.external {
            header.core.data_offset = self.data_offset();
            let chunks = header.chunks_in(header.store_bytes);
            header.zero_floor_chunk = header.zero_floor_chunk.min(u64::from(chunks));
        }
        let (metadata, data) = self.device_bytes();
        let fill = if self.used { FOREIGN } else { 0 };
        let ram = Ram::new(common::bytes(metadata as usize, fill));
        let memory = common::memory(CREATE_ARENA_BYTES);
        let created = blocking::create(ram, header, !self.used, memory, common::idle());
        created.result.expect("created");
        let metadata = created.device.into_memory();
        Image {
            kind: *self,
            metadata: metadata.unwrap_or_else(|_| panic!("idle")).to_vec(),
            data: self.external.then(|| vec![fill; data as usize]),
            base: self
                .base
                .then(|| common::base_bytes(BASE as usize).to_vec()),
            states: Vec::new(),
            slot: 0,
        }
    }
}

/// Writes of the session: the first ones into their chunks, then others beside them. No sector
/// twice, so that each sector has an old and a new content and no other.
pub(crate) const WRITES: [(u64, u64); 5] = [
    (CHUNK, 2048),            // a block of a chunk inside the base
    (9 * CHUNK + 512, 1024),  // a part of a chunk behind it
    (5 * CHUNK + 1024, 9216), // parts of blocks, across the end of a chunk and of the base
    (2 * CHUNK + 512, 512),   // a part of a block
    (DISK - 512, 512),        // the last sector
];

/// An image as it is before its first session.
pub(crate) fn fresh(kind: Kind) -> Image {
    let mut image = kind.create();
    let mut contents = vec![0; DISK as usize];
    if !kind.table {
        // What the store holds shows through where no base lies over it.
        let (at, store) = image.store();
        contents.copy_from_slice(&store[at..at + DISK as usize]);
    }
    if let Some(base) = &image.base {
        contents[..base.len()].copy_from_slice(base);
        contents[base.len()..(BITS * BLOCK) as usize].fill(0);
    }
    image.states = vec![contents];
    image
}

/// A golden image.
pub(crate) fn golden(kind: Kind, end: End) -> Image {
    let mut image = fresh(kind);
    let mut states = image.states.clone();
    let mut write = |disk: &mut dyn BlockDevice| {
        let memory = common::memory(64 << 10);
        let mut disk = blocking::Blocking::new(disk, memory, common::idle())
            .unwrap_or_else(|_| panic!("room"));
        for (number, (at, len)) in WRITES.into_iter().enumerate() {
            let mut contents = states[number].clone();
            let range = at as usize..(at + len) as usize;
            for (index, byte) in contents[range.clone()].iter_mut().enumerate() {
                *byte = (index / 512 + 16 * number + 1) as u8;
            }
            disk.write_at(at, &contents[range]).expect("writes");
            disk.flush().expect("flushes");
            states.push(contents);
        }
    };
    if kind.external {
        image.session::<false>(&mut write, end);
    } else {
        image.session::<true>(&mut write, end);
    }
    image.states = states;
    image
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        queue_depth: 4,
        part_ops: 16,
        pending_max: 66,
        scratch_blocks: 2,
        zero_memory_bytes: 4096,
        floor_step_chunks: 2,
        ..OpenOptions::DEFAULT
    }
}

impl Image {
    /// Contents before the first write, after which comes the last state.
    pub(crate) fn last_state(&self) -> &[u8] {
        self.states.last().expect("a state")
    }

    /// The device that holds the chunks, and where they start on it.
    fn store(&self) -> (usize, &[u8]) {
        match &self.data {
            Some(data) => (0, data),
            None => (self.kind.data_offset() as usize, &self.metadata),
        }
    }

    pub(crate) fn devices<const SHARED: bool>(&self) -> Devices<SHARED> {
        Devices::new(self.metadata.clone(), self.data.clone(), self.base.clone())
    }

    fn session<const SHARED: bool>(&mut self, act: &mut dyn FnMut(&mut dyn BlockDevice), end: End) {
        let mut disk: Disk<Devices<SHARED>> = common::open(self.devices::<SHARED>(), options());
        act(&mut disk);
        let devices = match end {
            End::Closed => common::close(disk),
            End::Crashed => {
                let mut closing = disk.abandon();
                while closing.poll(fvd::units::Instant::ZERO).is_pending() {}
                let closed = closing
                    .finish()
                    .unwrap_or_else(|_| panic!("nothing in flight"));
                closed.stores
            }
        };
        assert_eq!(devices.faults, [""; 0]);
        self.metadata = devices.metadata.bytes;
        self.data = devices.data.map(|data| data.bytes);
        self.find_slot();
    }

    /// Looks for the slot that counts.
    fn find_slot(&mut self) {
        let (first, second) = self.metadata[..2 * SLOT_BYTES].split_at(SLOT_BYTES);
        let chosen = choose_slot(first, second, &Limits::FORMAT).expect("a golden header");
        self.slot = chosen.slot.offset() as usize;
    }

    pub(crate) fn u64_at(&self, field: usize) -> u64 {
        let at = self.slot + field;
        u64::from_le_bytes(self.metadata[at..at + 8].try_into().expect("eight"))
    }

    /// Changes a field of the slot that counts, and leaves no other slot to fall back on.
    pub(crate) fn set(&mut self, field: usize, bytes: &[u8]) {
        let slot = self.slot;
        self.metadata[slot + field..][..bytes.len()].copy_from_slice(bytes);
        self.metadata[slot ^ SLOT_BYTES..][..SLOT_BYTES].fill(0);
        seal(&mut self.metadata[slot..slot + SLOT_BYTES]);
    }

    pub(crate) fn set_u64(&mut self, field: usize, value: u64) {
        self.set(field, &value.to_le_bytes());
    }

    pub(crate) fn set_u32(&mut self, field: usize, value: u32) {
        self.set(field, &value.to_le_bytes());
    }

    /// Changes bytes of a page of the table or the bitmap and makes its checksum right again.
    pub(crate) fn set_in_page(&mut self, region: usize, at: usize, bytes: &[u8]) {
        let start = self.u64_at(region) as usize;
        self.metadata[start + at..][..bytes.len()].copy_from_slice(bytes);
        let number = usize::from(region == field::BITMAP && self.kind.table);
        let page = &self.metadata[start..start + PAGE];
        let sum = crc32c(&[&ID.0, &(number as u32).to_le_bytes(), page]);
        let active = self.metadata[self.slot + field::CHECKSUM_ACTIVE];
        let array = self.u64_at(field::CHECKSUM_A + 8 * usize::from(active)) as usize;
        self.metadata[array + 4 * number..][..4].copy_from_slice(&sum.to_le_bytes());
    }

    pub(crate) fn set_entry(&mut self, chunk: usize, entry: u32) {
        self.set_in_page(field::TABLE, 4 * chunk, &entry.to_le_bytes());
    }

    pub(crate) fn entry(&self, chunk: usize) -> u32 {
        let at = self.u64_at(field::TABLE) as usize + 4 * chunk;
        u32::from_le_bytes(self.metadata[at..at + 4].try_into().expect("four"))
    }

    /// First number of the next unit, in an image without live ones.
    pub(crate) fn seq(&self) -> u64 {
        self.u64_at(field::STABLE_SEQ)
    }

    /// Puts a unit where its number belongs.
    pub(crate) fn put(&mut self, unit: &Unit) {
        let units = self.u64_at(field::JOURNAL_SIZE) / u64::from(self.kind.unit);
        self.put_at(unit, unit.seq % units);
    }

    pub(crate) fn put_at(&mut self, unit: &Unit, slot: u64) {
        let bytes = unit.bytes(self.kind.unit as usize);
        let at = self.u64_at(field::JOURNAL) + slot * u64::from(self.kind.unit);
        self.metadata[at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
}

/// Offsets in a slot (SPEC.md §3).
pub(crate) mod field {
    pub(crate) const DISK_SIZE: usize = 8;
    pub(crate) const DATA_OFFSET: usize = 16;
    pub(crate) const DATA_FILE: usize = 24;
    pub(crate) const BASE_NAME: usize = 1064;
    pub(crate) const BASE_SIZE: usize = 2104;
    pub(crate) const BITMAP: usize = 2112;
    pub(crate) const BITMAP_SIZE: usize = 2120;
    pub(crate) const BLOCK_SIZE: usize = 2128;
    pub(crate) const TABLE: usize = 2136;
    pub(crate) const TABLE_SIZE: usize = 2144;
    pub(crate) const CHUNK_SIZE: usize = 2152;
    pub(crate) const GROW_UNIT: usize = 2160;
    pub(crate) const COMMAND: usize = 2168;
    pub(crate) const JOURNAL: usize = 3192;
    pub(crate) const JOURNAL_SIZE: usize = 3200;
    pub(crate) const STABLE_SEQ: usize = 3208;
    pub(crate) const CLEAN: usize = 3216;
    pub(crate) const PREFETCHED: usize = 3240;
    pub(crate) const NEED_ZERO_INIT: usize = 3312;
    /// Copy-on-read and prefetch, from the first byte to the last, without the flag between them.
    pub(crate) const HINTS: [(usize, usize); 2] = [(3220, 20), (3244, 68)];
    pub(crate) const INCOMPATIBLE: usize = 3328;
    pub(crate) const GENERATION: usize = 3360;
    pub(crate) const ZERO_FLOOR: usize = 3416;
    pub(crate) const STORE_BYTES: usize = 3424;
    pub(crate) const ATOMIC_UNIT: usize = 3432;
    pub(crate) const CHECKSUM_ACTIVE: usize = 3436;
    pub(crate) const CHECKSUM_A: usize = 3440;
    pub(crate) const CHECKSUM_SIZE: usize = 3456;
}

/// A journal unit that anybody could forge.
#[derive(Clone)]
pub(crate) struct Unit {
    pub(crate) seq: u64,
    pub(crate) stable_seq: u64,
    pub(crate) records: Vec<u8>,
    /// Bytes of records that the trailer admits to; all of them unless changed.
    pub(crate) used: u16,
    /// Last of its commit, everything before it durable, index 0, unless changed.
    pub(crate) flags: u16,
    pub(crate) id: [u8; 16],
}

impl Unit {
    pub(crate) fn new(seq: u64, stable_seq: u64, records: &[&[u8]]) -> Unit {
        let records = records.concat();
        Unit {
            seq,
            stable_seq,
            used: records.len() as u16,
            records,
            flags: 1,
            id: ID.0,
        }
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        let mut unit = vec![0; len];
        unit[..self.records.len()].copy_from_slice(&self.records);
        let (body, trailer) = unit.split_at_mut(len - 32);
        trailer[4..8].copy_from_slice(b"FVDJ");
        trailer[8..16].copy_from_slice(&self.seq.to_le_bytes());
        trailer[16..24].copy_from_slice(&self.stable_seq.to_le_bytes());
        trailer[24..26].copy_from_slice(&self.used.to_le_bytes());
        trailer[26..28].copy_from_slice(&self.flags.to_le_bytes());
        let records = &body[..usize::from(self.used).min(body.len())];
        let crc = crc32c(&[&self.id, records, &trailer[..28]]);
        trailer[28..].copy_from_slice(&crc.to_le_bytes());
        unit
    }
}

/// A map record: kind, flags, bits, chunk, entry.
pub(crate) fn map_record(flags: u8, bits: u16, chunk: u32, entry: u32) -> Vec<u8> {
    let mut record = vec![1, flags];
    record.extend(bits.to_le_bytes());
    record.extend(chunk.to_le_bytes());
    record.extend(entry.to_le_bytes());
    record
}

/// A store record.
pub(crate) fn store_record(floor: u32, store_bytes: u64) -> Vec<u8> {
    let mut record = vec![2, 0, 0, 0];
    record.extend(floor.to_le_bytes());
    record.extend(store_bytes.to_le_bytes());
    record
}

/// Makes the checksum of a slot right.
pub(crate) fn seal(slot: &mut [u8]) {
    let crc = crc32c(&[&slot[..SLOT_BYTES - 4]]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32C of SPEC.md §1.3, by a table of its own.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    let bytes = pieces.iter().copied().flatten();
    !bytes.fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}
