//! The command line: what may stand there, and what can be said without looking at any file.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fvd::format::Dialect;
use fvd_std::file::{Aio, Cache};

use crate::bench::BenchArgs;
use crate::failure::Failure;
use crate::output;
use crate::size;

#[derive(Parser)]
#[command(
    name = "fvd",
    version,
    about = "Fast Virtual Disk images: make, look at, check, convert and serve them",
    after_help = "SIZE is in bytes, or in powers of 1024 with K, M, G or T.\n\
                  Exit codes: 0 done, 1 failed, 64 wrong usage; `check` has more."
)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a new image
    Create(CreateArgs),
    /// Tell what an image is
    Info(InfoArgs),
    /// List where each part of the guest's disk lives
    Map(MapArgs),
    /// Look for damage, and mend what can be mended without a guess
    #[command(after_help = "\
Reports everything that is wrong, and changes nothing without --repair. Three degrees:\n  \
note        legal, as after a crash; the next session that writes mends it\n  \
repairable  the image can not be opened; --repair mends it and loses nothing\n  \
damage      mending it would mean to guess; --repair refuses and changes nothing\n\n\
Exit codes: 0 no damage (notes at most), 2 corrupt (also what --repair could mend),\n\
3 leaks only (images of version 2 have none), 1 could not check or repair.")]
    Check(CheckArgs),
    /// Copy a disk from one image to another
    Convert(ConvertArgs),
    /// Offer a disk to NBD clients, until SIGTERM or SIGINT
    Serve(ServeArgs),
    /// Compare speed with other servers and formats, as far as they are installed
    #[command(after_help = "\
Measures ratios within one run, since times on a shared machine prove nothing: a reference, the\n\
arms in rotated order, the reference again, round after round. Needs fio; QEMU's tools, strace and\n\
filefrag for what needs them. Writes bench.md, bench.json and bench.svg.")]
    Bench(BenchArgs),
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Base below the new image: its content shows where nothing was written
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// What the base is
    #[arg(long, value_name = "FORMAT", default_value = "raw", requires = "base")]
    pub(crate) base_format: Format,
    /// Identity of a raw base, to be asked for whenever the image is opened
    #[arg(long, value_name = "HEX32", value_parser = size::parse_id, requires = "base")]
    pub(crate) base_id: Option<[u8; 16]>,
    /// Keep the data in this file, and only metadata in IMAGE
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
    /// Open the files that the base names: only for images that you trust
    #[arg(long)]
    pub(crate) follow_names: bool,
    /// Replace IMAGE, and the data file, if they exist
    #[arg(long)]
    pub(crate) force: bool,
    /// The image to make
    pub(crate) image: PathBuf,
    /// Size of the guest's disk; may be left out when there is a base
    #[arg(value_parser = size::parse, required_unless_present = "base")]
    pub(crate) size: Option<u64>,
}

/// What a new image is like.
#[derive(Args, Clone)]
pub(crate) struct ShapeArgs {
    /// On-disk format
    #[arg(long, default_value = "fvd2")]
    pub(crate) dialect: DialectChoice,
    /// Let the image allocate its own storage; without it, data lie as in a raw file
    #[arg(long, default_value = "on")]
    pub(crate) table: Switch,
    /// Unit of copy-on-write
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "64K")]
    pub(crate) block_size: u64,
    /// Unit of allocation: 1 to 16 blocks; in an old dialect any number of 4K
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "1M")]
    pub(crate) chunk_size: u64,
    /// Size of the journal: auto, none or SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_journal, default_value = "auto")]
    pub(crate) journal_size: JournalSize,
    /// Step by which a growing image grows: a multiple of the chunk size
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) grow_unit: Option<u64>,
    /// Make the file that holds the data this long, so that it serves as a disk that cannot grow:
    /// SIZE, or `whole` = as long as the whole disk can need
    #[arg(long, value_name = "SIZE", value_parser = parse_store)]
    pub(crate) store_size: Option<StoreSize>,
    /// Space that the file with the data takes now: none, reserved, or reserved and written. More
    /// than none makes it `whole` unless --store-size says less. Metadata always have theirs
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub(crate) preallocation: Preallocation,
    /// Save what the guest reads from the base
    #[arg(long)]
    pub(crate) copy_on_read: bool,
    /// Start to copy the rest of the base this long after opening
    #[arg(long, value_name = "SECONDS")]
    pub(crate) prefetch_delay: Option<u32>,
    /// Look for zeros in the base now, so that they need not be read later
    #[arg(long)]
    pub(crate) detect_zeroes: bool,
}

