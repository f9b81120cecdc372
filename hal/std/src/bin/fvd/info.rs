//! `fvd info`: what an image is.
//!
//! Opens nothing but the image itself. Most of what it tells is in the header, which is whole at any
//! moment, so it also works beside a session that writes to the image.

use core::fmt;
use core::num::NonZeroU64;

use fvd::format::{Dialect, Header, MetadataBytes, Text};
use fvd_std::drive::Driver;
use fvd_std::file::OpenError;
use fvd_std::image::{self, Access, HeaderFile, Image, ImageError, Parts};
use serde::Serialize;

use crate::args::InfoArgs;
use crate::failure::{DONE, Doing, Failure};
use crate::output::{self, Shown};
use crate::size;

pub(crate) fn run(args: &InfoArgs) -> Result<u8, Failure> {
    let cannot = || format!("cannot read {}", Shown(&args.image));
    let found = image::read_header(&args.image).doing(cannot)?;
    let allocated = allocated_bytes(args, &found.header);
    let info = Info::new(&found, *allocated.as_ref().unwrap_or(&None));
    if args.json {
        output::print_json(&info)?;
    } else {
        output::print(&info)?;
    }
    // What the header says is out; damage behind it is still a failure.
    allocated.doing(cannot).map(|_| DONE)
}

/// Most metadata to read for one number, bytes: those of a disk of 170 TiB. A look at an image that
/// came from anywhere must not use up the memory.
const METADATA_BYTES_MAX: u64 = 1 << 30;

/// Bytes of the store that hold guest data; `None` while somebody else has the image open, and where
/// that can not be known without the data file.
fn allocated_bytes(args: &InfoArgs, header: &Header) -> Result<Option<u64>, ImageError> {
    if header.metadata_bytes().total() > METADATA_BYTES_MAX {
        return Ok(None);
    }
    let mut driver = Driver::new();
    let parts = Parts {
        allow_absent: true,
        ..Parts::default()
    };
    match Image::open(&mut driver, &args.image, Access::ReadOnly, &parts) {
        Ok(image) => {
            let bytes = image.usage().allocated_bytes;
            image.close(&mut driver).map(|()| Some(bytes))
        }
        Err(ImageError::File(OpenError::Locked) | ImageError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Serialize)]
struct Info {
    dialect: &'static str,
    version: u32,
    virtual_size: u64,
    block_size: u64,
    chunk_size: u64,
    table: bool,
    base: Option<BaseInfo>,
    data_file: Option<String>,
    features: Vec<String>,
    capabilities: &'static [&'static str],
    clean: bool,
    metadata_bytes: MetadataInfo,
    /// Bytes of the store that hold guest data; null while somebody else has the image open, for an
    /// image that is too large to be counted, and for one of 2011 with a data file.
    allocated_bytes: Option<u64>,
    file_size: u64,
    /// What the file takes on its file system; all of a block device.
    host_bytes: u64,
    snapshots: Vec<()>,
    grow_unit: u64,
    /// Bytes of a journal unit.
    journal_unit: u32,
    copy_on_read: bool,
    prefetch_delay: Option<i64>,
    /// Null in the dialects of 2011, which have no ids.
    image_id: Option<String>,
    generation: Option<u64>,
}

#[derive(Serialize)]
struct BaseInfo {
    name: Option<String>,
    format: Option<String>,
    size: u64,
    id: Option<String>,
    /// Whether parts of the disk still live there.
    needed: bool,
}

#[derive(Serialize)]
struct MetadataInfo {
    header: u64,
    bitmap: u64,
    table: u64,
    journal: u64,
    checksums: u64,
    total: u64,
}

/// What images of some dialects can do and those of others can not (docs/DIALECTS.md §1).
const fn capabilities(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        // A base is known by its id; a discard may zero; zeros may hide the base and take no space.
        Dialect::Fvd2 => &["base-id", "discard", "hide-base"],
        // Mappings only ever come, and there is no place for ids.
        _ => &[],
    }
}

