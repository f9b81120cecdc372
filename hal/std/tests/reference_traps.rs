//! What the reference implementation does wrong, and this does not: one test for each trap of
//! docs/DIALECTS.md §6. Numbers 3 and 14 are about the order and failure of device operations:
//! `tests/sim/tests/traps.rs` has them.

mod common;
#[allow(dead_code, unreachable_pub)]
#[path = "old/golden.rs"]
mod golden;
#[allow(dead_code, unreachable_pub)]
#[path = "old/second.rs"]
mod second;

use std::fs;

use common::cli::Folder;
use common::{Bench, Noise};
use fvd::device::{BlockDevice, OpKind, Status};
use fvd_std::image::{Access, BaseFormat, Image, Parts};
use golden::{Golden, contents, names};
use second::Second;

/// A folder with a base of `len` bytes of noise and an image over it.
fn over_base(len: usize, options: &str) -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let base = Noise::new(7).bytes(len);
    folder.write("base.raw", &base);
    let line = format!("create --dialect reference --base base.raw {options} image.fvd");
    folder.run(&line).ends(0);
    (folder, base)
}

fn open(bench: &mut Bench, folder: &Folder, access: Access) -> Image {
    let base = folder.path("base.raw");
    let parts = Parts {
        base: base.exists().then_some((base, BaseFormat::Raw)),
        ..Parts::default()
    };
    Image::open(&mut bench.driver, &folder.path("image.fvd"), access, &parts).expect("opened")
}

#[test]
fn trap_01_overlapping_writes_all_land() {
    let (folder, mut disk) = over_base(4 << 20, "--block-size 64K --chunk-size 256K");
    let mut bench = Bench::new();
    let mut image = open(&mut bench, &folder, Access::ReadWrite);
    for round in 0..12 {
        let at = round * (256 << 10);
        let (large, large_loan) = bench.with_data(OpKind::Write, at, vec![1; 256 << 10]);
        let (small, small_loan) = bench.with_data(OpKind::Write, at + (8 << 10), vec![2; 4 << 10]);
        bench.driver.attach(&mut image);
        image
            .submit(large)
            .map_err(|op| op.status())
            .expect("taken");
        image
            .submit(small)
            .map_err(|op| op.status())
            .expect("taken");
        let mut loans = [Some(large_loan), Some(small_loan)];
        for _ in 0..2 {
            let mut op = bench.driver.run(|now| {
                image.notify();
                match image.poll(now) {
                    Some(op) => fvd_std::drive::Step::Done(op),
                    None => fvd_std::drive::Step::Wait(image.poll_at()),
                }
            });
            assert_eq!(op.status(), Status::Done);
            let which = usize::from(op.len() == 4 << 10);
            let lease = op.pop().expect("its lease");
            let loan = loans[which].take().expect("once each");
            assert!(loan.redeem(lease).is_ok());
            bench.pool.put(op).expect("own op");
        }
        let found = bench.read(&mut image, at, 256 << 10).expect("read");
        let inner = (8 << 10)..(12 << 10);
        for (index, byte) in found.iter().enumerate() {
            let legal = *byte == 1 || (*byte == 2 && inner.contains(&index));
            assert!(legal, "round {round}: {byte} at {index}");
        }
        disk[at as usize..][..256 << 10].copy_from_slice(&found);
    }
    assert!(contents(&mut bench, &mut image).expect("read") == disk);
    image.close(&mut bench.driver).expect("closed");
}

#[test]
fn trap_02_orphan_chunks_show_zeros() {
    let folder = Folder::new();
    folder
        .run("create --dialect reference --chunk-size 64K image.fvd 4M")
        .ends(0);
    // What a session that was cut off left behind the metadata: chunks that no entry names.
    let mut bytes = folder.read("image.fvd");
    bytes.extend(vec![0xEE; 4 * (64 << 10)]);
    folder.write("image.fvd", &bytes);
    let mut bench = Bench::new();
    let mut image = open(&mut bench, &folder, Access::ReadWrite);
    let wrote = bench.write(&mut image, (1 << 20) + (8 << 10), &[5; 4 << 10]);
    assert_eq!(wrote, Status::Done);
    let mut disk = vec![0; 4 << 20];
    disk[(1 << 20) + (8 << 10)..][..4 << 10].fill(5);
    assert!(contents(&mut bench, &mut image).expect("read") == disk);
    image.close(&mut bench.driver).expect("closed");
    assert!(Second::read(folder.0.path(), Vec::new()).contents() == disk);
}

