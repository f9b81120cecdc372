//! Images of 2011 of which a sector can not be read, however often one tries.

use fvd::device::DeviceError;
use fvd::format::Dialect;
use fvd::open::{OpenError, OpenOptions};
use fvd::stores::Role;

use crate::bench::Bench;
use crate::image::{End, Image, options};
use crate::old::DIALECTS;
use crate::old_image::{OLD_DATA_OFFSET, OldFields, old_golden};

/// Whether an image of which this sector can not be read, however often one tries, is whole without.
fn is_spare(fields: &OldFields, end: End, image: &Image, at: u64) -> bool {
    match at {
        // Reserved in the specification; the reference has fields there.
        4096..8192 => fields.dialect == Dialect::Spec2011,
        _ => at >= fields.journal_start(image) as u64 && end == End::Closed,
    }
}

/// Opens an image of which a sector can not be read.
fn lose(bench: &mut Bench, fields: &OldFields, end: End, read_only: bool) {
    let image = old_golden(fields, end);
    let options = OpenOptions {
        read_only,
        ..options()
    };
    let mut devices = image.devices::<true>();
    for at in (0..OLD_DATA_OFFSET as u64).step_by(512) {
        let what = format!("{:?} {end:?}, read-only {read_only}: {at}", fields.dialect);
        devices.unreadable = at..at + 512;
        let (back, outcome) = bench.open(devices, options);
        devices = back;
        assert_eq!(devices.faults, [""; 0], "{what}");
        match outcome.result {
            Ok(contents) => {
                assert!(is_spare(fields, end, &image, at), "{what}: opened");
                assert!(contents == image.last_state(), "{what}");
            }
            Err(OpenError::Device {
                role: Role::Metadata,
                error: DeviceError::Unreadable,
            }) => {
                assert!(!is_spare(fields, end, &image, at), "{what}: refused");
                assert_eq!(devices.writes(), 0, "{what}: written to");
            }
            Err(error) => panic!("{what}: {error}"),
        }
        devices.rewind();
    }
}

/// Header, table, bitmap and, unless the image was closed, journal: without any part of them nothing
/// is opened, and nothing written.
#[test]
fn a_sector_that_can_not_be_read_refuses_the_image_before_anything_is_written() {
    let mut bench = Bench::new();
    for fields in DIALECTS {
        for end in [End::Closed, End::Crashed] {
            for read_only in [false, true] {
                lose(&mut bench, &fields, end, read_only);
            }
        }
    }
}
