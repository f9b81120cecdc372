//! A file as a block device: data, holes, growth, locks.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::{Bench, How, Noise, head};
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status};
use fvd_std::file::{FileDevice, FileOptions, OpenError};
use tempfile::TempDir;

on_every_adapter!(
    in memory too:
    what_was_written_is_read_back_and_is_in_the_file,
    leases_of_one_operation_are_contiguous_in_the_file,
    a_partial_last_sector_reads_zeros_and_can_be_written,
    a_file_cut_short_while_open_is_an_error_not_zeros,
    illegal_operations_are_refused_before_they_touch_the_file,
    a_read_only_device_refuses_every_change_and_still_flushes,
    write_zeroes_that_may_unmap_gives_space_back,
    write_zeroes_that_may_not_unmap_keeps_space,
    discarded_ranges_read_zeros_to_the_byte,
    growth_extends_the_file_with_zeros_and_the_geometry_with_it,
    a_second_writer_and_a_reader_beside_a_writer_are_locked_out,
    readers_share_a_file_and_keep_writers_out,
    a_file_declares_a_whole_page_as_its_atomic_unit,
    data_and_holes_are_told_apart,
);

/// A file of `len` bytes in a folder of its own.
fn file(len: u64, how: How) -> (TempDir, PathBuf) {
    let folder = how.folder();
    let path = folder.path().join("disk");
    File::create(&path)
        .and_then(|file| file.set_len(len))
        .expect("a new file");
    (folder, path)
}

fn open(path: &Path, how: How) -> FileDevice {
    FileDevice::open(path, &how.options()).expect("an unlocked file")
}

const fn failed(error: DeviceError) -> Status {
    Status::Failed(error)
}