#[test]
fn trap_04_a_failed_open_changes_nothing() {
    if names(true).is_empty() {
        return;
    }
    let golden = Golden::unpack("g2-crash-table");
    // The journal names chunks that are not in the file any more.
    let bytes = fs::read(golden.path()).expect("image");
    fs::write(golden.path(), &bytes[..bytes.len() - (64 << 10)]).expect("cut");
    let before = golden.files();
    let mut bench = Bench::new();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        assert!(golden.open(&mut bench, access).is_err());
        assert!(golden.files() == before);
    }
}

#[test]
fn trap_05_reading_only_shows_what_the_journal_holds() {
    if names(true).is_empty() {
        return;
    }
    let golden = Golden::unpack("g3-crash-mixed");
    let base = golden.base_contents(&mut Bench::new());
    let second = Second::read(&golden.folder(), base);
    let mut bench = Bench::new();
    let mut image = golden.open(&mut bench, Access::ReadOnly).expect("opened");
    let found = contents(&mut bench, &mut image).expect("read");
    // Without the journal, which is all that the reference looks at, it is something else.
    assert!(found != second.contents());
    image.close(&mut bench.driver).expect("closed");
    golden
        .open(&mut bench, Access::ReadWrite)
        .and_then(|image| image.close(&mut bench.driver))
        .expect("recovered");
    let base = golden.base_contents(&mut bench);
    assert!(Second::read(&golden.folder(), base).contents() == found);
}

#[test]
fn trap_06_base_size_is_the_base_s() {
    let (folder, _) = over_base(3 << 20, "--data-file data.dat");
    let info = folder.run("info --json image.fvd").json();
    assert_eq!(info["base"]["size"], 3 << 20);
    assert_eq!(info["dialect"], "reference");
}

#[test]
fn trap_07_zeros_are_found_to_the_end_of_the_base() {
    let folder = Folder::new();
    let mut base = Noise::new(3).bytes(1 << 20);
    base.resize(10 << 20, 0);
    folder.write("base.raw", &base);
    folder
        .run("create --base base.raw --detect-zeroes image.fvd")
        .ends(0);
    let map = folder.run("map --json --base base.raw image.fvd").json();
    let last = map
        .as_array()
        .and_then(|lines| lines.last())
        .expect("a line");
    assert_eq!(
        (&last["start"], &last["state"]),
        (&(1 << 20).into(), &"zero".into())
    );
}

#[test]
fn trap_08_a_never_opened_image_reads_zeros() {
    if names(true).is_empty() {
        return;
    }
    let golden = Golden::unpack("c4-rawlike-never-opened");
    let mut bench = Bench::new();
    let mut image = golden.open(&mut bench, Access::ReadOnly).expect("opened");
    let found = contents(&mut bench, &mut image).expect("read");
    assert!(found.iter().all(|byte| *byte == 0));
    assert_eq!(image.extent_at(0).expect("an extent").bytes, 4 << 20);
    image.close(&mut bench.driver).expect("closed");
    let new = Folder::new();
    new.run("create --dialect reference --table off image.fvd 4M")
        .ends(0);
    assert!(new.read("image.fvd").len() >= (4 << 20) + 8192);
}

#[test]
fn trap_09_names_start_at_the_image() {
    let folder = Folder::new();
    fs::create_dir(folder.path("images")).expect("folder");
    let base = Noise::new(1).bytes(1 << 20);
    folder.write("images/base.raw", &base);
    folder
        .run("create --dialect reference --base images/base.raw images/image.fvd")
        .ends(0);
    let info = folder.run("info --json images/image.fvd").json();
    assert_eq!(info["base"]["name"], "base.raw");
    folder
        .run("convert -f fvd -O raw --follow-names images/image.fvd out.raw")
        .ends(0);
    assert!(folder.read("out.raw") == base);
}

#[test]
fn trap_10_malformed_images_are_refused() {
    let (folder, _) = over_base(1 << 20, "--block-size 16K --chunk-size 64K");
    let good = folder.read("image.fvd");
    let mut bench = Bench::new();
    let numbers = [
        8, 12, 16, 20, 24, 1068, 1072, 1076, 1084, 1092, 2208, 2212, 2220, 2228, 4284, 4292, 4300,
    ];
    for at in numbers {
        for value in [0, 1, 511, 700, 4096, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            folder.write("image.fvd", &bytes);
            let parts = Parts {
                base: Some((folder.path("base.raw"), BaseFormat::Raw)),
                ..Parts::default()
            };
            let path = folder.path("image.fvd");
            for access in [Access::ReadOnly, Access::ReadWrite] {
                // Whatever it is, it ends, in an error or in an image that can be used.
                if let Ok(mut image) = Image::open(&mut bench.driver, &path, access, &parts) {
                    let end = image.geometry().capacity_bytes;
                    let len = end.min(64 << 10) as usize;
                    if len != 0 {
                        bench.read(&mut image, 0, len).expect("readable");
                        bench
                            .read(&mut image, end - len as u64, len)
                            .expect("readable");
                    }
                    image.close(&mut bench.driver).expect("closed");
                }
            }
        }
    }
}

