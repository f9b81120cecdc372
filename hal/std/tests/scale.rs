//! Disks of 1 GiB, 1 TiB and 16 TiB: what they take, what opening reads, what requests cost, one at a
//! time and many at once.

mod common;

use common::Bench;
use common::cli::Folder;
use fvd::device::{BlockDevice, Counts, OpKind, Status};
use fvd::open::OpenOptions;
use fvd_std::file::FileDevice;
use fvd_std::image::{self, Access, BaseFormat, DeviceCounts, Devices, Image, Parts};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SIZES: [u64; 3] = [GIB, TIB, 16 * TIB];
const CHUNK: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;

struct Opened {
    folder: Folder,
    image: Image,
    guest: Bench,
}

/// A new disk with a table, sparse, over an image as large as itself or over nothing.
fn opened(bytes: u64, base: bool) -> Opened {
    let folder = Folder::new();
    // So long a journal at every size that no checkpoint falls into what is counted.
    let create = "create --journal-size 4M";
    let parts = if base {
        folder.run(&format!("create base.fvd {bytes}")).ends(0);
        let over = "--base base.fvd --base-format fvd";
        folder.run(&format!("{create} {over} disk.fvd")).ends(0);
        Parts {
            base: Some((folder.path("base.fvd"), BaseFormat::Fvd)),
            ..Parts::default()
        }
    } else {
        folder.run(&format!("{create} disk.fvd {bytes}")).ends(0);
        Parts::default()
    };
    let mut guest = Bench::new();
    let path = folder.path("disk.fvd");
    let image = Image::open(&mut guest.driver, &path, Access::ReadWrite, &parts).expect("opened");
    assert_eq!(image.geometry().capacity_bytes, bytes);
    Opened {
        folder,
        image,
        guest,
    }
}

impl Opened {
    fn close(mut self) {
        self.image.close(&mut self.guest.driver).expect("closed");
        drop(self.folder);
    }
}

/// Bytes of table, bitmap and their checksums, as docs/MEMORY.md says.
fn mapping_bytes(disk_bytes: u64, base: bool) -> [u64; 3] {
    let pages = |bytes: u64| bytes.next_multiple_of(4096);
    let table = pages(4 * disk_bytes / CHUNK);
    let bitmap = if base {
        pages(disk_bytes / BLOCK / 8)
    } else {
        0
    };
    [table, bitmap, pages(4 * (table + bitmap) / 4096)]
}

/// Memory that grows with the disk: that, a byte for each page, and the free map.
fn growing_bytes(disk_bytes: u64, base: bool) -> u64 {
    let part = |bytes: u64| bytes.next_multiple_of(64);
    let [table, bitmap, checksums] = mapping_bytes(disk_bytes, base);
    // The store may grow to a few more chunks than the disk has.
    let words = (disk_bytes / CHUNK + 64).div_ceil(64);
    let free_map = part(8 * words) + part(8 * words.div_ceil(64));
    table + bitmap + checksums + part((table + bitmap) / 4096) + free_map
}

#[test]
fn memory_is_what_the_formula_says_and_the_rest_does_not_grow() {
    for base in [false, true] {
        let rest = SIZES.map(|bytes| {
            let opened = opened(bytes, base);
            let all = opened.image.memory_bytes() as u64;
            opened.close();
            all - growing_bytes(bytes, base)
        });
        assert_eq!(rest, [rest[0]; 3], "with a base: {base}");
        assert!(rest[0] < 1 << 20, "{rest:?}");
    }
}

#[test]
fn opening_reads_metadata_once_and_writes_as_much_at_every_size() {
    for base in [false, true] {
        let mut written = Vec::new();
        for bytes in SIZES {
            let opened = opened(bytes, base);
            let DeviceCounts { metadata, data, .. } = opened.image.device_counts();
            opened.close();
            // Both headers, once to look and once more; the journal, long as it is, in one go.
            let (headers, journal) = (2 * 2 * 4096, 4 << 20);
            let wanted = headers + journal + mapping_bytes(bytes, base).iter().sum::<u64>();
            assert_eq!(metadata.read_bytes, wanted, "{bytes}: {metadata:?}");
            // In pieces of 64 KiB.
            let pieces = metadata.read_bytes / (64 << 10);
            assert!(metadata.reads <= pieces + 8, "{bytes}: {metadata:?}");
            assert_eq!((data.reads, data.writes), (0, 0));
            let Counts {
                writes,
                write_bytes,
                ..
            } = metadata;
            written.push((writes, write_bytes, metadata.flushes + data.flushes));
        }
        assert_eq!(written, [written[0]; 3], "with a base: {base}");
        assert!(written[0].0 <= 2, "{written:?}");
    }
}