#[derive(Args)]
pub(crate) struct InfoArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The image
    pub(crate) image: PathBuf,
}

#[derive(Args)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The image
    pub(crate) image: PathBuf,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Mend an image that is not damaged: replay its journal, write both headers anew, forget the end
    /// of a store that was cut off behind the last chunk in use, raise a zero floor that is too low,
    /// clear what is behind table and bitmap
    #[arg(long)]
    pub(crate) repair: bool,
    /// The image
    pub(crate) image: PathBuf,
}

/// The parts of an existing image that lie in other files.
#[derive(Args, Clone, Default)]
pub(crate) struct PartsArgs {
    /// Base of the image
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// What the base is
    #[arg(long, value_name = "FORMAT", default_value = "raw", requires = "base")]
    pub(crate) base_format: Format,
    /// Identity of the raw base
    #[arg(long, value_name = "HEX32", value_parser = size::parse_id)]
    pub(crate) base_id: Option<[u8; 16]>,
    /// Use a base even if its identity is not the one in the image
    #[arg(long)]
    pub(crate) accept_base: bool,
    /// Data file of the image
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
    /// Open the files that the image names: only for images that you trust
    #[arg(long)]
    pub(crate) follow_names: bool,
}

#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// What SRC is
    #[arg(short = 'f', value_name = "FORMAT", default_value = "raw")]
    pub(crate) source_format: Format,
    /// What DST shall be
    #[arg(short = 'O', value_name = "FORMAT", default_value = "fvd")]
    pub(crate) target_format: Format,
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Base below an fvd DST: only what differs from it is written
    #[arg(long, value_name = "FILE")]
    pub(crate) target_base: Option<PathBuf>,
    /// What the base of DST is
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "raw",
        requires = "target_base"
    )]
    pub(crate) target_base_format: Format,
    /// Identity of the raw base of DST
    #[arg(long, value_name = "HEX32", value_parser = size::parse_id, requires = "target_base")]
    pub(crate) target_base_id: Option<[u8; 16]>,
    /// Data file of an fvd DST
    #[arg(long, value_name = "FILE")]
    pub(crate) target_data_file: Option<PathBuf>,
    /// Replace DST, and its data file, if they exist
    #[arg(long)]
    pub(crate) force: bool,
    /// The disk to copy
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// The image to make
    #[arg(value_name = "DST")]
    pub(crate) target: PathBuf,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("place").required(true))]
pub(crate) struct ServeArgs {
    /// What IMAGE is
    #[arg(short = 'f', value_name = "FORMAT", default_value = "fvd")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
    /// Listen on a socket in the file system
    #[arg(long, value_name = "PATH", group = "place")]
    pub(crate) socket: Option<PathBuf>,
    /// Listen on a port; clients are not asked who they are, so keep to loopback addresses
    #[arg(long, value_name = "ADDR:PORT", group = "place")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Name of the export; clients that ask for none get it too
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) export_name: String,
    /// Refuse writes
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Who carries out operations on files
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub(crate) aio: AioChoice,
    /// Whether data pass through the page cache of this host
    #[arg(long, value_name = "MODE", default_value = "writeback")]
    pub(crate) cache: CacheChoice,
    /// Print counters as a line of JSON on SIGUSR1 and at the end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Write a page more for each flush, behind the disk: what any journal costs at least
    #[arg(long, hide = true)]
    pub(crate) journal_control: bool,
    /// The image
    pub(crate) image: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Nothing but the bytes of the disk
    #[default]
    Raw,
    /// A Fast Virtual Disk image
    Fvd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AioChoice {
    /// The kernel where it offers io_uring, else threads
    Auto,
    /// Threads of this process
    Threads,
    /// The kernel, or nobody
    #[value(name = "io_uring")]
    IoUring,
}

