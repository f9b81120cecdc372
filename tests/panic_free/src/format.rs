//! The pure layer of the format: any bytes give a value or an error, any value gives bytes.

use fvd::format::journal::{
    MapRecord, Record, RecordBounds, Records, StoreRecord, UnitFlags, UnitView, UnitWriter,
    burned_seq, commit_units_max, parse_unit, records_per_unit, slot_of, units_for,
};
use fvd::format::old::{
    CleanMark, OLD_HEADER_BYTES, OldRecord, OldRecords, decode_old_entry, mask_old_entries,
};
use fvd::format::page::{
    ChecksumArray, PageCounts, PageKind, checksum_change, page_checksum, read_checksum,
    write_checksum,
};
use fvd::format::table::{self, TableEntry};
use fvd::format::{
    ChosenSlot, Dialect, Feature, Features, FeaturesIter, FormatError, Header, ImageId, Limits,
    MetadataBytes, Name, PAGE_BYTES, Region, Regions, SLOT_BYTES, bitmap, choose_slot, read_header,
};
use fvd::units::{BlockIndex, ChunkIndex, GuestOffset, Shape, StoreChunk};

type Check<T> = Result<T, FormatError>;

fn next_feature(features: &mut FeaturesIter) -> Option<Feature> {
    features.next()
}

fn next_record(records: &mut Records<'static>) -> Option<Check<Record>> {
    records.next()
}

