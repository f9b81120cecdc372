//! A disk in a file, on top of a base file: made, written, flushed, read, closed.
//!
//! ```sh
//! cargo run -p fvd-std --example file_disk
//! ```

use std::error::Error;
use std::fs::{self, File};

use fvd::blocking::{Blocking, blocking_arena_bytes};
use fvd::device::BlockDevice;
use fvd::format::{BaseParams, CreateParams, FormatName, ImageId, Name, plan_layout};
use fvd_std::arena::leak_arena;
use fvd_std::drive::Driver;
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{self, Access, BaseFormat, Image, Parts};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fvd-example-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = run(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn run(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let (base_path, image_path) = (folder.join("base.raw"), folder.join("disk.fvd"));
    fs::write(&base_path, [b'b'; 1 << 20])?;

    // A thin overlay, 64 MiB of disk on 1 MiB of base.
    let base = FileDevice::open(&base_path, &FileOptions::read_only())?.geometry();
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&image_path)?;
    let header = plan_layout(&CreateParams {
        base: Some(BaseParams {
            name: Name::new(b"base.raw").ok_or("a long name")?,
            format: FormatName::new(b"raw").ok_or("a long name")?,
            bytes: base.capacity_bytes,
            id: [0; 16],
            generation: 0,
        }),
        atomic_unit: 4096, // what a file declares
        ..CreateParams::new(64 << 20, ImageId(image::random()?))
    })?;
    file.set_len(header.store_bytes)?;
    let device = FileDevice::from_file(file, &FileOptions::default())?;
    let mut driver = Driver::new();
    image::create(&mut driver, device, header, true)?;

    // Names in the image are not followed: the program says where the base is.
    let parts = Parts {
        base: Some((base_path, BaseFormat::Raw)),
        ..Parts::default()
    };
    let disk = Image::open(&mut driver, &image_path, Access::ReadWrite, &parts)?;

    // For programs that wait. `BlockDevice::submit` and `poll` are for those that do not.
    let memory = leak_arena(blocking_arena_bytes(64 << 10)).ok_or("no memory")?;
    let mut disk = Blocking::new(disk, memory, driver.idle()).map_err(|_| "too little memory")?;
    disk.write_at(4096, &[b'd'; 4096])?;
    disk.flush()?;
    let mut bytes = [0; 3 * 4096];
    disk.read_at(0, &mut bytes)?;
    assert!(
        bytes[..4096].iter().all(|&byte| byte == b'b'),
        "the base shows"
    );
    assert!(
        bytes[4096..8192].iter().all(|&byte| byte == b'd'),
        "what was written hides it"
    );
    assert!(
        bytes[8192..].iter().all(|&byte| byte == b'b'),
        "a block is more than what was written"
    );

    let (disk, _memory) = disk.into_parts();
    println!("{:?}", disk.stats());
    disk.close(&mut driver)?;
    Ok(())
}