impl AioChoice {
    pub(crate) const fn aio(self) -> Aio {
        match self {
            AioChoice::Auto => Aio::Auto,
            AioChoice::Threads => Aio::Threads,
            AioChoice::IoUring => Aio::IoUring,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheChoice {
    /// They do; a flush makes them durable
    Writeback,
    /// They go around it where the file system can do that
    None,
}

impl CacheChoice {
    pub(crate) const fn cache(self) -> Cache {
        match self {
            CacheChoice::Writeback => Cache::Buffered,
            CacheChoice::None => Cache::Direct,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DialectChoice {
    /// Version 2
    Fvd2,
    /// The written specification of 2011, version 1
    Spec2011,
    /// The reference implementation of 2011
    Reference,
}

impl DialectChoice {
    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            DialectChoice::Fvd2 => Dialect::Fvd2,
            DialectChoice::Spec2011 => Dialect::Spec2011,
            DialectChoice::Reference => Dialect::Reference,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalSize {
    Auto,
    None,
    Bytes(u64),
}

/// How long the file with the data shall be from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreSize {
    /// As long as the whole disk can need.
    Whole,
    Bytes(u64),
}

fn parse_store(text: &str) -> Result<StoreSize, String> {
    match text {
        "whole" => Ok(StoreSize::Whole),
        _ => size::parse(text).map(StoreSize::Bytes),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preallocation {
    /// Data take their space when they are written
    Off,
    /// Reserved by the file system, without writing
    Falloc,
    /// Written with zeros
    Full,
}

fn parse_journal(text: &str) -> Result<JournalSize, String> {
    match text {
        "auto" => Ok(JournalSize::Auto),
        "none" => Ok(JournalSize::None),
        _ => size::parse(text).map(JournalSize::Bytes),
    }
}

/// Reads the command line. `None` if it asked for help or the version, which is printed then.
pub(crate) fn read() -> Result<Option<Verb>, Failure> {
    match CommandLine::try_parse() {
        Ok(line) => {
            check(&line.verb)?;
            Ok(Some(line.verb))
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                output::print(error.render())?;
                Ok(None)
            }
            _ => Err(Failure::Usage(text_of(&error))),
        },
    }
}

/// What clap has to say, without its own prefix.
fn text_of(error: &clap::Error) -> String {
    let text = error.render().to_string();
    text.strip_prefix("error: ")
        .unwrap_or(&text)
        .trim_end()
        .to_string()
}

/// What clap can not say about combinations of options.
fn check(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => {
            check_identity(&args.shape, "--base-id", args.base_id)?;
            check_shape(&args.shape, args.base.is_some())
        }
        Verb::Convert(args) if args.target_format == Format::Fvd => {
            check_identity(&args.shape, "--target-base-id", args.target_base_id)?;
            check_shape(&args.shape, args.target_base.is_some())
        }
        Verb::Convert(args) => {
            let only_fvd = [
                ("--target-base", args.target_base.is_some()),
                ("--target-data-file", args.target_data_file.is_some()),
                ("--store-size", args.shape.store_size.is_some()),
                (
                    "--preallocation",
                    args.shape.preallocation != Preallocation::Off,
                ),
            ];
            match only_fvd.into_iter().find(|(_, given)| *given) {
                Some((option, _)) => usage(format!("{option} needs an fvd DST (-O fvd)")),
                None => Ok(()),
            }
        }
        Verb::Serve(args) if args.export_name.len() > fvd_nbd::export::NAME_BYTES_MAX => {
            usage("--export-name takes at most 4096 bytes".into())
        }
        Verb::Serve(args) if args.journal_control && args.format != Format::Raw => {
            usage("--journal-control needs a raw IMAGE (-f raw)".into())
        }
        Verb::Info(_) | Verb::Map(_) | Verb::Check(_) | Verb::Serve(_) | Verb::Bench(_) => Ok(()),
    }
}

/// The old dialects have no place for what a base is known by.
fn check_identity(shape: &ShapeArgs, option: &str, id: Option<[u8; 16]>) -> Result<(), Failure> {
    if id.is_some() && shape.dialect != DialectChoice::Fvd2 {
        return usage(format!("{option} needs --dialect fvd2"));
    }
    Ok(())
}

fn check_shape(shape: &ShapeArgs, base: bool) -> Result<(), Failure> {
    let old = shape.dialect != DialectChoice::Fvd2;
    if old && shape.detect_zeroes {
        return usage("--detect-zeroes needs --dialect fvd2".into());
    }
    let needed = (shape.table == Switch::On || base) && !old;
    if shape.journal_size == JournalSize::None && needed {
        return usage("--journal-size none needs --table off and no base".into());
    }
    let base_only = [
        ("--copy-on-read", shape.copy_on_read),
        ("--prefetch-delay", shape.prefetch_delay.is_some()),
    ];
    match base_only.into_iter().find(|(_, given)| *given && !base) {
        Some((option, _)) => usage(format!("{option} makes no sense without a base")),
        None => Ok(()),
    }
}

fn usage(text: String) -> Result<(), Failure> {
    Err(Failure::Usage(text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Verb, String> {
        let words = core::iter::once("fvd").chain(line.split_whitespace());
        let line = CommandLine::try_parse_from(words).map_err(|error| text_of(&error))?;
        check(&line.verb).map_err(|failure| format!("{failure:?}"))?;
        Ok(line.verb)
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let Ok(Verb::Create(args)) = parse("create disk.fvd 1T") else {
            panic!("create")
        };
        assert_eq!(
            (args.shape.block_size, args.shape.chunk_size),
            (64 << 10, 1 << 20)
        );
        assert_eq!((args.shape.table, args.size), (Switch::On, Some(1 << 40)));
        assert_eq!((args.base_format, args.base), (Format::Raw, None));
        let Ok(Verb::Convert(args)) = parse("convert a b") else {
            panic!("convert")
        };
        assert_eq!(
            (args.source_format, args.target_format),
            (Format::Raw, Format::Fvd)
        );
    }

    #[test]
    fn a_size_may_be_left_out_only_with_a_base() {
        assert!(parse("create disk.fvd").is_err());
        assert!(parse("create --base base.raw disk.fvd").is_ok());
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        for line in [
            "create --journal-size none disk.fvd 1G",
            "create --journal-size none --table off --base b disk.fvd",
            "create --copy-on-read disk.fvd 1G",
            "create --prefetch-delay 5 disk.fvd 1G",
            "create --base-id 00112233445566778899aabbccddeeff disk.fvd 1G",
            "create --base-format fvd disk.fvd 1G",
            "convert -O raw --target-base b src dst",
            "convert -f qcow2 src dst",
            "create --dialect qcow2 disk.fvd 1G",
            "create --dialect reference --detect-zeroes --base b disk.fvd",
            "create --dialect spec2011 --base b --base-id 00112233445566778899aabbccddeeff d.fvd",
            "create --prefetch-delay -1 --base b disk.fvd",
            "create --preallocation metadata disk.fvd 1G",
            "create --store-size all disk.fvd 1G",
            "convert -O raw --preallocation full src dst",
            "convert -O raw --store-size whole src dst",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("create --journal-size none --table off disk.fvd 1G").is_ok());
        assert!(parse("create --dialect reference --journal-size none disk.fvd 1G").is_ok());
    }
}