fn next_old_record(records: &mut OldRecords<'static>) -> Option<OldRecord<'static>> {
    records.next()
}

// Headers.
keep! {
    fn(&[u8], &Limits) -> Check<Header> = Header::parse;
    fn(&Header, &mut [u8; SLOT_BYTES]) -> Check<()> = Header::encode;
    fn(&Header) -> Shape = Header::shape;
    fn(&Header) -> u64 = Header::bitmap_blocks;
    fn(&Header) -> PageCounts = Header::page_counts;
    fn(&Header, ChecksumArray) -> Region = Header::checksum_region;
    fn(&Header) -> u64 = Header::journal_units;
    fn(&Header, u64) -> u32 = Header::chunks_in;
    fn(&Header) -> MetadataBytes = Header::metadata_bytes;
    fn(&MetadataBytes) -> u64 = MetadataBytes::total;
    fn(&Header, u64, Option<u64>) -> Check<Regions> = Header::validate;
    fn(&[u8], &[u8], &Limits) -> Check<ChosenSlot> = choose_slot;
    fn(&[u8]) -> Option<Dialect> = Dialect::detect;
    fn(&[u8], &Limits) -> Check<ChosenSlot> = read_header;
    fn(&Header, &mut [u8; OLD_HEADER_BYTES]) -> Check<()> = Header::encode_old;
    fn(&mut [u8], u32) = mask_old_entries;
    fn(u32) -> TableEntry = decode_old_entry;
    fn(Dialect) -> bool = Dialect::is_old;
    fn(&OldRecords<'static>) -> bool = OldRecords::is_broken;
    fn(&Header) -> Option<CleanMark> = Header::clean_mark;
    fn(&Header) -> u64 = Header::metadata_end;
    fn(&CleanMark, &mut [u8], u64) = CleanMark::write;
    fn(&mut OldRecords<'static>) -> Option<OldRecord<'static>> = next_old_record;
    fn(&Region) -> Option<u64> = Region::end;
    fn(&Region) -> u32 = Region::pages;
    fn(&[u8]) -> Option<Name> = Name::new;
    fn(&Name) -> &[u8] = Name::as_bytes;
    fn(&Features) -> FeaturesIter = Features::iter;
    fn(&mut FeaturesIter) -> Option<Feature> = next_feature;
    fn(&Feature) -> Option<&'static str> = Feature::name;
}

// Table, bitmap, checksums.
keep! {
    fn(u32) -> Check<TableEntry> = TableEntry::decode;
    fn(TableEntry) -> u32 = TableEntry::encode;
    fn(&[u8], ChunkIndex) -> Option<Check<TableEntry>> = table::read_entry;
    fn(&mut [u8], ChunkIndex, TableEntry) -> bool = table::write_entry;
    fn(&[u8], u32, u32, u32) -> Check<()> = table::check_page;
    fn(u32) -> u16 = bitmap::group_mask;
    fn(u64, u32, u64) -> u32 = bitmap::group_len;
    fn(&[u8], u64, u32) -> u16 = bitmap::read_group;
    fn(&mut [u8], u64, u32, u16) = bitmap::write_group;
    fn(&[u8], u64) -> bool = bitmap::read_bit;
    fn(&mut [u8], u64) = bitmap::set_bit;
    fn(&[u8], u64, u64) -> u64 = bitmap::run_len;
    fn(&mut [u8], u64, u64) -> bool = bitmap::set_range;
    fn(&[u8], u64) -> u64 = bitmap::count_set;
    fn(&[u8], u32, u64) -> Check<()> = bitmap::check_page;
    fn(&[u8], u32, u32) -> Check<()> = table::check_tail;
    fn(u32, u32) -> u32 = checksum_change;
    fn(&PageCounts, PageKind, u32) -> Option<u32> = PageCounts::number;
    fn(&PageCounts, u32) -> Option<(PageKind, u32)> = PageCounts::locate;
    fn(&ImageId, u32, &[u8; PAGE_BYTES]) -> u32 = page_checksum;
    fn(&[u8], u32) -> Option<u32> = read_checksum;
    fn(&mut [u8], u32, u32) -> bool = write_checksum;
}

// Journal.
keep! {
    fn(u32) -> u32 = records_per_unit;
    fn(u32, u32) -> u32 = units_for;
    fn(u64, u32) -> u32 = commit_units_max;
    fn(u64, u64) -> u64 = slot_of;
    fn(u64, Option<u64>, u64) -> Check<u64> = burned_seq;
    fn(&'static [u8], &ImageId, u64, u64) -> Option<UnitView<'static>> = parse_unit;
    fn(&UnitView<'static>) -> Check<u64> = UnitView::commit_start;
    fn(&mut Records<'static>) -> Option<Check<Record>> = next_record;
    fn(&Header) -> RecordBounds = RecordBounds::new;
    fn(&RecordBounds, &Record, u32) -> Check<()> = RecordBounds::check;
    fn(&RecordBounds, u64) -> u32 = RecordBounds::chunks_in;
    fn(&'static mut [u8]) -> Option<UnitWriter<'static>> = UnitWriter::new;
    fn(&mut UnitWriter<'static>, &MapRecord) -> bool = UnitWriter::push_map;
    fn(&mut UnitWriter<'static>, &StoreRecord) -> bool = UnitWriter::push_store;
    fn(UnitWriter<'static>, u64, u64, UnitFlags, &ImageId) = UnitWriter::seal;
}

// Units of place and size.
keep! {
    fn(u64, u64, u64) -> Option<Shape> = Shape::new;
    fn(u64, u64, u64) -> Option<Shape> = Shape::loose;
    fn(&Shape) -> bool = Shape::is_grouped;
    fn(&Shape, ChunkIndex) -> GuestOffset = Shape::chunk_end;
    fn(&Shape) -> u32 = Shape::chunk_count;
    fn(&Shape, u64) -> u64 = Shape::blocks_covering;
    fn(&Shape, GuestOffset) -> ChunkIndex = Shape::chunk_of;
    fn(&Shape, GuestOffset) -> BlockIndex = Shape::block_of;
    fn(&Shape, ChunkIndex) -> GuestOffset = Shape::chunk_start;
    fn(&Shape, BlockIndex) -> GuestOffset = Shape::block_start;
    fn(&Shape, ChunkIndex) -> BlockIndex = Shape::first_block;
    fn(&Shape, StoreChunk) -> u64 = Shape::store_chunk_start;
}
