//! A file device on things a plain folder does not have: a block device, and a full file system.

mod common;

use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::{Bench, LoopDevice, Noise, outside};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status};
use fvd_std::file::{FileDevice, FileId, FileOptions, OpenError};

#[test]
fn a_block_device_is_a_store_of_fixed_size() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("medium");
    File::create(&path)
        .and_then(|file| file.set_len(8 << 20))
        .expect("new file");
    let Some(medium) = LoopDevice::new(&path) else {
        return;
    };
    let options = FileOptions {
        grow_unit_bytes: Some(1 << 20),
        ..FileOptions::default()
    };
    let mut device = FileDevice::open(&medium.path, &options).expect("unlocked");
    let mut bench = Bench::new();
    let geometry = device.geometry();
    assert!(matches!(device.id(), FileId::Block(_)));
    assert_eq!(geometry.capacity_bytes, 8 << 20);
    assert!(geometry.logical_block_bytes >= 512);
    assert_eq!(geometry.atomic_write_bytes, geometry.physical_block_bytes);
    assert_eq!(geometry.growth, None);

    let data = Noise::new(3).bytes(1 << 20);
    assert_eq!(bench.write(&mut device, 1 << 20, &data), Status::Done);
    assert_eq!(
        bench.run(&mut device, OpKind::WriteZeroes, 1 << 20, 64 << 10),
        Status::Done
    );
    assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
    let back = bench.read(&mut device, 1 << 20, 1 << 20).expect("read");
    assert!(back[..64 << 10].iter().all(|&byte| byte == 0));
    assert!(back[64 << 10..] == data[64 << 10..]);
    assert_eq!(
        device.next_data(0).expect("no holes known"),
        Some(0..8 << 20)
    );

    let second = FileDevice::open(&medium.path, &FileOptions::read_only());
    assert!(matches!(second, Err(OpenError::Locked)), "{second:?}");
    drop(device);
    let mut sector = [0u8; 512];
    let raw = File::open(&path).expect("file");
    raw.read_exact_at(&mut sector, (2 << 20) - 512)
        .expect("read");
    assert!(sector == data[data.len() - 512..]);
}

/// Names the folder on a file system of 1 MiB, in the run of this test inside it.
const FULL_FOLDER: &str = "FVD_TEST_SMALL_FILE_SYSTEM";

#[test]
fn a_full_file_system_is_no_space_and_reads_and_overwrites_go_on() {
    if let Some(folder) = env::var_os(FULL_FOLDER) {
        return fill_up(Path::new(&folder));
    }
    let Some(unshare) = outside("unshare") else {
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let myself = env::current_exe().expect("this test");
    let name = "a_full_file_system_is_no_space_and_reads_and_overwrites_go_on";
    let script = r#"mount -t tmpfs -o size=1m none "$0" || exit 77; exec "$@""#;
    let run = Command::new(unshare)
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(folder.path())
        .arg(myself)
        .args(["--exact", name, "--nocapture"])
        .env(FULL_FOLDER, folder.path())
        .output()
        .expect("unshare");
    let says = String::from_utf8_lossy(&run.stderr);
    if run.status.code() == Some(77) || says.contains("unshare failed") {
        println!("SKIP: not allowed to mount a small file system: {says}");
        return;
    }
    assert!(run.status.success(), "{says}");
}

fn fill_up(folder: &Path) {
    let path = folder.join("disk");
    File::create(&path)
        .and_then(|file| file.set_len(4 << 20))
        .expect("new file");
    let mut device = FileDevice::open(&path, &FileOptions::default()).expect("unlocked");
    let mut bench = Bench::new();
    let mut written = 0;
    let status = loop {
        match bench.write(&mut device, written, &[6; 4096]) {
            Status::Done => written += 4096,
            status => break status,
        }
    };
    assert_eq!(status, Status::Failed(DeviceError::NoSpace));
    assert!(written >= 512 << 10, "{written}");
    assert_eq!(bench.write(&mut device, 0, &[7; 4096]), Status::Done);
    assert_eq!(bench.read(&mut device, 0, 4096), Ok(vec![7; 4096]));
    assert_eq!(bench.read(&mut device, written, 4096), Ok(vec![0; 4096]));

    // Space comes back by discard, and the write that failed succeeds.
    assert_eq!(
        bench.run(&mut device, OpKind::Discard, 0, 64 << 10),
        Status::Done
    );
    assert_eq!(bench.write(&mut device, written, &[8; 4096]), Status::Done);

    // Half of this fits.
    let long = vec![9; 1 << 20];
    let status = bench.write(&mut device, 2 << 20, &long);
    assert_eq!(status, Status::Failed(DeviceError::NoSpace));
}