impl Info {
    fn new(found: &HeaderFile, allocated_bytes: Option<u64>) -> Info {
        let header = &found.header;
        let core = &header.core;
        let old = header.dialect.is_old();
        let delay = core.copy.prefetch_start_delay_s;
        Info {
            dialect: header.dialect.name(),
            version: if old { 1 } else { 2 },
            virtual_size: core.virtual_bytes,
            block_size: core.block_bytes,
            chunk_size: core.chunk_bytes,
            table: header.has_table(),
            base: header.has_base().then(|| BaseInfo::new(header)),
            data_file: header
                .has_external_data()
                .then(|| core.data_file.to_string()),
            features: header
                .features
                .iter()
                .map(|feature| feature.to_string())
                .collect(),
            capabilities: capabilities(header.dialect),
            clean: core.clean_shutdown,
            metadata_bytes: MetadataInfo::new(&header.metadata_bytes()),
            allocated_bytes,
            file_size: found.file_bytes,
            host_bytes: found.host_bytes,
            snapshots: Vec::new(),
            grow_unit: core.grow_bytes.map_or(0, NonZeroU64::get),
            journal_unit: if old { 512 } else { header.atomic_unit },
            copy_on_read: core.copy.copy_on_read,
            prefetch_delay: (delay >= 0).then_some(delay),
            image_id: (!old).then(|| size::show_id(header.image_id.0)),
            generation: (!old).then_some(header.generation),
        }
    }
}

impl BaseInfo {
    fn new(header: &Header) -> BaseInfo {
        BaseInfo {
            name: named(&header.core.base_name),
            format: named(&header.core.base_format),
            size: header.core.base_bytes,
            id: (header.base_id != [0; 16]).then(|| size::show_id(header.base_id)),
            needed: header.has_bitmap(),
        }
    }
}

impl MetadataInfo {
    fn new(bytes: &MetadataBytes) -> MetadataInfo {
        MetadataInfo {
            header: bytes.header,
            bitmap: bytes.bitmap,
            table: bytes.table,
            journal: bytes.journal,
            checksums: bytes.checksums,
            total: bytes.total(),
        }
    }
}

/// A name from the image, escaped; `None` if there is none.
fn named<const MAX: usize>(name: &Text<MAX>) -> Option<String> {
    (!name.is_empty()).then(|| name.to_string())
}

/// For people: one fact per line.
impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, value: &dyn fmt::Display| writeln!(f, "{what:<16} {value}");
        let on = |on: bool| if on { "on" } else { "off" };
        line(
            "dialect:",
            &format!("{} (version {})", self.dialect, self.version),
        )?;
        line("virtual size:", &size::show(self.virtual_size))?;
        line("file size:", &size::show(self.file_size))?;
        line("taken on disk:", &size::show(self.host_bytes))?;
        match self.allocated_bytes {
            Some(bytes) => line("allocated:", &size::show(bytes))?,
            None => line(
                "allocated:",
                &"not counted: the image is in use, or very large",
            )?,
        }
        line("block size:", &size::show(self.block_size))?;
        line("chunk size:", &size::show(self.chunk_size))?;
        line("table:", &on(self.table))?;
        match &self.base {
            None => line("base:", &"none")?,
            Some(base) => line("base:", base)?,
        }
        if let Some(name) = &self.data_file {
            line("data file:", &format!("'{name}'"))?;
        }
        line("features:", &self.features.join(" "))?;
        line("capabilities:", &self.capabilities.join(" "))?;
        line("closed cleanly:", &if self.clean { "yes" } else { "no" })?;
        line("metadata:", &size::show(self.metadata_bytes.total))?;
        let MetadataInfo {
            header,
            bitmap,
            table,
            journal,
            checksums,
            ..
        } = self.metadata_bytes;
        let regions = [
            ("header", header),
            ("bitmap", bitmap),
            ("table", table),
            ("journal", journal),
            ("checksums", checksums),
        ];
        for (name, bytes) in regions {
            line(&format!("  {name}:"), &size::show(bytes))?;
        }
        match &self.image_id {
            Some(id) => line("image id:", id),
            None => Ok(()),
        }
    }
}

impl fmt::Display for BaseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "'{name}'")?,
            None => f.write_str("without a name")?,
        }
        if let Some(format) = &self.format {
            write!(f, " ({format})")?;
        }
        write!(f, ", {}", size::show(self.size))?;
        if let Some(id) = &self.id {
            write!(f, ", id {id}")?;
        }
        if !self.needed {
            f.write_str(", not needed any more")?;
        }
        Ok(())
    }
}
