//! The base: a disk with one FAT partition full of files.
//!
//! ```text
//! sector 0: partition table ··· PARTITION_START: FAT16 ··· last file │ free space ··· DISK_BYTES
//! ╰───────────────────────── the base ────────────────────────────╯
//! ╰──────────────────────────────── the image's disk ────────────────────────────────────╯
//! ```
//!
//! The base ends with the last sector that is in use, anywhere in a copy-on-write block. So what the
//! kernel writes is over the base, beside it, and both at once.
//!
//! The files are this project's own texts, in their directories, some generated ones of awkward
//! sizes, one that the kernel overwrites ([`TARGET`]), and a list of all of them ([`MANIFEST`]).

use crate::agreed::{MANIFEST, Pattern, TARGET, target_pattern};
use crate::fat::{self, Files, Volume};
use crate::setup::workspace_root;
use crate::verify::sha256_hex;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Size of the kernel's disk, a few times that of the files.
pub(crate) const DISK_BYTES: usize = 64 << 20;

/// Where every partitioning tool starts the first partition.
const PARTITION_START: usize = 1 << 20;

const SECTOR_BYTES: usize = 512;

/// Partition type "FAT16, addressed by sector number".
const FAT16_LBA: u8 = 0x0e;

/// The texts: top-level files, and directories with all below them.
const TEXTS: [&str; 6] = [
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Cargo.toml",
    "docs",
    "src",
];

/// Generated files: nothing, a byte, around a sector, around a copy-on-write block, megabytes.
const GENERATED: [(&str, usize); 8] = [
    ("DATA/EMPTY.BIN", 0),
    ("DATA/BYTE.BIN", 1),
    ("DATA/SHORT.BIN", 511),
    ("DATA/SECTOR.BIN", 512),
    ("DATA/LONGER.BIN", 513),
    ("DATA/BLOCK.BIN", 65_536),
    ("DATA/DEEP/BLOCK1.BIN", 65_537),
    ("DATA/DEEP/MEDIA.BIN", 3_145_851),
];

/// Size of [`TARGET`], in two parts that lie in two places, with another file between them.
const TARGET_PARTS: [usize; 2] = [5 << 20, 3 << 20];
const BETWEEN: &str = TEXTS[0];

/// Bytes in one piece on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// The base as it was made.
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    /// All files but [`TARGET`], with their contents; the manifest too.
    pub(crate) files: Files,
    /// Lines of the manifest.
    pub(crate) listed: usize,
    /// Bytes of the files that it lists.
    pub(crate) listed_bytes: usize,
    /// Where [`TARGET`] is on the disk.
    pub(crate) extents: Vec<Extent>,
    pub(crate) bytes: usize,
    pub(crate) sha256: String,
}

impl Base {
    /// Makes the base as the file `path`.
    ///
    /// # Errors
    ///
    /// What could not be read or written.
    pub(crate) fn make(path: &Path, seed: u64) -> Result<Base, String> {
        let mut disk = vec![0; DISK_BYTES];
        write_partition_table(&mut disk);
        let mut files = Files::new();
        for text in TEXTS {
            collect(&workspace_root().join(text), text, &mut files)?;
        }
        for (name, bytes) in GENERATED {
            files.insert(name.to_owned(), generate(seed, name, bytes));
        }

        let mut volume = Volume::format(&mut disk[PARTITION_START..])?;
        let target = write_target(&mut volume, &files, seed)?;
        let mut manifest = format!("{}  {TARGET}\n", sha256_hex(&target));
        for (name, content) in &files {
            manifest.push_str(&format!("{}  {name}\n", sha256_hex(content)));
            // Written already.
            if name != BETWEEN {
                volume.write(name, content)?;
            }
        }
        volume.write(MANIFEST, manifest.as_bytes())?;
        let listed_bytes = target.len() + files.values().map(Vec::len).sum::<usize>();
        let listed = files.len() + 1;
        files.insert(MANIFEST.to_owned(), manifest.into_bytes());
        volume.close()?;

        let used = disk
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        let content = &disk[..used.next_multiple_of(SECTOR_BYTES)];
        fs::write(path, content)
            .map_err(|error| format!("cannot write the base {}: {error}", path.display()))?;
        Ok(Base {
            path: path.to_owned(),
            files,
            listed,
            listed_bytes,
            extents: find_extents(content, &target)?,
            bytes: content.len(),
            sha256: sha256_hex(content),
        })
    }