/// What one request cost: what it was, and all that reached the devices.
type Cost = (&'static str, DeviceCounts);

/// Requests at the start, in the middle and at the end of the disk.
fn costs(opened: &mut Opened) -> Vec<Cost> {
    let chunks = opened.image.geometry().capacity_bytes / CHUNK;
    let mut costs = Vec::new();
    for (index, chunk) in [0, 1, chunks / 3, chunks / 2, chunks - 2, chunks - 1]
        .into_iter()
        .enumerate()
    {
        let at = chunk * CHUNK;
        let mut one = |what, kind, offset, len: u64| {
            let before = opened.image.device_counts();
            let (image, guest) = (&mut opened.image, &mut opened.guest);
            let status = match kind {
                OpKind::Write => guest.write(image, offset, &vec![7; len as usize]),
                OpKind::Read => match guest.read(image, offset, len as usize) {
                    Ok(_) => Status::Done,
                    Err(status) => status,
                },
                _ => guest.run(image, kind, offset, len),
            };
            assert_eq!(status, Status::Done, "{what}");
            costs.push((what, since(&opened.image.device_counts(), &before)));
        };
        one("read of nothing", OpKind::Read, at, 4096);
        one("first write of a block", OpKind::Write, at, BLOCK);
        one("flush", OpKind::Flush, 0, 0);
        one("first write of a part", OpKind::Write, at + BLOCK, 4096);
        one("flush", OpKind::Flush, 0, 0);
        one("write", OpKind::Write, at + BLOCK, 4096);
        one("read", OpKind::Read, at + BLOCK, 4096);
        one("flush", OpKind::Flush, 0, 0);
        one("zeroes", OpKind::WriteZeroes, at + 4 * BLOCK, BLOCK);
        one("flush", OpKind::Flush, 0, 0);
        one("discard", OpKind::Discard, at, CHUNK);
        one("flush", OpKind::Flush, 0, 0);
        if index == 0 {
            // The first one of a session makes the store grow.
            costs.clear();
        }
    }
    costs
}

/// `now - then`, for what a request may cost.
fn since(now: &DeviceCounts, then: &DeviceCounts) -> DeviceCounts {
    let less = |now: &Counts, then: &Counts| Counts {
        reads: now.reads - then.reads,
        read_bytes: now.read_bytes - then.read_bytes,
        writes: now.writes - then.writes,
        write_bytes: now.write_bytes - then.write_bytes,
        fua_writes: now.fua_writes - then.fua_writes,
        flushes: now.flushes - then.flushes,
        discards: now.discards - then.discards,
        discard_bytes: now.discard_bytes - then.discard_bytes,
        write_zeroes: now.write_zeroes - then.write_zeroes,
        write_zeroes_bytes: now.write_zeroes_bytes - then.write_zeroes_bytes,
        grows: now.grows - then.grows,
        ..Counts::default()
    };
    DeviceCounts {
        metadata: less(&now.metadata, &then.metadata),
        data: less(&now.data, &then.data),
        base: less(&now.base, &then.base),
    }
}

#[test]
fn requests_cost_the_same_at_every_size() {
    for base in [false, true] {
        let mut all = SIZES.map(|bytes| {
            let mut opened = opened(bytes, base);
            let costs = costs(&mut opened);
            opened.close();
            costs.into_iter()
        });
        let [small, others @ ..] = &mut all;
        let mut operations = 0;
        for (what, cost) in small.by_ref() {
            for other in others.iter_mut() {
                assert_eq!(other.next(), Some((what, cost)), "with a base: {base}");
            }
            operations += cost.metadata.operations() + cost.data.operations();
            assert_eq!(cost.metadata.reads, 0, "{what}");
        }
        assert!(operations >= 60, "{operations}: too few were counted");
    }
}

/// Requests that are in flight at once.
const DEPTHS: [u64; 4] = [1, 8, 32, 128];

/// A new disk without a base that takes as many requests at once as are ever sent here, in a file that
/// grows once by more than they need.
fn deep(bytes: u64) -> Opened {
    let (folder, mut guest) = (Folder::new(), Bench::new());
    let create = "create --journal-size 4M --grow-unit 256M disk.fvd";
    folder.run(&format!("{create} {bytes}")).ends(0);
    let (path, parts) = (folder.path("disk.fvd"), Parts::default());
    let image = Image::open(&mut guest.driver, &path, Access::ReadOnly, &parts).expect("opened");
    let header = *image.header();
    image.close(&mut guest.driver).expect("closed");
    let options = image::file_options(&header, Access::ReadWrite);
    let devices = Devices {
        metadata: FileDevice::open(&path, &options).expect("a device"),
        data: None,
        base: None,
    };
    let options = OpenOptions {
        queue_depth: DEPTHS[3] as u16,
        // Never: after two single writes it would expect a third, which the first of a batch is not.
        eager_after_flushes: 255,
        ..image::open_options(Access::ReadWrite).expect("randomness")
    };
    let image = Image::on(&mut guest.driver, devices, options).expect("opened");
    Opened {
        folder,
        image,
        guest,
    }
}

/// What a batch of so many requests cost.
type DeepCost = (&'static str, u64, DeviceCounts);

/// Each chunk of a batch is far from the others, all over the disk.
fn deep_costs(opened: &mut Opened) -> Vec<DeepCost> {
    const CASES: [(&str, OpKind, bool); 3] = [
        ("first write, flush", OpKind::Write, true),
        ("mapped read", OpKind::Read, false),
        ("mapped write", OpKind::Write, false),
    ];
    let chunks = opened.image.geometry().capacity_bytes / CHUNK;
    let mut used = 0;
    let mut costs = Vec::new();
    // Once more than is looked at: the first flush of a session makes the store grow.
    for depth in [1].into_iter().chain(DEPTHS) {
        let offsets = (used..used + depth).map(|index| index * (chunks / 256) * CHUNK);
        used += depth;
        for (what, kind, flush) in CASES {
            let (image, guest) = (&mut opened.image, &mut opened.guest);
            let before = image.device_counts();
            guest.batch(image, kind, offsets.clone());
            if flush {
                let status = guest.run(image, OpKind::Flush, 0, 0);
                assert_eq!(status, Status::Done, "{what}");
            }
            costs.push((what, depth, since(&image.device_counts(), &before)));
        }
    }
    costs.split_off(CASES.len())
}

/// With `--nocapture` it prints the table of docs/SCALE.md.
#[test]
fn requests_cost_the_same_at_every_size_and_depth() {
    let [small, others @ ..] = SIZES.map(|bytes| {
        let mut opened = deep(bytes);
        let costs = deep_costs(&mut opened);
        opened.close();
        costs
    });
    println!("| requests | at once | reads | writes | bytes | flushes |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (index, (what, depth, cost)) in small.iter().enumerate() {
        for other in &others {
            assert_eq!(other[index], small[index]);
        }
        let all = |of: fn(&Counts) -> u64| of(&cost.metadata) + of(&cost.data);
        let found = [
            all(|counts| counts.reads),
            all(|counts| counts.writes),
            all(|counts| counts.read_bytes + counts.write_bytes),
            all(|counts| counts.flushes),
        ];
        let wanted = match *what {
            "mapped read" => [*depth, 0, depth * 4096, 0],
            "mapped write" => [0, *depth, depth * 4096, 0],
            // One unit of the journal for all of them.
            _ => [0, depth + 1, (depth + 1) * 4096, 1],
        };
        assert_eq!(found, wanted, "{what}, {depth} at once");
        assert_eq!(all(Counts::operations), found[0] + found[1] + found[3]);
        let [reads, writes, bytes, flushes] = found;
        println!("| {what} | {depth} | {reads} | {writes} | {bytes} | {flushes} |");
    }
}
