//! The files that an image is made of, and which of them the caller named.
//!
//! Names inside an image are never followed unless the caller says so: an image may come from
//! anywhere, and a name in it could be any file of the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fvd::format::{Dialect, Header, Text};

use super::error::{ImageError, Part};
use crate::file::{Aio, Cache, FileOptions};

/// Most images on top of each other.
pub(super) const DEPTH_MAX: u32 = 8;

/// What the bytes of a base mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseFormat {
    /// The base's content and nothing else.
    Raw,
    /// An image of its own.
    Fvd,
}

impl BaseFormat {
    /// The label that stands in a header.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            BaseFormat::Raw => "raw",
            BaseFormat::Fvd => "fvd",
        }
    }

    fn of_label(label: &[u8]) -> Option<BaseFormat> {
        match label {
            b"raw" => Some(BaseFormat::Raw),
            b"fvd" => Some(BaseFormat::Fvd),
            _ => None,
        }
    }
}

/// Where the parts of an image are that lie in other files.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The base, and what it is.
    pub base: Option<(PathBuf, BaseFormat)>,
    /// The data file.
    pub data_file: Option<PathBuf>,
    /// Open what the image names, for parts that are not given here. Relative names start at the
    /// image's folder. For images whose maker is trusted with every file that this process can read.
    pub follow_names: bool,
    /// The raw base's identity, to be compared with the one on record.
    pub base_id: Option<[u8; 16]>,
    /// Use the base even if its size or identity is not the one on record.
    pub accept_base: bool,
    /// Do without parts that are not given: their bytes can not be read then. For a look at the
    /// metadata alone. A data file of 2011 is always needed: nothing else says how long it is, which
    /// bounds what a table may say.
    pub allow_absent: bool,
    /// Who carries out operations on all these files.
    pub aio: Aio,
    /// Whether their data pass through the page cache.
    pub cache: Cache,
}

impl Parts {
    /// How to open one of the files.
    pub(super) fn file_options(&self, options: FileOptions) -> FileOptions {
        FileOptions {
            aio: self.aio,
            cache: self.cache,
            ..options
        }
    }
}

impl Parts {
    /// The base of the image at `image`; `None` if it is needed and may be absent.
    pub(super) fn base_of(
        &self,
        image: &Path,
        header: &Header,
    ) -> Result<Option<(PathBuf, BaseFormat)>, ImageError> {
        if let Some(base) = &self.base {
            return Ok(Some(base.clone()));
        }
        let core = &header.core;
        if !self.follow_names {
            return self.absent(Part::Base, &core.base_name);
        }
        let format = BaseFormat::of_label(core.base_format.as_bytes());
        match (resolve(image, &core.base_name), format) {
            (None, _) => self.absent(Part::Base, &core.base_name),
            (Some(path), None) if unnamed_raw(&path, header) => Ok(Some((path, BaseFormat::Raw))),
            (Some(_), None) => Err(ImageError::UnknownFormat(core.base_format.to_string())),
            (Some(path), Some(format)) => Ok(Some((path, format))),
        }
    }

    /// The data file of the image at `image`; `None` if it may be absent.
    pub(super) fn data_file_of(
        &self,
        image: &Path,
        header: &Header,
    ) -> Result<Option<PathBuf>, ImageError> {
        if let Some(path) = &self.data_file {
            return Ok(Some(path.clone()));
        }
        let name = &header.core.data_file;
        match resolve(image, name).filter(|_| self.follow_names) {
            Some(path) => Ok(Some(path)),
            None if header.dialect.is_old() => Err(missing(Part::DataFile, name)),
            None => self.absent(Part::DataFile, name),
        }
    }

    fn absent<T, const MAX: usize>(
        &self,
        part: Part,
        name: &Text<MAX>,
    ) -> Result<Option<T>, ImageError> {
        if self.allow_absent {
            return Ok(None);
        }
        Err(missing(part, name))
    }

    /// How the parts of the base are found: by name or not at all.
    pub(super) fn below(&self) -> Parts {
        Parts {
            follow_names: self.follow_names,
            accept_base: self.accept_base,
            allow_absent: self.allow_absent,
            aio: self.aio,
            cache: self.cache,
            ..Parts::default()
        }
    }
}

fn missing<const MAX: usize>(part: Part, name: &Text<MAX>) -> ImageError {
    let name = (!name.is_empty()).then(|| name.to_string());
    ImageError::Missing { part, name }
}

/// Whether a base that an image of 2011 names without a format is taken as raw. Their own reader looks
/// at the base's content; here that can only lead to a refusal, never to another format.
fn unnamed_raw(path: &Path, header: &Header) -> bool {
    let unnamed = header.dialect.is_old() && header.core.base_format.is_empty();
    let mut start = [0; 8];
    unnamed
        && !File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok_and(|()| Dialect::detect(&start).is_some())
}

/// The file that a name in an image means: relative to the image's folder. `None` without a name, and
/// for one that is not known to its end.
fn resolve<const MAX: usize>(image: &Path, name: &Text<MAX>) -> Option<PathBuf> {
    if name.is_empty() || name.is_cut() {
        return None;
    }
    let folder = image.parent().unwrap_or(Path::new(""));
    Some(folder.join(OsStr::from_bytes(name.as_bytes())))
}

#[cfg(test)]
mod tests {
    use fvd::format::Name;

    use super::*;

    #[test]
    fn names_start_at_the_folder_of_the_image() {
        let resolved = |image: &str, name: &str| {
            let name: Name = Text::new(name.as_bytes()).expect("short");
            resolve(Path::new(image), &name).map(|path| path.display().to_string())
        };
        assert_eq!(
            resolved("images/a.fvd", "base.raw").as_deref(),
            Some("images/base.raw")
        );
        assert_eq!(
            resolved("a.fvd", "../base.raw").as_deref(),
            Some("../base.raw")
        );
        assert_eq!(
            resolved("images/a.fvd", "/base.raw").as_deref(),
            Some("/base.raw")
        );
        assert_eq!(resolved("images/a.fvd", ""), None);
    }
}