    /// The file system of a disk that was made from this base.
    ///
    /// # Errors
    ///
    /// If it is not a disk of this size, or if the partition table has changed.
    pub(crate) fn partition_of<'d>(&self, disk: &'d mut [u8]) -> Result<Volume<'d>, String> {
        let mut table = vec![0; SECTOR_BYTES];
        write_partition_table(&mut table);
        if disk.len() != DISK_BYTES || disk[..SECTOR_BYTES] != table {
            return Err("the size of the disk or its partition table has changed".to_owned());
        }
        Volume::open(&mut disk[PARTITION_START..])
    }
}

/// Writes [`TARGET`] and the file [`BETWEEN`] its parts. Returns the content of the first.
fn write_target(volume: &mut Volume<'_>, files: &Files, seed: u64) -> Result<Vec<u8>, String> {
    let mut target = vec![0; TARGET_PARTS.iter().sum()];
    target_pattern(seed, 0).fill(0, &mut target);
    let (first, second) = target.split_at(TARGET_PARTS[0]);
    volume.write(TARGET, first)?;
    volume.write(BETWEEN, &files[BETWEEN])?;
    volume.append(TARGET, second)?;
    Ok(target)
}

/// Where on the disk a file is whose sectors are like no others: as few pieces as possible, in its
/// order.
fn find_extents(disk: &[u8], file: &[u8]) -> Result<Vec<Extent>, String> {
    let sectors = disk.chunks(SECTOR_BYTES).enumerate();
    let places: HashMap<&[u8], usize> = sectors
        .map(|(index, sector)| (sector, index * SECTOR_BYTES))
        .collect();
    let mut extents: Vec<Extent> = Vec::new();
    for sector in file.chunks(SECTOR_BYTES) {
        let offset = *places
            .get(sector)
            .ok_or_else(|| format!("a sector of {TARGET} is not on the base"))?;
        match extents.last_mut() {
            Some(last) if last.offset + last.bytes == offset => last.bytes += SECTOR_BYTES,
            _ => extents.push(Extent {
                offset,
                bytes: SECTOR_BYTES,
            }),
        }
    }
    if extents.len() != TARGET_PARTS.len() {
        let (count, wanted) = (extents.len(), TARGET_PARTS.len());
        return Err(format!("{TARGET} is in {count} pieces, not {wanted}"));
    }
    Ok(extents)
}

/// One partition, from [`PARTITION_START`] to the end.
fn write_partition_table(disk: &mut [u8]) {
    let start = (PARTITION_START / SECTOR_BYTES) as u32;
    let count = (DISK_BYTES / SECTOR_BYTES) as u32 - start;
    let entry = &mut disk[446..462];
    // Cylinders, heads and sectors: the values that say "too large, use the sector numbers".
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = FAT16_LBA;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&count.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// Random-looking bytes in the first half of each kilobyte and text in the second: neither all
/// zeros nor all noise, like most files.
fn generate(seed: u64, name: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    let pattern = Pattern::new(seed, name, 0);
    for (index, piece) in content.chunks_mut(1024).enumerate() {
        let (noise, text) = piece.split_at_mut(piece.len().min(512));
        pattern.fill(index as u64 * 1024, noise);
        let line = format!("{name}, kilobyte {index}\n");
        for (byte, letter) in text.iter_mut().zip(line.bytes().cycle()) {
            *byte = letter;
        }
    }
    content
}

/// Adds a file, or everything below a directory, under `name`.
fn collect(path: &Path, name: &str, files: &mut Files) -> Result<(), String> {
    let fault = |error| format!("cannot read {}: {error}", path.display());
    if !path.is_dir() {
        files.insert(name.to_owned(), fs::read(path).map_err(fault)?);
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let own = entry.file_name();
        let Some(own) = own.to_str() else { continue };
        if fat::is_plain(own, entry.path().is_dir()) {
            collect(&entry.path(), &format!("{name}/{own}"), files)?;
        }
    }
    Ok(())
}
