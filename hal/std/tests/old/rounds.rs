//! What every image of 2011 goes through, whoever made it.

use fvd::device::{BlockDevice, OpKind, Status};
use fvd_std::image::{Access, Image};

use crate::common::{Bench, Noise};
use crate::golden::{Golden, contents};
use crate::second::Second;
use crate::sha256::sha256;

/// Opens, reads everything and closes. Returns the hash of what the guest sees.
pub fn hash(bench: &mut Bench, golden: &Golden, access: Access) -> Result<String, String> {
    let image = golden.open(bench, access);
    let mut image = image.map_err(|error| error.to_string())?;
    let bytes = contents(bench, &mut image)?;
    let closed = image.close(&mut bench.driver);
    closed.map_err(|error| error.to_string())?;
    Ok(sha256(&bytes))
}

/// Read-only it shows what was intended, journal and all, and nothing is written for that.
pub fn reads_as_intended(golden: &Golden) {
    let name = &golden.name;
    let before = golden.files();
    let found = hash(&mut Bench::new(), golden, Access::ReadOnly);
    assert_eq!(found.as_ref(), Ok(&golden.intended), "{name}");
    assert!(golden.files() == before, "{name} was written to");
}

/// Opened for writing it is recovered in place: then a reader that replays nothing sees the same.
pub fn recovers_in_place(golden: &Golden) {
    let name = &golden.name;
    let mut bench = Bench::new();
    let found = hash(&mut bench, golden, Access::ReadWrite);
    assert_eq!(found.as_ref(), Ok(&golden.intended), "{name}");
    let base = golden.base_contents(&mut bench);
    let second = Second::read(&golden.folder(), base);
    assert!(second.is_clean(), "{name}");
    assert_eq!(sha256(&second.contents()), golden.intended, "{name}");
    let again = hash(&mut bench, golden, Access::ReadOnly);
    assert_eq!(again.as_ref(), Ok(&golden.intended), "{name}");
}

/// Writes, zeroes and discards here and there; `disk` is what must be there then.
fn scribble(bench: &mut Bench, noise: &mut Noise, image: &mut Image, disk: &mut [u8]) {
    let most = u64::from(image.geometry().transfer_max_bytes).min(300 << 10) / 512;
    let sectors = disk.len() as u64 / 512;
    for step in 0..120 {
        let len = 1 + noise.below(most.min(sectors));
        let at = noise.below(sectors - len + 1) * 512;
        let range = at as usize..(at + len * 512) as usize;
        let status = match noise.below(8) {
            0 => {
                disk[range].fill(0);
                bench.run(image, OpKind::WriteZeroes, at, len * 512)
            }
            // A discard must not change what is mapped to anything but what was there or zeros; here
            // it does nothing.
            1 => bench.run(image, OpKind::Discard, at, len * 512),
            _ => {
                let data = noise.bytes(range.len());
                disk[range].copy_from_slice(&data);
                bench.write(image, at, &data)
            }
        };
        assert_eq!(status, Status::Done, "step {step}: {at}+{len}");
        if step % 17 == 0 {
            assert_eq!(bench.run(image, OpKind::Flush, 0, 0), Status::Done);
        }
    }
}

/// What is written, three sessions long, is what is read, and what a reader sees that replays nothing.
pub fn takes_writes(golden: &Golden, seed: u64) {
    let name = &golden.name;
    let mut bench = Bench::new();
    let mut noise = Noise::new(seed);
    let base = golden.base_contents(&mut bench);
    let opened = golden.open(&mut bench, Access::ReadWrite);
    let mut image = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut disk = contents(&mut bench, &mut image).expect("contents");
    assert_eq!(sha256(&disk), golden.intended, "{name}");
    // Bits that stood alone before are what the image means.
    let alone = Second::read(&golden.folder(), base.clone()).bits_without_entry();
    for round in 0..3 {
        scribble(&mut bench, &mut noise, &mut image, &mut disk);
        let found = contents(&mut bench, &mut image).expect("contents");
        assert!(found == disk, "{name} round {round}");
        image.close(&mut bench.driver).expect("closed");
        let second = Second::read(&golden.folder(), base.clone());
        assert!(second.contents() == disk, "{name} round {round}");
        assert!(second.bits_without_entry() <= alone, "{name} round {round}");
        image = golden
            .open(&mut bench, Access::ReadWrite)
            .expect("opened again");
    }
    image.close(&mut bench.driver).expect("closed");
}
