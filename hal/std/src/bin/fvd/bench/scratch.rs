//! A folder for images that goes away again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fvd_std::file::{Cache, FileDevice, FileOptions};

use crate::failure::{Doing, Failure};
use crate::output::Shown;

/// A folder that is removed with all that is in it when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `below`, which may be the same for several of different names.
    pub(super) fn new(below: &Path, name: &str) -> Result<Scratch, Failure> {
        let path = below.join(format!("fvd-bench-{name}-{}", std::process::id()));
        fs::create_dir(&path).doing(|| format!("cannot make a folder in {}", Shown(below)))?;
        // Other programs run with it, and may not keep the working directory.
        let path = path.canonicalize().doing(|| "cannot find the new folder")?;
        Ok(Scratch(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether files here can be used around the page cache.
    pub(super) fn is_direct(&self) -> Result<bool, Failure> {
        let path = self.0.join("probe");
        let file = File::create(&path).and_then(|file| file.set_len(4096));
        file.doing(|| format!("cannot write in {}", Shown(&self.0)))?;
        let options = FileOptions {
            cache: Cache::Direct,
            ..FileOptions::default()
        };
        let device = FileDevice::open(&path, &options).doing(|| "cannot open a file")?;
        Ok(device.is_direct())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is no harm but for the space.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until what others wrote there is on the medium, so that nobody pays for it.
pub(super) fn settle(folder: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot sync {}", Shown(folder));
    let folder = File::open(folder).doing(cannot)?;
    rustix::fs::syncfs(folder).doing(cannot)
}
