//! Fills one journal unit.

use zerocopy::{FromBytes, IntoBytes};

use super::{
    FLAG_BITS, FLAG_ENTRY, INDEX_MAX, KIND_MAP, KIND_STORE, MAGIC_UNIT, MapRecord, RawMap,
    RawStore, RawTrailer, StoreRecord, TRAILER_BYTES, UnitFlags, is_unit_size, unit_crc,
};
use crate::format::ImageId;

/// Writes records into the bytes of one unit and seals it.
///
/// The bytes are cleared first: what is behind the records is zeros on disk, never what happened to
/// be in the buffer.
#[derive(Debug)]
pub struct UnitWriter<'a> {
    records: &'a mut [u8],
    trailer: &'a mut [u8; TRAILER_BYTES],
    used: usize,
}

impl<'a> UnitWriter<'a> {
    /// Starts a unit in `unit`, or `None` if no unit can have that length.
    #[must_use]
    pub fn new(unit: &'a mut [u8]) -> Option<UnitWriter<'a>> {
        if !is_unit_size(unit.len()) {
            return None;
        }
        unit.fill(0);
        let (records, trailer) = unit.split_last_chunk_mut::<TRAILER_BYTES>()?;
        Some(UnitWriter {
            records,
            trailer,
            used: 0,
        })
    }

    /// Whether no record was added yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a map record; `false` if the unit is full, or if the record says nothing.
    #[must_use]
    pub fn push_map(&mut self, map: &MapRecord) -> bool {
        let entry_flag = if map.entry.is_some() { FLAG_ENTRY } else { 0 };
        let bits_flag = if map.bits.is_some() { FLAG_BITS } else { 0 };
        let flags = entry_flag | bits_flag;
        debug_assert!(flags != 0, "a map record without entry and bits");
        let raw = RawMap {
            kind: KIND_MAP,
            flags,
            bits: map.bits.unwrap_or(0).into(),
            chunk: map.chunk.0.into(),
            entry: map.entry.map_or(0, |entry| entry.encode()).into(),
        };
        flags != 0 && self.push(raw.as_bytes())
    }

    /// Adds a store record; `false` if the unit is full.
    #[must_use]
    pub fn push_store(&mut self, store: &StoreRecord) -> bool {
        let raw = RawStore {
            kind: KIND_STORE,
            zero_a: 0,
            zero_b: 0.into(),
            zero_floor_chunk: store.zero_floor_chunk.into(),
            store_bytes: store.store_bytes.into(),
        };
        self.push(raw.as_bytes())
    }

    fn push(&mut self, record: &[u8]) -> bool {
        let room = self.records.get_mut(self.used..);
        match room.and_then(|room| room.get_mut(..record.len())) {
            Some(room) => {
                room.copy_from_slice(record);
                self.used = self.used.saturating_add(record.len());
                true
            }
            None => false,
        }
    }

    /// Ends the unit: from here on its bytes are what the slot `seq mod units` has to hold.
    ///
    /// `stable_seq` is the last one that is *durable* in a header slot, never one on its way there:
    /// a reader takes it as proof that the slot was written. An index above 16,383 can not be
    /// stored; commits are far shorter (`commit_units_max`).
    pub fn seal(self, seq: u64, stable_seq: u64, flags: UnitFlags, image_id: &ImageId) {
        debug_assert!(
            flags.index <= INDEX_MAX,
            "a commit longer than the format allows"
        );
        let Ok(trailer) = RawTrailer::mut_from_bytes(self.trailer) else {
            return;
        };
        trailer.magic = MAGIC_UNIT;
        trailer.seq = seq.into();
        trailer.stable_seq = stable_seq.into();
        trailer.used = u16::try_from(self.used).unwrap_or(0).into();
        trailer.flags = flags.encode().into();
        let records = self.records.get(..self.used).unwrap_or(&[]);
        trailer.crc = unit_crc(image_id, records, trailer).into();
    }
}
