//! A new file that appears whole, under its name, or not at all.
//!
//! Invariants:
//! 1. Until [`NewFile::publish`], nothing under the name has changed: an old file stays as it was.
//! 2. A failure or a crash before it leaves nothing behind. On file systems without unnamed files
//!    only a crash can: one hidden file that ends in `.part`.
//! 3. An old file is replaced only while nobody else has it open as an image.

use core::ops::Range;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::process;

use fvd_std::file::{self, FileDevice, FileOptions, OpenError};

use crate::failure::{Doing, Failure};
use crate::output::Shown;
use crate::progress::Progress;

/// Zeros written at once, bytes.
const ZEROS_BYTES: usize = 1 << 20;

/// Where a new image goes.
pub(crate) enum Place {
    /// Into a new file, which replaces an old one of that name at the end.
    File(NewFile),
    /// Onto a block device, which is overwritten at once.
    Device(PathBuf),
}

impl Place {
    /// Looks at what is there. Something that exists is refused without `force`.
    pub(crate) fn choose(path: &Path, force: bool) -> Result<Place, Failure> {
        let found = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => Some(found.doing(|| cannot_create(path))?),
        };
        match found {
            None => NewFile::create(path, None).map(Place::File),
            Some(_) if !force => Err(Failure::because(
                cannot_create(path),
                "it exists; --force replaces it",
            )),
            Some(found) if found.is_file() => replace(path).map(Place::File),
            Some(found) if found.file_type().is_block_device() => {
                Ok(Place::Device(path.to_path_buf()))
            }
            Some(_) => Err(Failure::because(
                cannot_create(path),
                "it is neither a regular file nor a block device",
            )),
        }
    }

    /// Opens what is there to write to it.
    pub(crate) fn open(&self, options: &FileOptions) -> Result<FileDevice, Failure> {
        match self {
            Place::File(file) => {
                let handle = file.file.try_clone().doing(|| cannot_create(&file.path))?;
                FileDevice::from_file(handle, options).doing(|| cannot_create(&file.path))
            }
            Place::Device(path) => FileDevice::open(path, options).doing(|| cannot_create(path)),
        }
    }

    /// Makes it appear. Everything written to it must have been flushed.
    pub(crate) fn publish(self) -> Result<(), Failure> {
        match self {
            Place::File(file) => file.publish(),
            Place::Device(_) => Ok(()),
        }
    }
}

fn cannot_create(path: &Path) -> String {
    format!("cannot create {}", Shown(path))
}

/// A file that takes the place of the one that `path` leads to.
fn replace(path: &Path) -> Result<NewFile, Failure> {
    // Not the link is replaced, but the file that it leads to.
    let target = fs::canonicalize(path).doing(|| cannot_create(path))?;
    let old = File::open(&target).doing(|| cannot_create(path))?;
    old.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Failure::because(cannot_create(path), OpenError::Locked),
        TryLockError::Error(error) => Failure::because(cannot_create(path), error),
    })?;
    NewFile::create(&target, Some(old))
}

/// A file that is being written.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    folder: PathBuf,
    /// The name it has meanwhile, if it has one.
    part: Option<Part>,
    /// What it replaces, locked.
    old: Option<File>,
}

/// A hidden file that is removed unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl NewFile {
    /// Sets the length of the file; what is new reads zeros.
    pub(crate) fn set_len(&self, bytes: u64) -> Result<(), Failure> {
        self.file.set_len(bytes).doing(|| cannot_create(&self.path))
    }

    /// Takes space for the first `bytes` of the file.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), Failure> {
        file::reserve(&self.file, bytes).doing(|| cannot_create(&self.path))
    }

    /// Writes zeros, so that the space is taken on every file system.
    pub(crate) fn write_zeros(&self, range: Range<u64>) -> Result<(), Failure> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut progress = Progress::new("preallocating", range.end - range.start);
        let mut at = range.start;
        while at < range.end {
            let step = (range.end - at).min(ZEROS_BYTES as u64);
            let written = self.file.write_all_at(&zeros[..step as usize], at);
            written.doing(|| cannot_create(&self.path))?;
            at += step;
            progress.at(at - range.start);
        }
        Ok(())
    }

    fn create(path: &Path, old: Option<File>) -> Result<NewFile, Failure> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let (file, part) = match file::create_unnamed(&folder) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => create_part(path),
            other => other.map(|file| (file, None)),
        }
        .doing(|| cannot_create(path))?;
        NewFile::with(file, part, path, folder, old)
    }

    fn with(
        file: File,
        part: Option<Part>,
        path: &Path,
        folder: PathBuf,
        old: Option<File>,
    ) -> Result<NewFile, Failure> {
        if old.is_some() {
            let same = fs::metadata(path).and_then(|old| file.set_permissions(old.permissions()));
            same.doing(|| cannot_create(path))?;
        }
        Ok(NewFile {
            file,
            path: path.to_path_buf(),
            folder,
            part,
            old,
        })
    }

    fn publish(mut self) -> Result<(), Failure> {
        let named = self.file.sync_all().and_then(|()| self.give_name());
        // The name itself must survive a power cut too.
        let synced = named.and_then(|()| File::open(&self.folder)?.sync_all());
        synced.doing(|| cannot_create(&self.path))
    }

    fn give_name(&mut self) -> io::Result<()> {
        match (self.part.take(), &self.old) {
            (None, None) => file::give_name(&self.file, &self.path),
            (None, Some(_)) => {
                let part = part_name(&self.path);
                file::give_name(&self.file, &part)?;
                rename(Part(part), &self.path)
            }
            (Some(part), Some(_)) => rename(part, &self.path),
            (Some(part), None) => {
                // What somebody else has made meanwhile is not replaced.
                file::rename_to_free(&part.0, &self.path)?;
                core::mem::forget(part);
                Ok(())
            }
        }
    }
}

