//! One row of the catalogue, and how it is judged.

use fvd::device::OpKind;
use fvd::open::{OpenError, OpenOptions};

use crate::bench::{Bench, Class, Outcome, class_of};
use crate::device::{Devices, FOREIGN, holds};
use crate::image::{Image, options};

/// An image that somebody made with care, and what must come of it.
pub(crate) struct Row {
    /// The row of the catalogue.
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) image: Image,
    pub(crate) class: Class,
    /// What the guest reads if it opens.
    pub(crate) contents: Vec<u8>,
}

impl Row {
    /// A row whose image, if it opens, shows what it held before it was changed.
    pub(crate) fn new(
        id: &'static str,
        what: impl Into<String>,
        image: Image,
        class: Class,
    ) -> Row {
        Row {
            id,
            what: what.into(),
            contents: image.last_state().to_vec(),
            image,
            class,
        }
    }

    /// A row whose image opens and shows this.
    pub(crate) fn shows(
        id: &'static str,
        what: impl Into<String>,
        image: Image,
        contents: Vec<u8>,
    ) -> Row {
        Row {
            contents,
            ..Row::new(id, what, image, Class::Opens)
        }
    }

    /// Judges the row: opened for writing, for reading, and with each operation failing.
    pub(crate) fn judge(&self, bench: &mut Bench) {
        if self.image.data.is_some() {
            self.judge_on(bench, self.image.devices::<false>());
        } else {
            self.judge_on(bench, self.image.devices::<true>());
        }
    }

    fn judge_on<const SHARED: bool>(&self, bench: &mut Bench, devices: Devices<SHARED>) {
        let (mut devices, written) = bench.open(devices, options());
        self.expect(&devices, &written, self.class);
        devices.rewind();
        let read_only = OpenOptions {
            read_only: true,
            ..options()
        };
        let (mut devices, read) = bench.open(devices, read_only);
        assert_eq!(devices.writes(), 0, "{self}: written to, opened read-only");
        let class = match self.class {
            Class::ReadOnly => Class::Opens,
            other => other,
        };
        self.expect(&devices, &read, class);
        for index in 0..written.operations {
            devices.rewind();
            devices.fail_at = Some(index);
            let (back, outcome) = bench.open(devices, options());
            devices = back;
            self.expect_failure(&devices, &outcome, index);
        }
        // Whatever failed, the next opening is as good as the first.
        devices.rewind();
        let (devices, again) = bench.open(devices, options());
        self.expect(&devices, &again, self.class);
    }

    fn expect<const SHARED: bool>(
        &self,
        devices: &Devices<SHARED>,
        outcome: &Outcome,
        wanted: Class,
    ) {
        assert_eq!(devices.faults, [""; 0], "{self}");
        let found = match &outcome.result {
            Ok(contents) => {
                let place = contents
                    .iter()
                    .zip(&self.contents)
                    .position(|(a, b)| a != b);
                assert_eq!(place, None, "{self}: another byte than expected");
                assert_eq!(contents.len(), self.contents.len(), "{self}");
                let foreign = self.image.kind.table && holds(contents, FOREIGN);
                assert!(!foreign, "{self}: somebody else's bytes");
                Class::Opens
            }
            Err(error) => class_of(error),
        };
        assert_eq!(found, wanted, "{self}: {:?}", outcome.result.as_ref().err());
    }

    /// After a failed operation: an error about the device, or the answer that the image would have
    /// had anyway; and after a failed read nothing was written.
    fn expect_failure<const SHARED: bool>(
        &self,
        devices: &Devices<SHARED>,
        outcome: &Outcome,
        index: u64,
    ) {
        assert_eq!(devices.faults, [""; 0], "{self}, operation {index} failing");
        match &outcome.result {
            Err(OpenError::Device { .. }) => {}
            Err(error) => assert_eq!(class_of(error), self.class, "{self}, operation {index}"),
            // A part of header or journal that can be read the second time is no failure.
            Ok(_) if devices.failed == Some(OpKind::Read) => {
                return self.expect(devices, outcome, self.class);
            }
            Ok(_) => panic!("{self}: opened although operation {index} failed"),
        }
        if devices.failed == Some(OpKind::Read) {
            assert_eq!(
                devices.writes(),
                0,
                "{self}: written to after a failed read"
            );
        }
    }
}

impl core::fmt::Display for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.id, self.what)
    }
}
