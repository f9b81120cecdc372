//! Reads one journal unit.

use zerocopy::FromBytes;

use super::{
    FLAG_BITS, FLAG_ENTRY, KIND_MAP, KIND_STORE, MAGIC_UNIT, MapRecord, RawMap, RawStore,
    RawTrailer, Record, StoreRecord, TRAILER_BYTES, UnitFlags, commit_units_max, is_unit_size,
    slot_of, unit_crc,
};
use crate::format::error::{Field, FormatError};
use crate::format::table::TableEntry;
use crate::format::{ImageId, SEQ_MAX};
use crate::seeded::{Bug, bug};
use crate::units::ChunkIndex;

/// A unit that has proved itself.
#[derive(Clone, Copy, Debug)]
pub struct UnitView<'a> {
    /// Its sequence number, at most [`SEQ_MAX`].
    pub seq: u64,
    /// The `stable_seq` that was durable when it was written.
    pub stable_seq: u64,
    /// Place in its commit and what was durable before it.
    pub flags: UnitFlags,
    records: &'a [u8],
    index_limit: u32,
}

/// Reads the unit at `slot` of a journal of `units` units; `None` = never written.
///
/// Never written is each unit that does not prove itself: wrong length, magic or CRC, another
/// image's, torn, or valid but not at slot `seq mod units`.
#[must_use]
pub fn parse_unit<'a>(
    unit: &'a [u8],
    image_id: &ImageId,
    slot: u64,
    units: u64,
) -> Option<UnitView<'a>> {
    if !is_unit_size(unit.len()) || slot >= units {
        return None;
    }
    let (body, trailer) = unit.split_last_chunk::<TRAILER_BYTES>()?;
    let trailer = RawTrailer::ref_from_bytes(trailer).ok()?;
    if trailer.magic != MAGIC_UNIT || trailer.end_word.get() != 0 {
        return None;
    }
    let records = body.get(..usize::from(trailer.used.get()))?;
    let seq = trailer.seq.get();
    let in_place = seq <= SEQ_MAX && slot_of(seq, units) == slot;
    let intact = trailer.crc.get() == unit_crc(image_id, records, trailer) || bug(Bug::CrcIgnored);
    if !in_place || !intact {
        return None;
    }
    let unit_bytes = u32::try_from(unit.len()).ok()?;
    Some(UnitView {
        seq,
        stable_seq: trailer.stable_seq.get(),
        flags: UnitFlags::decode(trailer.flags.get()),
        records,
        index_limit: commit_units_max(units, unit_bytes),
    })
}

impl<'a> UnitView<'a> {
    /// Whether this unit ends its commit.
    #[must_use]
    pub const fn last(&self) -> bool {
        self.flags.last
    }

    /// Bit 1: set unless every earlier commit was known durable when this unit was submitted.
    #[must_use]
    pub const fn earlier_unsure(&self) -> bool {
        self.flags.earlier_unsure
    }

    /// Place of this unit in its commit, from 0.
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.flags.index
    }

    /// Sequence number of the first unit of this one's commit.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the commit would be longer than the format allows, or start before unit 0: no
    /// writer makes such a unit, and a reader that took it could be made to gather a commit as long
    /// as the journal.
    pub fn commit_start(&self) -> Result<u64, FormatError> {
        let index = self.flags.index;
        let error = FormatError::corrupt(Field::UnitIndex, u64::from(index));
        if u32::from(index) >= self.index_limit {
            return Err(error);
        }
        self.seq.checked_sub(u64::from(index)).ok_or(error)
    }

    /// The records, in order. After an error nothing more comes.
    #[must_use]
    pub const fn records(&self) -> Records<'a> {
        Records { left: self.records }
    }
}

/// Iterator over the records of one unit; at most 338, since each takes at least 12 bytes.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    left: &'a [u8],
}

impl Iterator for Records<'_> {
    type Item = Result<Record, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.left.first()?;
        let (record, rest) = match kind {
            KIND_MAP => split(self.left, decode_map),
            KIND_STORE => split(self.left, decode_store),
            other => (
                Err(FormatError::corrupt(Field::RecordKind, u64::from(other))),
                &[][..],
            ),
        };
        self.left = if record.is_ok() { rest } else { &[] };
        Some(record)
    }
}

/// Reads one record of type `R` from the front; fewer bytes than that are `Corrupt`.
fn split<'a, R>(
    bytes: &'a [u8],
    decode: impl Fn(&R) -> Result<Record, FormatError>,
) -> (Result<Record, FormatError>, &'a [u8])
where
    R: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned + 'a,
{
    match R::ref_from_prefix(bytes) {
        Ok((raw, rest)) => (decode(raw), rest),
        Err(_) => {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            (Err(FormatError::corrupt(Field::RecordLength, length)), &[])
        }
    }
}

fn decode_map(raw: &RawMap) -> Result<Record, FormatError> {
    let flags = raw.flags;
    if flags == 0 || flags & !(FLAG_ENTRY | FLAG_BITS) != 0 {
        return Err(FormatError::corrupt(Field::RecordFlags, u64::from(flags)));
    }
    let (has_entry, has_bits) = (flags & FLAG_ENTRY != 0, flags & FLAG_BITS != 0);
    let (entry, bits) = (raw.entry.get(), raw.bits.get());
    if !has_entry && entry != 0 {
        return Err(FormatError::corrupt(Field::RecordEntry, u64::from(entry)));
    }
    if !has_bits && bits != 0 {
        return Err(FormatError::corrupt(Field::RecordBits, u64::from(bits)));
    }
    let entry = if has_entry {
        Some(TableEntry::decode(entry)?)
    } else {
        None
    };
    Ok(Record::Map(MapRecord {
        chunk: ChunkIndex(raw.chunk.get()),
        entry,
        bits: has_bits.then_some(bits),
    }))
}

fn decode_store(raw: &RawStore) -> Result<Record, FormatError> {
    if raw.zero_a != 0 || raw.zero_b.get() != 0 {
        let found = u64::from(raw.zero_a) | u64::from(raw.zero_b.get());
        return Err(FormatError::corrupt(Field::RecordFlags, found));
    }
    Ok(Record::Store(StoreRecord {
        zero_floor_chunk: raw.zero_floor_chunk.get(),
        store_bytes: raw.store_bytes.get(),
    }))
}