/// A file with a hidden name, where files must have names.
fn create_part(path: &Path) -> io::Result<(File, Option<Part>)> {
    let part = part_name(path);
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&part)?;
    Ok((file, Some(Part(part))))
}

fn part_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", process::id()));
    path.with_file_name(name)
}

fn rename(part: Part, path: &Path) -> io::Result<()> {
    fs::rename(&part.0, path)?;
    core::mem::forget(part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("folder");
        entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into())
            .collect()
    }

    fn file(place: &Place) -> &File {
        match place {
            Place::File(file) => &file.file,
            Place::Device(path) => panic!("{path:?} is a device"),
        }
    }

    #[test]
    fn a_file_appears_when_it_is_published_and_not_before() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("new");
        let place = Place::choose(&path, false).expect("free");
        file(&place).write_all(b"content").expect("write");
        assert!(!path.exists());
        place.publish().expect("published");
        assert_eq!(fs::read(&path).expect("file"), b"content");
        assert_eq!(names(folder.path()), ["new"]);
    }

    #[test]
    fn a_file_that_is_given_up_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("new");
        drop(Place::choose(&path, false).expect("free"));
        assert!(names(folder.path()).is_empty());
        let (part_file, part) = create_part(&path).expect("hidden file");
        assert_eq!(names(folder.path()).len(), 1);
        drop((part_file, part));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_with_a_hidden_name_is_published_under_its_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("new");
        let make = |old| {
            let (mut file, part) = create_part(&path).expect("hidden file");
            file.write_all(b"content").expect("write");
            NewFile::with(file, part, &path, folder.path().into(), old).expect("file")
        };
        make(None).publish().expect("a free name");
        assert_eq!(names(folder.path()), ["new"]);
        assert!(make(None).publish().is_err());
        assert_eq!(names(folder.path()), ["new"]);
        fs::write(&path, b"old").expect("file");
        let old = File::open(&path).expect("file");
        make(Some(old)).publish().expect("replaced");
        assert_eq!(fs::read(&path).expect("file"), b"content");
        assert_eq!(names(folder.path()), ["new"]);
    }

    #[test]
    fn an_old_file_is_replaced_only_by_force_and_only_at_the_end() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("old");
        fs::write(&path, b"old").expect("file");
        assert!(Place::choose(&path, false).is_err());
        let place = Place::choose(&path, true).expect("unlocked");
        file(&place).write_all(b"new").expect("write");
        assert_eq!(fs::read(&path).expect("file"), b"old");
        place.publish().expect("published");
        assert_eq!(fs::read(&path).expect("file"), b"new");
        assert_eq!(names(folder.path()), ["old"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (path, link) = (folder.path().join("old"), folder.path().join("link"));
        fs::write(&path, b"old").expect("file");
        std::os::unix::fs::symlink("old", &link).expect("link");
        let place = Place::choose(&link, true).expect("unlocked");
        file(&place).write_all(b"new").expect("write");
        place.publish().expect("published");
        assert_eq!(fs::read(&path).expect("file"), b"new");
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
    }

    #[test]
    fn a_file_in_use_is_not_replaced() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("old");
        fs::write(&path, b"old").expect("file");
        let user = FileDevice::open(&path, &FileOptions::read_only()).expect("unlocked");
        assert!(Place::choose(&path, true).is_err());
        drop(user);
        assert!(Place::choose(&path, true).is_ok());
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("new");
        let place = Place::choose(&path, false).expect("free");
        fs::write(&path, b"faster").expect("file");
        assert!(place.publish().is_err());
        assert_eq!(fs::read(&path).expect("file"), b"faster");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for path in [folder.path(), Path::new("/dev/null")] {
            assert!(Place::choose(path, true).is_err(), "{path:?}");
        }
        assert!(Place::choose(&folder.path().join("no/such/folder"), true).is_err());
    }
}
