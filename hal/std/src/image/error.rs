//! Why an image in a file can not be used.

use core::fmt;
use std::io;
use std::path::PathBuf;

use fvd::device::DeviceError;
use fvd::format::FormatError;

use crate::file;

/// A part of an image that lies in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The base below it.
    Base,
    /// The file with its data.
    DataFile,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Part::Base => "base",
            Part::DataFile => "data file",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Part::Base => "--base",
            Part::DataFile => "--data-file",
        }
    }
}

/// Why an image can not be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// The file can not be opened.
    File(file::OpenError),
    /// The file can not be read or written.
    Io(io::Error),
    /// It is no image, or a damaged one.
    Format(FormatError),
    /// The image can not be opened for another reason.
    Open(fvd::open::OpenError),
    /// It has a part that was not given.
    Missing {
        /// Which one.
        part: Part,
        /// Its name in the image, escaped, if it has one.
        name: Option<String>,
    },
    /// The image names a format of its base that nobody knows. Escaped.
    UnknownFormat(String),
    /// The image asks for the identity of its base, and none was given.
    BaseIdWanted,
    /// The base is an image that was written to since this one was made on top of it.
    BaseChanged,
    /// Too many images on top of each other.
    TooDeep,
    /// A part of the image can not be used.
    Below {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: Box<ImageError>,
    },
    /// A device failed.
    Device(DeviceError),
    /// The image could not be repaired.
    Repair(fvd::repair::RepairError),
    /// Not so much memory is to be had.
    NoMemory(usize),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::File(error) => error.fmt(f),
            ImageError::Io(error) => error.fmt(f),
            ImageError::Format(error) => error.fmt(f),
            ImageError::Open(error) => error.fmt(f),
            ImageError::Missing { part, name } => {
                let (part, option) = (part.name(), part.option());
                write!(f, "it has a {part}")?;
                match name {
                    Some(name) => write!(
                        f,
                        ", which it names '{name}': say where it is by {option}, or trust the name by --follow-names"
                    ),
                    None => write!(f, " without a name: say where it is by {option}"),
                }
            }
            ImageError::UnknownFormat(format) => {
                write!(
                    f,
                    "it names a base of format '{format}', not raw or fvd: use --base"
                )
            }
            ImageError::BaseIdWanted => f.write_str(
                "it records the id of its base: give the id of this one by --base-id, or use \
                 --accept-base",
            ),
            ImageError::BaseChanged => f.write_str(
                "its base was written to since it was made, so that its content may have changed: \
                 --accept-base takes it as it is",
            ),
            ImageError::TooDeep => f.write_str("more than 8 images on top of each other"),
            ImageError::Below { path, error } => write!(f, "'{}': {error}", escaped(path)),
            ImageError::Device(error) => error.fmt(f),
            ImageError::Repair(error) => error.fmt(f),
            ImageError::NoMemory(bytes) => write!(f, "not enough memory: it takes {bytes} bytes"),
        }
    }
}

/// A path as one line of plain characters; it may come from an image.
fn escaped(path: &std::path::Path) -> impl fmt::Display {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().escape_ascii()
}

impl core::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            ImageError::File(error) => Some(error),
            ImageError::Io(error) => Some(error),
            ImageError::Format(error) => Some(error),
            ImageError::Open(error) => Some(error),
            ImageError::Below { error, .. } => Some(error),
            ImageError::Device(error) => Some(error),
            ImageError::Repair(error) => Some(error),
            _ => None,
        }
    }
}

impl From<file::OpenError> for ImageError {
    fn from(error: file::OpenError) -> ImageError {
        ImageError::File(error)
    }
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> ImageError {
        ImageError::Io(error)
    }
}

impl From<FormatError> for ImageError {
    fn from(error: FormatError) -> ImageError {
        ImageError::Format(error)
    }
}

impl From<fvd::open::OpenError> for ImageError {
    fn from(error: fvd::open::OpenError) -> ImageError {
        ImageError::Open(error)
    }
}
