//! Where the images are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory of the user's choice, which stays, or one that goes when the run is over.
pub(crate) enum WorkDirectory {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl WorkDirectory {
    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn new(keep: Option<&Path>) -> Result<Self, String> {
        let fault = |path: &Path, error: io::Error| {
            format!("cannot make the directory {}: {error}", path.display())
        };
        match keep {
            Some(path) => {
                fs::create_dir_all(path).map_err(|error| fault(path, error))?;
                Ok(Self::Kept(path.to_owned()))
            }
            None => {
                let path = std::env::temp_dir().join(format!("fvd-boot-{}", std::process::id()));
                // Not `create_dir_all`: what is already there is somebody else's, and would be
                // removed at the end.
                fs::create_dir(&path).map_err(|error| fault(&path, error))?;
                Ok(Self::Temporary(path))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self
            && let Err(error) = fs::remove_dir_all(&*path)
        {
            eprintln!("cargo boot: cannot remove {}: {error}", path.display());
        }
    }
}
