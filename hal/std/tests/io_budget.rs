//! What requests cost in operations on the image's file: exact, through the adapter for files.

mod common;

use common::cli::Folder;
use common::{Bench, How, Noise};
use fvd::device::{OpKind, Status};
use fvd::format::{CreateParams, ImageId, JournalChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{self, Access, DeviceCounts, Devices, Image};

on_every_adapter!(
    a_first_write_and_a_flush_are_two_writes_and_one_sync,
    first_writes_before_a_flush_share_one_journal_write,
    half_a_journal_costs_three_writes_and_two_syncs_more,
    mapped_requests_are_one_operation_and_metadata_is_never_read,
);

const CHUNK: u64 = 1 << 20;
const CHUNKS: u64 = 1 << 10;
/// So many units that no checkpoint falls into what is counted.
const MANY_UNITS: u64 = 256;

/// What was done since the last look, in the file of the image.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    reads: u64,
    writes: u64,
    write_bytes: u64,
    flushes: u64,
}

/// An open image, a guest, and what was counted last.
struct Counted {
    image: Image,
    guest: Bench,
    last: DeviceCounts,
}

impl Counted {
    /// A new image in a file that declares atomic units of this size, with so many of them in its
    /// journal. Its store has grown, and its zero floor is above what follows.
    fn new(folder: &Folder, how: How, atomic_unit: u32, units: u64) -> Counted {
        let path = folder.path(&format!("{atomic_unit}.fvd"));
        let header = plan_layout(&CreateParams {
            atomic_unit,
            journal: JournalChoice::Bytes(units * u64::from(atomic_unit)),
            ..CreateParams::new(CHUNKS * CHUNK, ImageId(*b"made at random!!"))
        })
        .expect("a legal image");
        let file = std::fs::File::create_new(&path).expect("a new file");
        file.set_len(header.store_bytes).expect("room");
        let options = FileOptions {
            atomic_write_bytes: Some(atomic_unit),
            aio: how.aio,
            cache: how.cache,
            ..image::file_options(&header, Access::ReadWrite)
        };
        let mut guest = Bench::new();
        let device = FileDevice::open(&path, &options).expect("a device");
        image::create(&mut guest.driver, device, header, true).expect("created");
        let devices = Devices {
            metadata: FileDevice::open(&path, &options).expect("a device"),
            data: None,
            base: None,
        };
        let options = OpenOptions {
            store_reads_zeros: true,
            ..image::open_options(Access::ReadWrite).expect("randomness")
        };
        let image = Image::on(&mut guest.driver, devices, options).expect("opened");
        let mut counted = Counted {
            last: image.device_counts(),
            image,
            guest,
        };
        counted.write_and_flush(0..1);
        counted.last = counted.image.device_counts();
        counted
    }

    /// Writes 4 KiB at the start of each of these chunks, all at once, then flushes.
    fn write_and_flush(&mut self, chunks: impl Iterator<Item = u64>) {
        let offsets = chunks.map(|chunk| chunk * CHUNK);
        self.guest.batch(&mut self.image, OpKind::Write, offsets);
        let status = self.guest.run(&mut self.image, OpKind::Flush, 0, 0);
        assert_eq!(status, Status::Done);
    }

    /// What was done since the last call. No metadata may have been read.
    fn cost(&mut self) -> Cost {
        let now = self.image.device_counts();
        let was = core::mem::replace(&mut self.last, now);
        assert_eq!(now.metadata.reads, was.metadata.reads, "metadata was read");
        let all = |of: fn(&fvd::device::Counts) -> u64| {
            of(&now.metadata) + of(&now.data) - of(&was.metadata) - of(&was.data)
        };
        let cost = Cost {
            reads: all(|counts| counts.reads),
            writes: all(|counts| counts.writes),
            write_bytes: all(|counts| counts.write_bytes),
            flushes: all(|counts| counts.flushes),
        };
        let named = cost.reads + cost.writes + cost.flushes;
        assert_eq!(
            all(fvd::device::Counts::operations),
            named,
            "of other kinds"
        );
        assert_eq!(all(|counts| counts.fua_writes), 0);
        cost
    }

