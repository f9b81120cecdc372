//! Where `create` puts things, and what it refuses.

use core::num::NonZeroU64;

use super::*;
use crate::format::layout::{
    JOURNAL_DEFAULT_MAX, JOURNAL_DEFAULT_MIN, JOURNAL_DEFAULT_SHARE, JOURNAL_DEFAULT_UNITS_ENOUGH,
    JOURNAL_DEFAULT_UNITS_MIN,
};

#[test]
fn a_terabyte_with_a_base_takes_six_mib_of_table_and_bitmap() {
    let params = CreateParams {
        base: Some(base_params(1 << 40)),
        ..CreateParams::new(1 << 40, ID)
    };
    let header = plan_layout(&params).unwrap();
    let bytes = header.metadata_bytes();
    assert_eq!((bytes.table, bytes.bitmap), (4 * MIB, 2 * MIB));
    assert_eq!((bytes.checksums, bytes.journal), (2 * 8192, 4 * MIB));
    assert_eq!(header.core.table.offset, 8192);
    assert_eq!(header.core.bitmap.offset, 8192 + 4 * MIB);
    assert_eq!(header.checksum_offset, [8192 + 6 * MIB, 16384 + 6 * MIB]);
    assert_eq!(header.core.journal.offset, 24576 + 6 * MIB);
    assert_eq!(header.core.data_offset, 11 * MIB);
    assert_eq!((header.store_bytes, header.zero_floor_chunk), (11 * MIB, 0));
    assert_eq!((header.generation, header.core.stable_seq), (1, 0));
    assert!(header.core.clean_shutdown);
}

#[test]
fn journals_follow_the_metadata_between_two_bounds() {
    let of_units = |virtual_bytes, table, atomic_unit| {
        let params = CreateParams {
            table,
            atomic_unit,
            ..CreateParams::new(virtual_bytes, ID)
        };
        plan_layout(&params).unwrap().core.journal.bytes
    };
    let journal = |virtual_bytes, table| of_units(virtual_bytes, table, 512);
    assert_eq!(journal(MIB, true), JOURNAL_DEFAULT_MIN);
    // Enough units for rare checkpoints, where they are a small part of the disk.
    let enough = JOURNAL_DEFAULT_UNITS_ENOUGH * 512;
    assert_eq!(journal(64 * MIB, true), 64 * MIB / JOURNAL_DEFAULT_SHARE);
    assert_eq!(journal(enough * JOURNAL_DEFAULT_SHARE, true), enough);
    assert_eq!(journal(64 << 30, true), enough);
    assert_eq!(journal((64 << 30) + MIB, true), enough + 4096);
    assert_eq!(journal(1 << 40, true), JOURNAL_DEFAULT_MAX);
    assert_eq!(journal(2 << 40, true), JOURNAL_DEFAULT_MAX);
    assert_eq!(journal(MIB, false), 0);
    // Large units need a larger one: each flush takes a whole unit.
    assert_eq!(of_units(MIB, true, 4096), JOURNAL_DEFAULT_UNITS_MIN * 4096);
    assert_eq!(
        of_units(16 << 30, true, 4096),
        JOURNAL_DEFAULT_UNITS_ENOUGH * 4096
    );
    assert_eq!(of_units(1 << 40, true, 4096), JOURNAL_DEFAULT_MAX);
}

#[test]
fn wishes_about_the_journal_are_met_or_refused() {
    let with = |journal, table| {
        let params = CreateParams {
            journal,
            table,
            ..CreateParams::new(MIB, ID)
        };
        plan_layout(&params).map(|header| header.core.journal.bytes)
    };
    use JournalChoice::{Auto, Bytes, None};
    assert_eq!(with(None, true), Err(LayoutError::NeedsJournal));
    assert_eq!((with(None, false), with(Auto, false)), (Ok(0), Ok(0)));
    assert_eq!(with(Bytes(2048), true), Ok(2048));
    assert_eq!(with(Bytes(2049), true), Ok(2560));
    assert_eq!(with(Bytes(1536), true), Err(LayoutError::JournalSize(1536)));
    assert_eq!(with(Bytes(0), true), Err(LayoutError::JournalSize(0)));
    assert_eq!(with(Bytes(JOURNAL_BYTES_MAX), true), Ok(JOURNAL_BYTES_MAX));
    let more = JOURNAL_BYTES_MAX + 512;
    assert_eq!(with(Bytes(more), true), Err(LayoutError::JournalSize(more)));
    assert_eq!(
        with(Bytes(u64::MAX), true),
        Err(LayoutError::JournalSize(u64::MAX))
    );
    let base = CreateParams {
        base: Some(base_params(512)),
        journal: None,
        table: false,
        ..CreateParams::new(MIB, ID)
    };
    assert_eq!(plan_layout(&base), Err(LayoutError::NeedsJournal));
    let small = CreateParams {
        journal: Bytes(1024),
        limits: Limits::FORMAT.with_journal_units_min(2),
        ..CreateParams::new(MIB, ID)
    };
    let small = plan_layout(&small).unwrap();
    assert_eq!(small.journal_units(), 2);
    // The writer keeps to the limits that the image was opened with, not to the format's.
    assert!(parse(&encoded(&small)).is_err());
}

