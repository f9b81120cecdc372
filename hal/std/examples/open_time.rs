//! How long images take to open, and in how much memory (docs/SCALE.md).
//!
//! ```sh
//! cargo run --release -p fvd-std --example open_time -- [FOLDER]
//! ```
//!
//! Makes sparse images in FOLDER, or where temporary files go. In an image that is full every chunk is
//! mapped and every block of the base replaced, as far as a file of the host's can be that long.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fvd::format::page::{ChecksumArray, page_checksum, write_checksum};
use fvd::format::table::{TableEntry, write_entry};
use fvd::format::{
    BaseParams, CreateParams, FormatName, Header, ImageId, Name, PAGE_BYTES, StoreChoice, bitmap,
    plan_layout,
};
use fvd::units::{ChunkIndex, StoreChunk};
use fvd_std::drive::Driver;
use fvd_std::file::{Cache, FileDevice};
use fvd_std::image::{self, Access, BaseFormat, Image, Parts};

const TIB: u64 = 1 << 40;
/// Images: name, size of the disk, of a chunk and of a block. The last is one that takes less memory.
const SHAPES: [(&str, u64, u64, u64); 4] = [
    ("1 GiB", 1 << 30, 1 << 20, 64 << 10),
    ("1 TiB", TIB, 1 << 20, 64 << 10),
    ("16 TiB", 16 * TIB, 1 << 20, 64 << 10),
    ("16 TiB", 16 * TIB, 4 << 20, 256 << 10),
];
/// Longest file that is made: most file systems end at 16 TiB.
const FILE_BYTES_MAX: u64 = 15 * TIB;
const ROUNDS: usize = 15;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let place = std::env::args_os().nth(1).map(PathBuf::from);
    let place = place.unwrap_or_else(std::env::temp_dir);
    let folder = place.join(format!("fvd-open-time-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = report(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn report(folder: &Path) -> Result<()> {
    println!("Shortest and median of {ROUNDS}, milliseconds; cached and direct I/O.");
    println!();
    println!("| disk | chunk | image | memory, bytes | read, bytes | reads | cached | direct |");
    println!("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, bytes, chunk, block) in SHAPES {
        for full in [false, true] {
            let params = CreateParams {
                chunk_bytes: chunk,
                block_bytes: block,
                ..CreateParams::new(bytes, ImageId(image::random()?))
            };
            make(folder, params, full)?;
            let (cached, image) = times(folder, Cache::Buffered)?;
            let (direct, _) = times(folder, Cache::Direct)?;
            let Opened {
                memory_bytes,
                read_bytes,
                reads,
            } = image;
            let kind = if full { "full" } else { "new" };
            println!(
                "| {name} | {} MiB | {kind} | {memory_bytes} | {read_bytes} | {reads} | {cached} | {direct} |",
                chunk >> 20
            );
        }
    }
    Ok(())
}

/// Makes `disk.fvd` over `base.raw`, both anew.
fn make(folder: &Path, params: CreateParams, full: bool) -> Result<()> {
    let base = File::create(folder.join("base.raw"))?;
    let bytes = params.virtual_bytes;
    base.set_len(bytes.min(FILE_BYTES_MAX))?;
    let params = CreateParams {
        base: Some(BaseParams {
            name: Name::EMPTY,
            format: FormatName::EMPTY,
            bytes: bytes.min(FILE_BYTES_MAX),
            id: [0; 16],
            generation: 0,
        }),
        atomic_unit: 4096, // what a file declares
        ..params
    };
    let mut header = plan_layout(&params)?;
    if full {
        // Room for all chunks behind the metadata, as if they had been written.
        let device_bytes = image::whole_store_bytes(&header).min(FILE_BYTES_MAX);
        let store = StoreChoice::FixedUsed { device_bytes };
        header = plan_layout(&CreateParams { store, ..params })?;
    }
    let path = folder.join("disk.fvd");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    file.set_len(header.store_bytes)?;
    let options = image::file_options(&header, Access::ReadWrite);
    let device = FileDevice::from_file(file.try_clone()?, &options)?;
    image::create(&mut Driver::new(), device, header, true)?;
    if full {
        fill(&file, &header)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Maps all chunks that the file has room for and takes all blocks out of the base.
fn fill(file: &File, header: &Header) -> Result<()> {
    let core = &header.core;
    let counts = header.page_counts();
    let mut pages = vec![0; counts.total() as usize * PAGE_BYTES];
    let (table, bits) = pages.split_at_mut(counts.table_pages as usize * PAGE_BYTES);
    let chunks = (core.virtual_bytes / core.chunk_bytes) as u32;
    let room = header.chunks_in(header.store_bytes);
    for chunk in 0..chunks {
        let entry = if chunk < room {
            TableEntry::Chunk(StoreChunk(chunk))
        } else {
            TableEntry::Unmapped
        };
        if !write_entry(table, ChunkIndex(chunk), entry) {
            return Err("no such chunk".into());
        }
    }
    bitmap::set_range(bits, 0, header.bitmap_blocks());
    file.write_all_at(table, core.table.offset)?;
    file.write_all_at(bits, core.bitmap.offset)?;
    let array = header.checksum_region(ChecksumArray::A);
    let mut sums = vec![0; array.bytes as usize];
    for (number, page) in (0..).zip(pages.as_chunks().0) {
        let sum = page_checksum(&header.image_id, number, page);
        if !write_checksum(&mut sums, number, sum) {
            return Err("no such page".into());
        }
    }
    file.write_all_at(&sums, array.offset)?;
    Ok(())
}

/// What opening took.
#[derive(Clone, Copy, Default)]
struct Opened {
    memory_bytes: usize,
    read_bytes: u64,
    reads: u64,
}

/// Opens the image again and again. Times for people, and what they were spent on.
fn times(folder: &Path, cache: Cache) -> Result<(String, Opened)> {
    let parts = Parts {
        base: Some((folder.join("base.raw"), BaseFormat::Raw)),
        cache,
        ..Parts::default()
    };
    let mut driver = Driver::new();
    let mut times = [Duration::ZERO; ROUNDS];
    let mut opened = Opened::default();
    for time in &mut times {
        let start = Instant::now();
        let path = folder.join("disk.fvd");
        let image = Image::open(&mut driver, &path, Access::ReadWrite, &parts)?;
        *time = start.elapsed();
        let counts = image.device_counts().metadata;
        opened = Opened {
            memory_bytes: image.memory_bytes(),
            read_bytes: counts.read_bytes,
            reads: counts.reads,
        };
        image.close(&mut driver)?;
    }
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (shortest, median) = (times[0], times[ROUNDS / 2]);
    let text = format!("{:.1}, {:.1}", millis(shortest), millis(median));
    Ok((text, opened))
}