#[test]
fn trap_11_every_bitmap_record_of_a_sector_counts() {
    if names(false).is_empty() {
        return;
    }
    let golden = Golden::unpack("m36-journal-two-bitmap-records");
    let mut bench = Bench::new();
    let image = golden.open(&mut bench, Access::ReadWrite).expect("opened");
    image.close(&mut bench.driver).expect("closed");
    let base = golden.base_contents(&mut bench);
    let second = Second::read(&golden.folder(), base);
    // Sectors 64 to 95 by the first record of a sector, 4096 to 4127 by the second.
    for sector in (64..96).chain(4096..4128) {
        assert!(!second.in_base(sector * 512), "sector {sector}");
    }
}

#[test]
fn trap_13_a_table_over_the_journal_is_refused() {
    if names(false).is_empty() {
        return;
    }
    let grown = Golden::unpack("m53-compact-grown-past-table");
    let before = grown.files();
    let mut bench = Bench::new();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = grown.open(&mut bench, access).err().expect("refused");
        assert!(error.to_string().contains("journal_offset"), "{error}");
        assert!(grown.files() == before);
    }
    // Inside the page that was reserved, a larger disk is as good as any.
    let inside = Golden::unpack("m52-compact-grown-in-page");
    let image = inside.open(&mut bench, Access::ReadWrite).expect("opened");
    image.close(&mut bench.driver).expect("closed");
}

#[test]
fn trap_12_the_map_knows_the_bitmap() {
    let (folder, _) = over_base(1 << 20, "--block-size 16K --chunk-size 256K");
    let mut bench = Bench::new();
    let mut image = open(&mut bench, &folder, Access::ReadWrite);
    assert_eq!(
        bench.write(&mut image, 32 << 10, &[9; 16 << 10]),
        Status::Done
    );
    image.close(&mut bench.driver).expect("closed");
    let map = folder.run("map --json --base base.raw image.fvd").json();
    let lines: Vec<(u64, u64, String)> = map
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| {
            let number = |key: &str| line[key].as_u64().expect("a number");
            let state = line["state"].as_str().expect("a state").to_string();
            (number("start"), number("length"), state)
        })
        .collect();
    let kib = |n: u64| n << 10;
    assert_eq!(
        lines,
        [
            (0, kib(32), "base".into()),
            (kib(32), kib(16), "image".into()),
            (kib(48), kib(1024 - 48), "base".into()),
        ]
    );
}

#[test]
fn trap_15_random_work_survives_every_reopening() {
    let shapes = [
        "--block-size 7680 --chunk-size 12K",
        "--block-size 512 --chunk-size 1M",
        "--block-size 256K --chunk-size 16K",
        "--block-size 4K --chunk-size 4K --journal-size none",
        "--block-size 20K --table off",
        "--block-size 64K --chunk-size 64K --data-file data.dat",
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        let (folder, base) = over_base((3 << 20) + 512, &format!("{shape} --force"));
        let mut noise = Noise::new(seed as u64 + 40);
        let mut bench = Bench::new();
        let mut disk = base.clone();
        for round in 0..4 {
            let parts = Parts {
                base: Some((folder.path("base.raw"), BaseFormat::Raw)),
                data_file: Some(folder.path("data.dat")).filter(|path| path.exists()),
                ..Parts::default()
            };
            let path = folder.path("image.fvd");
            let opened = Image::open(&mut bench.driver, &path, Access::ReadWrite, &parts);
            let mut image = opened.unwrap_or_else(|error| panic!("{shape}: {error}"));
            assert!(
                contents(&mut bench, &mut image).expect("read") == disk,
                "{shape} {round}"
            );
            let most = u64::from(image.geometry().transfer_max_bytes).min(128 << 10) / 512;
            for _ in 0..60 {
                let len = 1 + noise.below(most);
                let at = noise.below(disk.len() as u64 / 512 - len + 1) * 512;
                let data = noise.bytes(len as usize * 512);
                disk[at as usize..][..data.len()].copy_from_slice(&data);
                assert_eq!(bench.write(&mut image, at, &data), Status::Done);
            }
            assert_eq!(bench.run(&mut image, OpKind::Flush, 0, 0), Status::Done);
            if round % 2 == 0 {
                image.close(&mut bench.driver).expect("closed");
            } else {
                // As if the process had died: everything flushed is there.
                drop(image);
            }
            let second = Second::read(folder.0.path(), base.clone());
            assert!(second.contents() == disk, "{shape} {round}");
            assert_eq!(second.bits_without_entry(), 0, "{shape} {round}");
        }
    }
}
