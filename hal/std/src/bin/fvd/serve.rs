//! `fvd serve`: a disk for NBD clients.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fvd::device::Counts;
use fvd_std::drive::Driver;
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{Access, Image, Parts};
use fvd_std::serve::{Command, Counters, Disk, Listener, Server};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::args::{CacheChoice, Format, ServeArgs};
use crate::bench::control::JournalControl;
use crate::failure::{DONE, Doing, Failure};
use crate::output::{self, Shown};
use crate::parts;

pub(crate) fn run(args: &ServeArgs) -> Result<u8, Failure> {
    let cannot = || format!("cannot serve {}", Shown(&args.image));
    let mut signals = Signals::install().doing(|| "cannot watch for signals")?;
    match args.format {
        Format::Fvd => {
            let parts = Parts {
                aio: args.aio.aio(),
                cache: args.cache.cache(),
                ..parts::of(&args.parts)?
            };
            let access = if args.read_only {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            };
            let mut driver = Driver::new();
            let mut image = Image::open(&mut driver, &args.image, access, &parts).doing(cannot)?;
            let served = serve(args, &mut signals, &mut image, |image| {
                Some(image_stats(image))
            });
            // Whatever became of the clients, the image is closed in good order.
            let closed = image.close(&mut driver).doing(cannot);
            served.and(closed)?;
        }
        Format::Raw => {
            let options = FileOptions {
                read_only: args.read_only,
                aio: args.aio.aio(),
                cache: args.cache.cache(),
                ..FileOptions::default()
            };
            let device = FileDevice::open(&args.image, &options).doing(cannot)?;
            if args.cache == CacheChoice::None && !device.is_direct() {
                output::say(format_args!(
                    "{}: this file system has no direct I/O; data pass through the page cache",
                    Shown(&args.image)
                ));
            }
            if args.journal_control {
                let control = JournalControl::new(device).doing(cannot)?;
                serve_raw(args, &mut signals, control)?;
            } else {
                serve_raw(args, &mut signals, device)?;
            }
        }
    }
    Ok(DONE)
}

/// Serves a disk without metadata, and flushes it at the end.
fn serve_raw<D: Disk>(args: &ServeArgs, signals: &mut Signals, mut disk: D) -> Result<(), Failure> {
    let served = serve(args, signals, &mut disk, |_| None);
    let flushed = if args.read_only {
        Ok(())
    } else {
        let cannot = || format!("cannot serve {}", Shown(&args.image));
        Driver::new().flush(&mut disk).doing(cannot)
    };
    served.and(flushed)
}

fn serve<D: Disk>(
    args: &ServeArgs,
    signals: &mut Signals,
    disk: &mut D,
    stats: impl Fn(&D) -> Option<Value>,
) -> Result<(), Failure> {
    let cannot = || format!("cannot serve {}", Shown(&args.image));
    let place = Place::open(args)?;
    let listener = place.listener().doing(cannot)?;
    let mut server = Server::new(disk, listener, &args.export_name).doing(cannot)?;
    output::say(format_args!("serving {} at {place}", Shown(&args.image)));
    let (control, caught) = (&signals.control, &signals.caught);
    let mut control_reader = control;
    let result = server.run(control.as_fd(), |server| {
        // Only the fact that there was a signal is in the pipe; which one is in the flags.
        let _ = control_reader.read(&mut [0; 64]);
        if args.stats && caught.report.swap(false, Ordering::Relaxed) {
            print_stats(&server.counters(), stats(server.disk()));
        }
        caught.stop.load(Ordering::Relaxed).then_some(Command::Stop)
    });
    if args.stats {
        print_stats(&server.counters(), stats(server.disk()));
    }
    result.doing(cannot)
}

/// One line of JSON on standard output.
fn print_stats(counters: &Counters, disk: Option<Value>) {
    let line = json!({
        "connections": counters.connections,
        "refused_connections": counters.refused_connections,
        "requests": counters.requests,
        "errors": counters.errors,
        "read_bytes": counters.read_bytes,
        "written_bytes": counters.written_bytes,
        "disk": disk,
    });
    // The clients matter more than whoever reads the counters.
    let _ = output::print(format_args!("{line}\n"));
}

fn image_stats(image: &Image) -> Value {
    let (stats, devices) = (image.stats(), image.device_counts());
    json!({
        "requests": stats.requests,
        "forwarded": stats.forwarded,
        "parts": stats.parts,
        "fills": stats.fills,
        "chunks_reserved": stats.chunks_reserved,
        "chunks_zeroed": stats.chunks_zeroed,
        "commits": stats.commits,
        "strict_commits": stats.strict_commits,
        "eager_units": stats.eager_units,
        "journal_units": stats.journal_units,
        "journal_writes": stats.journal_writes,
        "checkpoints": stats.checkpoints,
        "pages_written": stats.pages_written,
        "metadata_writes": stats.metadata_writes,
        "growths": stats.growths,
        "protocol_errors": stats.protocol_errors,
        "memory_bytes": image.memory_bytes(),
        "devices": {
            "metadata": device_counts(&devices.metadata),
            "data": device_counts(&devices.data),
            "base": device_counts(&devices.base),
        },
    })
}

fn device_counts(counts: &Counts) -> Value {
    json!({
        "reads": counts.reads,
        "read_bytes": counts.read_bytes,
        "writes": counts.writes,
        "write_bytes": counts.write_bytes,
        "fua_writes": counts.fua_writes,
        "flushes": counts.flushes,
        "discards": counts.discards,
        "write_zeroes": counts.write_zeroes,
        "grows": counts.grows,
    })
}

/// Which signals came.
#[derive(Default)]
struct Caught {
    stop: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

/// Signals as something that can be waited for together with sockets.
struct Signals {
    control: UnixStream,
    caught: Caught,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        let (control, sender) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let caught = Caught::default();
        for (signal, flag) in [
            (SIGTERM, &caught.stop),
            (SIGINT, &caught.stop),
            (SIGUSR1, &caught.report),
        ] {
            // In this order: the flag is set when the pipe tells of it.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Signals { control, caught })
    }
}

/// Where the server listens; a socket in the file system goes when it is dropped.
enum Place {
    Socket(PathBuf, UnixListener),
    Port(TcpListener),
}

impl Place {
    fn open(args: &ServeArgs) -> Result<Place, Failure> {
        if let Some(path) = &args.socket {
            let cannot = || format!("cannot listen on {}", Shown(path));
            let listener = bind(path).doing(cannot)?;
            return Ok(Place::Socket(path.clone(), listener));
        }
        // clap asks for one of the two.
        let address = args.listen.unwrap_or(([127, 0, 0, 1], 10809).into());
        let listener = TcpListener::bind(address);
        listener
            .map(Place::Port)
            .doing(|| format!("cannot listen on {address}"))
    }

    fn listener(&self) -> io::Result<Listener> {
        Ok(match self {
            Place::Socket(_, listener) => Listener::Unix(listener.try_clone()?),
            Place::Port(listener) => Listener::Tcp(listener.try_clone()?),
        })
    }
}

/// Makes a socket. One that a server left behind which was killed is replaced; one that somebody
/// listens on is not, and neither is anything that is no socket.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            let is_dead = UnixStream::connect(path)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            if !is_socket || !is_dead {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Socket(path, _) = self {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Place::Socket(path, _) => Shown(path).fmt(f),
            Place::Port(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a port"),
            },
        }
    }
}
