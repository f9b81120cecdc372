//! A FAT16 file system in memory, through `fatfs`: the host's second opinion on what the kernel does
//! with `embedded-sdmmc`.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

type Storage<'d> = Cursor<&'d mut [u8]>;

/// Small clusters: many of them, so that FAT16 is what it is, and many places where a file can be
/// in two.
const CLUSTER_BYTES: u32 = 2048;

/// Files by path, with `/` between directories.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A mounted file system.
pub(crate) struct Volume<'d> {
    mounted: FileSystem<Storage<'d>>,
}

/// Whether the kernel's file system can reach something of this name: directories by their short
/// name only, files by any of letters, digits and a few others.
pub(crate) fn is_plain(name: &str, directory: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let short = name.len() <= 8 && !name.contains('.');
    name.chars().all(allowed) && !name.starts_with('.') && (short || !directory)
}

impl<'d> Volume<'d> {
    /// Makes an empty file system.
    ///
    /// # Errors
    ///
    /// If the partition has an unsuitable size.
    pub(crate) fn format(partition: &'d mut [u8]) -> Result<Volume<'d>, String> {
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat16)
            .bytes_per_cluster(CLUSTER_BYTES)
            .volume_label(*b"FVD BASE   ");
        fatfs::format_volume(Cursor::new(&mut *partition), options)
            .map_err(|error| fault("make a file system", &error))?;
        Volume::open(partition)
    }

    /// Mounts what is there.
    ///
    /// # Errors
    ///
    /// If it is no file system.
    pub(crate) fn open(partition: &'d mut [u8]) -> Result<Volume<'d>, String> {
        let mounted = FileSystem::new(Cursor::new(partition), FsOptions::new())
            .map_err(|error| fault("mount the file system", &error))?;
        Ok(Volume { mounted })
    }

    /// Writes what is not written yet and unmounts.
    ///
    /// # Errors
    ///
    /// As all that follow: if the file system is damaged or full.
    pub(crate) fn close(self) -> Result<(), String> {
        let unmounted = self.mounted.unmount();
        unmounted.map_err(|error| fault("unmount the file system", &error))
    }

    /// Makes a file, and the directories above it.
    pub(crate) fn write(&mut self, path: &str, content: &[u8]) -> Result<(), String> {
        let root = self.mounted.root_dir();
        let written = (|| {
            for (end, _) in path.match_indices('/') {
                root.create_dir(&path[..end])?;
            }
            let mut file = root.create_file(path)?;
            file.write_all(content)?;
            file.flush()
        })();
        written.map_err(|error| fault(&format!("write {path}"), &error))
    }

    /// Writes more at the end of a file.
    pub(crate) fn append(&mut self, path: &str, content: &[u8]) -> Result<(), String> {
        let written = (|| {
            let mut file = self.mounted.root_dir().open_file(path)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(content)?;
            file.flush()
        })();
        written.map_err(|error| fault(&format!("append to {path}"), &error))
    }

    /// Every file with its content.
    pub(crate) fn read_all(&self) -> Result<Files, String> {
        let mut files = Files::new();
        read_below(&self.mounted.root_dir(), "", &mut files)?;
        Ok(files)
    }
}

fn read_below(
    folder: &fatfs::Dir<'_, Storage<'_>>,
    prefix: &str,
    files: &mut Files,
) -> Result<(), String> {
    for entry in folder.iter() {
        let entry = entry.map_err(|error| fault(&format!("list {prefix}"), &error))?;
        let name = entry.file_name();
        let path = format!("{prefix}{name}");
        if entry.is_dir() {
            if name != "." && name != ".." {
                read_below(&entry.to_dir(), &format!("{path}/"), files)?;
            }
            continue;
        }
        let mut content = Vec::new();
        let read = entry.to_file().read_to_end(&mut content);
        let len = read.map_err(|error| fault(&format!("read {path}"), &error))?;
        if len as u64 != entry.len() {
            let bytes = entry.len();
            return Err(format!(
                "{path} has {bytes} bytes, of which {len} are there"
            ));
        }
        files.insert(path, content);
    }
    Ok(())
}

fn fault(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}