fn what_was_written_is_read_back_and_is_in_the_file(how: How) {
    let (_folder, path) = file(1 << 20, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    let data = Noise::new(1).bytes(4096);
    assert_eq!(bench.write(&mut device, 512, &data), Status::Done);
    assert_eq!(bench.read(&mut device, 512, 4096), Ok(data.clone()));
    assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
    drop(device);
    assert_eq!(fs::read(&path).expect("file")[512..512 + 4096], data);
}

fn leases_of_one_operation_are_contiguous_in_the_file(how: How) {
    let (_folder, path) = file(1 << 20, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    let lens = [512usize, 1024, 1, 511, 2048, 3, 509, 512];
    let data = Noise::new(2).bytes(lens.iter().sum());
    let mut op = bench.op(OpKind::Write, 8192, data.len() as u64);
    let mut loans = Vec::new();
    let mut rest = data.as_slice();
    for len in lens {
        let (part, after) = rest.split_at(len);
        let (loan, lease) = common::lend(part.to_vec());
        op.push(lease).expect("room for eight");
        loans.push(loan);
        rest = after;
    }
    bench.driver.attach(&mut device);
    let mut op = bench.driver.run_op(&mut device, op);
    assert_eq!(op.status(), Status::Done);
    for loan in loans.into_iter().rev() {
        let lease = op.pop().expect("eight leases");
        assert!(
            loan.redeem(lease).is_ok(),
            "leases come home in their order"
        );
    }
    bench.pool.put(op).expect("own op");
    assert_eq!(bench.read(&mut device, 8192, data.len()), Ok(data));
}

fn a_partial_last_sector_reads_zeros_and_can_be_written(how: How) {
    let (_folder, path) = file(0, how);
    fs::write(&path, [9u8; 1000]).expect("file");
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    assert_eq!(device.geometry().capacity_bytes, 1024);
    assert_eq!(device.len_at_open(), 1000);
    let mut expected = vec![9u8; 1024];
    expected[1000..].fill(0);
    assert_eq!(bench.read(&mut device, 0, 1024), Ok(expected));
    assert_eq!(bench.write(&mut device, 512, &[5; 512]), Status::Done);
    assert_eq!(bench.read(&mut device, 512, 512), Ok(vec![5; 512]));
}

fn a_file_cut_short_while_open_is_an_error_not_zeros(how: How) {
    let (_folder, path) = file(64 << 10, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(5000))
        .expect("cut");
    assert_eq!(
        bench.read(&mut device, 0, 4096).map(|data| data.len()),
        Ok(4096)
    );
    assert_eq!(
        bench.read(&mut device, 4096, 4096),
        Err(failed(DeviceError::Io))
    );
    assert_eq!(
        bench.read(&mut device, 32 << 10, 512),
        Err(failed(DeviceError::Io))
    );
}

fn illegal_operations_are_refused_before_they_touch_the_file(how: How) {
    let (_folder, path) = file(64 << 10, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    let invalid = failed(DeviceError::Invalid);
    assert_eq!(bench.write(&mut device, 64 << 10, &[1; 512]), invalid);
    assert_eq!(bench.write(&mut device, u64::MAX - 511, &[1; 512]), invalid);
    assert_eq!(bench.write(&mut device, 100, &[1; 512]), invalid);
    assert_eq!(bench.write(&mut device, 0, &[1; 100]), invalid);
    assert_eq!(
        bench.run(&mut device, OpKind::Grow, 0, 1 << 20),
        failed(DeviceError::Unsupported)
    );
    assert_eq!(fs::metadata(&path).expect("file").blocks(), 0);
}

fn a_read_only_device_refuses_every_change_and_still_flushes(how: How) {
    let (_folder, path) = file(64 << 10, how);
    let options = FileOptions {
        grow_unit_bytes: Some(1 << 20),
        read_only: true,
        ..how.options()
    };
    let mut device = FileDevice::open(&path, &options).expect("unlocked");
    let mut bench = Bench::new();
    let read_only = failed(DeviceError::ReadOnly);
    assert!(device.geometry().read_only);
    assert_eq!(bench.write(&mut device, 0, &[1; 512]), read_only);
    for kind in [OpKind::Discard, OpKind::WriteZeroes, OpKind::Grow] {
        assert_eq!(bench.run(&mut device, kind, 0, 512), read_only);
    }
    assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
    assert_eq!(bench.read(&mut device, 0, 512), Ok(vec![0; 512]));
}

fn write_zeroes_that_may_unmap_gives_space_back(how: How) {
    let (_folder, path) = file(0, how);
    fs::write(&path, vec![3u8; 1 << 20]).expect("file");
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    bench.run(&mut device, OpKind::Flush, 0, 0);
    let before = fs::metadata(&path).expect("file").blocks();
    let mut op = bench.op(OpKind::WriteZeroes, 4096, 512 << 10);
    let mut unmap = head(OpKind::WriteZeroes, 4096, 512 << 10);
    unmap.flags = OpFlags::MAY_UNMAP;
    op.set_head(unmap);
    assert_eq!(bench.finish(&mut device, op), Status::Done);
    assert_eq!(
        bench.read(&mut device, 4096, 512 << 10),
        Ok(vec![0; 512 << 10])
    );
    assert_eq!(bench.read(&mut device, 0, 4096), Ok(vec![3; 4096]));
    bench.run(&mut device, OpKind::Flush, 0, 0);
    let after = fs::metadata(&path).expect("file");
    assert_eq!(after.len(), 1 << 20);
    assert!(
        after.blocks() < before,
        "{} blocks, before {before}",
        after.blocks()
    );
}

fn write_zeroes_that_may_not_unmap_keeps_space(how: How) {
    let (_folder, path) = file(0, how);
    fs::write(&path, vec![3u8; 1 << 20]).expect("file");
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    bench.run(&mut device, OpKind::Flush, 0, 0);
    let before = fs::metadata(&path).expect("file").blocks();
    let status = bench.run(&mut device, OpKind::WriteZeroes, 512, 256 << 10);
    assert_eq!(status, Status::Done);
    assert_eq!(
        bench.read(&mut device, 512, 256 << 10),
        Ok(vec![0; 256 << 10])
    );
    assert_eq!(bench.read(&mut device, 0, 512), Ok(vec![3; 512]));
    bench.run(&mut device, OpKind::Flush, 0, 0);
    assert!(fs::metadata(&path).expect("file").blocks() >= before);
}

fn discarded_ranges_read_zeros_to_the_byte(how: How) {
    let (_folder, path) = file(0, how);
    fs::write(&path, vec![3u8; 1 << 20]).expect("file");
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    let limits = device
        .geometry()
        .discard
        .expect("this file system punches holes");
    assert!(limits.zeroes_after);
    assert_eq!(
        bench.run(&mut device, OpKind::Discard, 512, 128 << 10),
        Status::Done
    );
    let data = bench.read(&mut device, 0, 1 << 20).expect("read");
    let end = 512 + (128 << 10);
    assert!(data[..512].iter().all(|&byte| byte == 3));
    assert!(data[512..end].iter().all(|&byte| byte == 0));
    assert!(data[end..].iter().all(|&byte| byte == 3));
}

fn growth_extends_the_file_with_zeros_and_the_geometry_with_it(how: How) {
    let (_folder, path) = file(4096, how);
    let options = FileOptions {
        grow_unit_bytes: Some(1 << 20),
        ..how.options()
    };
    let mut device = FileDevice::open(&path, &options).expect("unlocked");
    let mut bench = Bench::new();
    let growth = device.geometry().growth.expect("may grow");
    assert_eq!((growth.unit_bytes, growth.zeroed), (1 << 20, true));
    assert_eq!(
        bench.run(&mut device, OpKind::Grow, 0, 1 << 20),
        Status::Done
    );
    assert_eq!(device.geometry().capacity_bytes, 1 << 20);
    assert_eq!(bench.read(&mut device, 512 << 10, 4096), Ok(vec![0; 4096]));
    assert_eq!(
        bench.write(&mut device, (1 << 20) - 512, &[8; 512]),
        Status::Done
    );
    // Asking for less than there is changes nothing.
    assert_eq!(bench.run(&mut device, OpKind::Grow, 0, 4096), Status::Done);
    assert_eq!(device.geometry().capacity_bytes, 1 << 20);
    assert_eq!(fs::metadata(&path).expect("file").len(), 1 << 20);
    assert_eq!(
        bench.run(&mut device, OpKind::Grow, 0, u64::MAX),
        failed(DeviceError::NoSpace)
    );
}

fn a_second_writer_and_a_reader_beside_a_writer_are_locked_out(how: How) {
    let (_folder, path) = file(4096, how);
    let writer = open(&path, how);
    for options in [how.options(), FileOptions::read_only()] {
        let second = FileDevice::open(&path, &options);
        assert!(matches!(second, Err(OpenError::Locked)), "{second:?}");
    }
    drop(writer);
    drop(open(&path, how));
}

fn readers_share_a_file_and_keep_writers_out(how: How) {
    let (_folder, path) = file(4096, how);
    let options = FileOptions::read_only();
    let first = FileDevice::open(&path, &options).expect("unlocked");
    let second = FileDevice::open(&path, &options).expect("shared");
    assert_eq!(first.id(), second.id());
    let writer = FileDevice::open(&path, &how.options());
    assert!(matches!(writer, Err(OpenError::Locked)), "{writer:?}");
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo");
    assert!(made.success());
    for path in [folder.path(), pipe.as_path(), "/dev/null".as_ref()] {
        for options in [FileOptions::default(), FileOptions::read_only()] {
            let device = FileDevice::open(path, &options);
            assert!(
                matches!(device, Err(OpenError::NotAStore)),
                "{path:?}: {device:?}"
            );
        }
    }
    let missing = FileDevice::open(&folder.path().join("missing"), &FileOptions::default());
    assert!(matches!(missing, Err(OpenError::Io(_))), "{missing:?}");
}

#[test]
fn senseless_options_are_refused() {
    let (_folder, path) = file(4096, How::default());
    let good = FileOptions::default();
    for options in [
        FileOptions {
            threads: 0,
            ..good.clone()
        },
        FileOptions {
            grow_unit_bytes: Some(0),
            ..good.clone()
        },
        FileOptions {
            atomic_write_bytes: Some(256),
            ..good.clone()
        },
        FileOptions {
            atomic_write_bytes: Some(1536),
            ..good.clone()
        },
    ] {
        let device = FileDevice::open(&path, &options);
        assert!(
            matches!(device, Err(OpenError::BadOption(_))),
            "{options:?}: {device:?}"
        );
    }
}

fn a_file_declares_a_whole_page_as_its_atomic_unit(how: How) {
    let (_folder, path) = file(4096, how);
    let device = open(&path, how);
    assert_eq!(device.geometry().atomic_write_bytes, 4096);
    assert!(device.geometry().volatile_cache);
    drop(device);
    let options = FileOptions {
        atomic_write_bytes: Some(512),
        ..how.options()
    };
    let device = FileDevice::open(&path, &options).expect("unlocked");
    assert_eq!(device.geometry().atomic_write_bytes, 512);
}

fn data_and_holes_are_told_apart(how: How) {
    let (_folder, path) = file(4 << 20, how);
    let raw = File::options().write(true).open(&path).expect("file");
    raw.write_all_at(&[1; 8192], 1 << 20).expect("write");
    raw.write_all_at(&[2; 4096], (4 << 20) - 4096)
        .expect("write");
    drop(raw);
    let device = open(&path, how);
    let first = device.next_data(0).expect("seek").expect("data");
    assert_eq!(first, 1 << 20..(1 << 20) + 8192);
    let second = device.next_data(first.end).expect("seek").expect("data");
    assert_eq!(second, (4 << 20) - 4096..4 << 20);
    assert_eq!(device.next_data(second.end).expect("seek"), None);
    let inside = device
        .next_data((1 << 20) + 4096)
        .expect("seek")
        .expect("data");
    assert_eq!(inside, (1 << 20) + 4096..(1 << 20) + 8192);
}
