//! Why an image can not be opened.

use core::fmt;

use crate::device::DeviceError;
use crate::format::FormatError;
use crate::stores::Role;

/// What is wrong with a device for this image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GeometryProblem {
    /// Its logical block is larger than the image's blocks, or no power of two from 512 to 4096.
    LogicalBlock,
    /// It writes atomically only in units larger than the image's journal unit, so that writing one
    /// unit could damage its neighbour.
    AtomicWrite,
    /// Its longest transfer is shorter than a copy-on-write block.
    TransferMax,
    /// It takes no lease at all.
    SegmentsMax,
    /// It is read-only.
    ReadOnly,
}

/// Why an image can not be opened. Nothing was written, except after [`OpenError::Device`] on a
/// writable image: the device may have failed while recovery wrote, and the next open recovers anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The image is damaged, of another dialect, or beyond a limit.
    Format(FormatError),
    /// A device failed while the image was read, or while recovery wrote.
    Device {
        /// Which one.
        role: Role,
        /// How.
        error: DeviceError,
    },
    /// A device does not suit the image.
    Geometry {
        /// Which one.
        role: Role,
        /// What about it.
        problem: GeometryProblem,
        /// The value that was found.
        value: u64,
    },
    /// The image needs its base and none was given.
    NoBase,
    /// The image keeps its data on a device of its own and none was given, or the other way round.
    DataDevice {
        /// Whether the image wants a separate data device.
        wanted: bool,
    },
    /// The base is not the one that the image was made on.
    BaseMismatch {
        /// Size on record, bytes.
        recorded_bytes: u64,
        /// Size of the base that was given, bytes.
        found_bytes: u64,
    },
    /// The base's id is not the one on record.
    BaseIdMismatch,
    /// The image has a feature that forbids writing to it; open it read-only.
    NeedsReadOnly {
        /// The unknown read-only-compatible feature bits.
        features: u64,
    },
    /// Blocks of this image lie in more chunks than one write can change at once; open it read-only.
    BlocksTooWide {
        /// Chunks in a block.
        chunks: u64,
    },
    /// The arena is too small.
    ArenaTooSmall {
        /// Bytes needed, the value of [`Layout::arena_bytes`](super::Layout::arena_bytes).
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The arena does not start at a multiple of 4096.
    ArenaMisaligned,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Format(error) => error.fmt(f),
            OpenError::Device { role, error } => write!(f, "the {} failed: {error}", name(*role)),
            OpenError::Geometry {
                role,
                problem,
                value,
            } => {
                let what = match problem {
                    GeometryProblem::LogicalBlock => "its logical block does not suit the image",
                    GeometryProblem::AtomicWrite => {
                        "its atomic write is larger than a journal unit"
                    }
                    GeometryProblem::TransferMax => "its longest transfer is shorter than a block",
                    GeometryProblem::SegmentsMax => "it takes no segments",
                    GeometryProblem::ReadOnly => "it is read-only; open the image read-only",
                };
                write!(f, "the {} does not suit: {what} ({value})", name(*role))
            }
            OpenError::NoBase => f.write_str("the image needs its base, and none was given"),
            OpenError::DataDevice { wanted: true } => {
                f.write_str("the image keeps its data on a separate device, and none was given")
            }
            OpenError::DataDevice { wanted: false } => {
                f.write_str("a separate data device was given, but the image keeps its data itself")
            }
            OpenError::BaseMismatch {
                recorded_bytes,
                found_bytes,
            } => write!(
                f,
                "the base has {found_bytes} bytes, but the image was made on one of {recorded_bytes}"
            ),
            OpenError::BaseIdMismatch => f.write_str("the id of the base is not the one on record"),
            OpenError::NeedsReadOnly { features } => {
                write!(
                    f,
                    "unknown features {features:#x} allow reading only; open read-only"
                )
            }
            OpenError::BlocksTooWide { chunks } => write!(
                f,
                "its blocks of {chunks} chunks are too large to be written; open it read-only"
            ),
            OpenError::ArenaTooSmall { needed, given } => {
                write!(f, "the arena has {given} bytes and needs {needed}")
            }
            OpenError::ArenaMisaligned => f.write_str("the arena must start at a multiple of 4096"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<FormatError> for OpenError {
    fn from(error: FormatError) -> OpenError {
        OpenError::Format(error)
    }
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Metadata => "metadata device",
        Role::Data => "data device",
        Role::Base => "base",
    }
}