#[test]
fn data_starts_at_a_multiple_of_its_chunk_up_to_a_mib() {
    for (block_bytes, chunk_bytes, offset) in [
        (512, 512, 94208),
        (512, 4096, 94208),
        (4096, 32 * KIB, 96 * KIB),
        (64 * KIB, MIB, MIB),
        (MIB, 16 * MIB, MIB),
    ] {
        let params = CreateParams {
            block_bytes,
            chunk_bytes,
            ..CreateParams::new(16 * MIB, ID)
        };
        let header = plan_layout(&params).unwrap();
        let journal_end = header.core.journal.end().unwrap();
        assert_eq!(header.core.data_offset % chunk_bytes.clamp(4096, MIB), 0);
        assert!(header.core.data_offset >= journal_end);
        assert!(header.core.data_offset < journal_end + chunk_bytes.clamp(4096, MIB));
        if chunk_bytes >= 32 * KIB {
            assert_eq!(header.core.data_offset, offset, "{chunk_bytes}");
        }
    }
    let header = plan_layout(&plain_params()).unwrap();
    assert_eq!(
        (header.core.data_offset, header.store_bytes),
        (MIB, 11 * MIB)
    );
}

#[test]
fn devices_are_used_as_they_are() {
    let with = |store, table| {
        plan_layout(&CreateParams {
            store,
            table,
            ..CreateParams::new(10 * MIB, ID)
        })
    };
    let used = with(
        StoreChoice::FixedUsed {
            device_bytes: 9 * MIB + 5,
        },
        true,
    )
    .unwrap();
    assert_eq!((used.store_bytes, used.zero_floor_chunk), (9 * MIB + 5, 8));
    let zeroed = with(
        StoreChoice::FixedZeroed {
            device_bytes: 9 * MIB + 5,
        },
        true,
    )
    .unwrap();
    assert_eq!(
        (zeroed.store_bytes, zeroed.zero_floor_chunk),
        (9 * MIB + 5, 0)
    );
    assert!(with(StoreChoice::FixedUsed { device_bytes: MIB }, true).is_ok());
    let small = with(
        StoreChoice::FixedUsed {
            device_bytes: MIB - 1,
        },
        true,
    );
    assert_eq!(small, Err(LayoutError::DeviceTooSmall(MIB)));
    let small = with(
        StoreChoice::FixedZeroed {
            device_bytes: 11 * MIB - 1,
        },
        false,
    );
    assert_eq!(small, Err(LayoutError::DeviceTooSmall(11 * MIB)));
    assert!(
        with(
            StoreChoice::FixedZeroed {
                device_bytes: 11 * MIB
            },
            false
        )
        .is_ok()
    );
}

#[test]
fn rules_of_the_format_hold_for_wishes_too() {
    let field = |change: fn(&mut CreateParams)| {
        let mut params = full_params();
        change(&mut params);
        match plan_layout(&params).unwrap_err() {
            LayoutError::Format(error) => error.field,
            other => panic!("{other}"),
        }
    };
    assert_eq!(
        field(|params| params.virtual_bytes = 513),
        Field::VirtualDiskSize
    );
    assert_eq!(
        field(|params| params.virtual_bytes = !511),
        Field::VirtualDiskSize
    );
    assert_eq!(field(|params| params.block_bytes = 0), Field::BlockSize);
    assert_eq!(
        field(|params| params.chunk_bytes = u64::MAX),
        Field::ChunkSize
    );
    assert_eq!(
        field(|params| params.base = Some(base_params(u64::MAX))),
        Field::BaseImageSize
    );
    assert_eq!(field(|params| params.atomic_unit = 0), Field::AtomicUnit);
    assert_eq!(
        field(|params| params.grow_bytes = NonZeroU64::new(1)),
        Field::StorageGrowUnit
    );
    assert_eq!(
        field(|params| params.data_file = Name::new(b"d").unwrap()),
        Field::DataFile
    );
    let huge = StoreChoice::FixedUsed {
        device_bytes: u64::MAX,
    };
    let params = CreateParams {
        store: huge,
        ..full_params()
    };
    let error = plan_layout(&params).unwrap_err();
    assert!(error.to_string().contains("store_bytes"), "{error}");
    assert!(LayoutError::JournalSize(1).to_string().contains('1'));
    assert!(LayoutError::NeedsJournal.to_string().contains("journal"));
    assert!(LayoutError::DeviceTooSmall(77).to_string().contains("77"));
}
