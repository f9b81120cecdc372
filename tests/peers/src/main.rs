//! `bench-peers CRATE IMAGE DEPTH FLUSH_EVERY`: writes 4 KiB to each of the places on standard input, with
//! so many in flight and a flush after every so many (0 = none), and prints the seconds it took.
//!
//! Both crates use the file around the page cache. A flush makes everything before it durable,
//! metadata included.

use std::env;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate, StorageOpenOptions};
use qcow2_rs::dev::Qcow2DevParams;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::utils::qcow2_setup_dev_uring;

const BLOCK_BYTES: usize = 4096;

/// What to do.
struct Job {
    depth: usize,
    flush_every: usize,
    places: Vec<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [name, image, depth, flush_every] = &words[..] else {
        return Err("bench-peers CRATE IMAGE DEPTH FLUSH_EVERY <PLACES".into());
    };
    let image = Path::new(image);
    let places = io::read_to_string(io::stdin())?;
    let job = Job {
        depth: depth.parse()?,
        flush_every: flush_every.parse()?,
        places: places.lines().map(str::parse).collect::<Result<_, _>>()?,
    };
    let seconds = match name.as_str() {
        "imago" => tokio::runtime::Builder::new_current_thread()
            .build()?
            .block_on(by_imago(image, &job))?,
        "qcow2-rs" => tokio_uring::start(by_qcow2_rs(image, &job))?,
        _ => return Err(format!("no such crate: {name}").into()),
    };
    println!("{seconds}");
    Ok(())
}

async fn by_imago(image: &Path, job: &Job) -> Result<f64, Box<dyn Error>> {
    let disk = Qcow2::<File>::builder_path(image)
        .storage_open_options(StorageOpenOptions::new().direct(true))
        .write(true)
        .open(PermissiveImplicitOpenGate::default())
        .await?;
    let disk = FormatAccess::new(disk);
    let block = block();
    let flush = || async {
        disk.flush().await?;
        disk.sync().await
    };
    let seconds = drive(job, |at| disk.write(&block[..], at), flush).await?;
    disk.flush().await?;
    Ok(seconds)
}

async fn by_qcow2_rs(image: &Path, job: &Job) -> Result<f64, Box<dyn Error>> {
    let params = Qcow2DevParams::new(9, None, None, false, true);
    let opened = qcow2_setup_dev_uring(image, &params).await;
    let disk = opened.map_err(|error| format!("{error:?}"))?;
    let block = block();
    let flush = || async {
        disk.flush_meta().await?;
        disk.fsync_range(0, 0).await
    };
    let seconds = drive(job, |at| disk.write_at(&block, at), flush).await?;
    let flushed = disk.flush_meta().await;
    flushed.map_err(|error| format!("{error:?}"))?;
    Ok(seconds)
}

/// A block where direct I/O takes it from.
fn block() -> Qcow2IoBuf<u8> {
    let mut block = Qcow2IoBuf::new(BLOCK_BYTES);
    block.fill(0x5A);
    block
}

async fn drive<W, F, E: Debug>(
    job: &Job,
    write: impl Fn(u64) -> W,
    flush: impl Fn() -> F,
) -> Result<f64, String>
where
    W: Future<Output = Result<(), E>>,
    F: Future<Output = Result<(), E>>,
{
    let told = |error| format!("{error:?}");
    let start = Instant::now();
    let mut running = FuturesUnordered::new();
    for (count, at) in (1..).zip(&job.places) {
        running.push(write(*at));
        let flushes = job.flush_every != 0 && count % job.flush_every == 0;
        let stay = if flushes { 0 } else { job.depth - 1 };
        while running.len() > stay {
            running.next().await.unwrap_or(Ok(())).map_err(told)?;
        }
        if flushes {
            flush().await.map_err(told)?;
        }
    }
    while let Some(written) = running.next().await {
        written.map_err(told)?;
    }
    Ok(start.elapsed().as_secs_f64())
}
