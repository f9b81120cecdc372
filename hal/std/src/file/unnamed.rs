//! Files without a name, until they are finished.
//!
//! Whatever ends the process while it writes to such a file, also a signal or a power cut, nothing of
//! it is left behind. Not every file system has them.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file without a name on the file system of `folder`, open for reading and writing.
///
/// # Errors
/// What the system says; notably `Unsupported` where the file system has no such files.
pub fn create_unnamed(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o666);
    options
        .open(folder)
        .map_err(|error| match error.raw_os_error() {
            // A kernel that does not know the flag tries to open the folder for writing.
            Some(libc::EISDIR | libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
}

/// Gives a file without a name its name, which must be free.
///
/// # Errors
/// What the system says; notably `AlreadyExists`.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    // Old kernels allow the direct way to few; the other one needs /proc.
    match link(file.as_raw_fd(), c"", path, libc::AT_EMPTY_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            link(libc::AT_FDCWD, &from, path, libc::AT_SYMLINK_FOLLOW)
        }
        result => result,
    }
}

fn link(folder: RawFd, from: &CStr, to: &Path, flags: libc::c_int) -> io::Result<()> {
    let to = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: both are strings that end in a zero byte and outlive the call.
    let result = unsafe { libc::linkat(folder, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Renames a file to a name that must be free.
///
/// # Errors
/// What the system says; notably `AlreadyExists`.
pub fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    let (old, new) = (
        CString::new(from.as_os_str().as_bytes())?,
        CString::new(to.as_os_str().as_bytes())?,
    );
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    // SAFETY: both are strings that end in a zero byte and outlive the call.
    let result = unsafe { libc::renameat2(here, old.as_ptr(), here, new.as_ptr(), flags) };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A file system that can not promise this can usually make links, which promise it too.
        error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_has_no_name_until_it_is_given_one() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut file = match create_unnamed(folder.path()) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                println!("SKIP: no unnamed files on this file system");
                return;
            }
            file => file.expect("unnamed file"),
        };
        file.write_all(b"whole").expect("write");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
        let path = folder.path().join("name");
        give_name(&file, &path).expect("free name");
        assert_eq!(fs::read(&path).expect("file"), b"whole");
        let again = give_name(&file, &path).expect_err("taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_missing_folder_is_not_taken_for_a_missing_feature() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = create_unnamed(&folder.path().join("missing")).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_rename_never_replaces() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, b"new").expect("file");
        fs::write(&to, b"old").expect("file");
        let taken = rename_to_free(&from, &to).expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("file"), b"old");
        fs::remove_file(&to).expect("removed");
        rename_to_free(&from, &to).expect("free");
        assert_eq!(fs::read(&to).expect("file"), b"new");
        assert!(!from.exists());
    }
}