    fn close(mut self) {
        self.image.close(&mut self.guest.driver).expect("closed");
    }
}

/// Only writes and flushes.
fn written(writes: u64, write_bytes: u64, flushes: u64) -> Cost {
    Cost {
        reads: 0,
        writes,
        write_bytes,
        flushes,
    }
}

fn a_first_write_and_a_flush_are_two_writes_and_one_sync(how: How) {
    let folder = Folder::new();
    for unit in [4096, 512] {
        let mut counted = Counted::new(&folder, how, unit, MANY_UNITS);
        for chunk in 1..9 {
            counted.write_and_flush(chunk..=chunk);
            let wanted = written(2, 4096 + u64::from(unit), 1);
            assert_eq!(counted.cost(), wanted, "units of {unit}, chunk {chunk}");
            // Once more at the same place: nothing extra.
            counted.write_and_flush(chunk..=chunk);
            assert_eq!(counted.cost(), written(1, 4096, 1), "again");
        }
        counted.close();
    }
}

fn first_writes_before_a_flush_share_one_journal_write(how: How) {
    let folder = Folder::new();
    for unit in [4096, 512] {
        let mut counted = Counted::new(&folder, how, unit, MANY_UNITS);
        let mut next = 1;
        for count in [2, 8, 32] {
            counted.write_and_flush(next..next + count);
            next += count;
            let wanted = written(count + 1, count * 4096 + u64::from(unit), 1);
            assert_eq!(counted.cost(), wanted, "units of {unit}, {count} writes");
        }
        counted.close();
    }
}

/// Checkpoints go on beside requests: a page, checksums and the header, where the disk is small.
fn half_a_journal_costs_three_writes_and_two_syncs_more(how: How) {
    const COUNT: u64 = 50;
    for units in [16, 32] {
        let folder = Folder::new();
        let mut counted = Counted::new(&folder, how, 4096, units);
        for chunk in 1..=COUNT {
            counted.write_and_flush(chunk..=chunk);
        }
        // One of them may not be at its end.
        let most = COUNT / (units / 2 - 2) + 1;
        let Cost {
            reads,
            writes,
            write_bytes,
            flushes,
        } = counted.cost();
        assert!(
            (2 * COUNT..=2 * COUNT + 3 * most).contains(&writes),
            "{writes}"
        );
        assert!((COUNT..=COUNT + 2 * most).contains(&flushes), "{flushes}");
        assert_eq!((reads, write_bytes), (0, writes * 4096));
        counted.close();
    }
}

fn mapped_requests_are_one_operation_and_metadata_is_never_read(how: How) {
    let folder = Folder::new();
    let mut counted = Counted::new(&folder, how, 4096, MANY_UNITS);
    counted.write_and_flush(1..33);
    counted.cost();
    let mut noise = Noise::new(3);
    for turn in 0..200 {
        let offset = noise.below(33) * CHUNK + noise.below(CHUNK / 4096) * 4096;
        let (image, guest) = (&mut counted.image, &mut counted.guest);
        if turn % 2 == 0 {
            let status = guest.write(image, offset, &[turn; 4096]);
            assert_eq!(status, Status::Done);
            assert_eq!(counted.cost(), written(1, 4096, 0));
        } else {
            guest.read(image, offset, 4096).expect("read");
            let wanted = Cost {
                reads: 1,
                ..written(0, 0, 0)
            };
            assert_eq!(counted.cost(), wanted);
        }
    }
    // What was never written needs no device at all.
    let (image, guest) = (&mut counted.image, &mut counted.guest);
    let zeros = guest.read(image, 500 * CHUNK, 4096).expect("read");
    assert!(zeros == [0; 4096]);
    assert_eq!(counted.cost(), written(0, 0, 0));
    counted.close();
}
