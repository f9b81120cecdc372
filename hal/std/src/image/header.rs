//! Reading the header of an image without opening the image.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use fvd::format::{FormatError, HEADER_BYTES, Header, Limits, SLOT_BYTES, slot_faults};

use super::error::ImageError;
use crate::file;

/// The header of an image, and the file it was found in.
#[derive(Clone, Debug)]
pub struct HeaderFile {
    /// The header that counts.
    pub header: Header,
    /// Whether both header slots are whole. If not, the other one is all there is.
    pub both_slots_valid: bool,
    /// Bytes in the file or on the block device.
    pub file_bytes: u64,
    /// Bytes that the file takes on its file system; all of a block device.
    pub host_bytes: u64,
}

/// Reads the header of an image and checks that all its regions lie inside the file.
///
/// Takes no lock and needs none: a header is written to one of two slots at a time, and a slot that
/// is being written does not count.
///
/// # Errors
/// See [`ImageError`].
pub fn read_header(path: &Path) -> Result<HeaderFile, ImageError> {
    let file = file::open_path(path, true)?;
    let found = read_from(&file)?;
    found.header.validate(found.file_bytes, None)?;
    Ok(found)
}

/// Reads the header of an image, wherever its regions lie.
pub(super) fn read_header_alone(path: &Path) -> Result<Header, ImageError> {
    Ok(read_from(&file::open_path(path, true)?)?.header)
}

/// What is wrong with each of the two headers of an image by itself.
///
/// # Errors
/// The file can not be read.
pub fn header_faults(path: &Path) -> Result<[Option<FormatError>; 2], ImageError> {
    let start = read_start(&file::open_path(path, true)?)?;
    let (first, second) = start.split_at(start.len().min(SLOT_BYTES));
    Ok(slot_faults(first, second))
}

/// Reads the header of an open image.
pub(super) fn read_from(mut file: &File) -> Result<HeaderFile, ImageError> {
    let metadata = file.metadata()?;
    let (file_bytes, host_bytes) = if metadata.is_file() {
        (metadata.len(), metadata.blocks().saturating_mul(512))
    } else if metadata.file_type().is_block_device() {
        let bytes = file.seek(SeekFrom::End(0))?;
        (bytes, bytes)
    } else {
        return Err(ImageError::File(file::OpenError::NotAStore));
    };
    let start = read_start(file)?;
    let chosen = fvd::format::read_header(&start, &Limits::FORMAT)?;
    Ok(HeaderFile {
        header: chosen.header,
        both_slots_valid: chosen.other_valid,
        file_bytes,
        host_bytes,
    })
}

/// Both header slots, as much of them as there is.
fn read_start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; HEADER_BYTES as usize];
    let mut done = 0;
    while done < start.len() {
        match file.read_at(&mut start[done..], done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(done);
    Ok(start)
}
