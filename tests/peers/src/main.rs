//! `bench-peers CRATE IMAGE DEPTH FLUSH_EVERY [--calls]`: writes 4 KiB to each of the places on standard input, with
//! so many in flight and a flush after every so many (0 = none), and prints the seconds it took.
//!
//! Both crates use the file around the page cache. A flush makes everything before it durable,
//! metadata included. With `--calls` each operation on the file is a system call, which can be counted.

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
use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::error::Qcow2Result;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::ops::Qcow2IoOps;
use qcow2_rs::utils::{qcow2_setup_dev_sync, qcow2_setup_dev_uring};

const BLOCK_BYTES: usize = 4096;

/// What to do.
struct Job {
    depth: usize,
    flush_every: usize,
    places: Vec<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let calls = words.pop_if(|word| word == "--calls").is_some();
    let [name, image, depth, flush_every] = &words[..] else {
        return Err("bench-peers CRATE IMAGE DEPTH FLUSH_EVERY [--calls] <PLACES".into());
    };
    let image = Path::new(image);
    let places = io::read_to_string(io::stdin())?;
    let job = Job {
        depth: depth.parse()?,
        flush_every: flush_every.parse()?,
        places: places.lines().map(str::parse).collect::<Result<_, _>>()?,
    };
    let seconds = match name.as_str() {
        // This one uses system calls anyway.
        "imago" => tokio::runtime::Builder::new_current_thread()
            .build()?
            .block_on(by_imago(image, &job))?,
        "qcow2-rs" if calls => {
            let disk = qcow2_setup_dev_sync(image, &qcow2_rs_params());
            futures::executor::block_on(by_qcow2_rs(disk, &job))?
        }
        "qcow2-rs" => tokio_uring::start(async {
            let disk = qcow2_setup_dev_uring(image, &qcow2_rs_params()).await;
            by_qcow2_rs(disk, &job).await
        })?,
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

fn qcow2_rs_params() -> Qcow2DevParams {
    Qcow2DevParams::new(9, None, None, false, true)
}

async fn by_qcow2_rs<T: Qcow2IoOps>(
    opened: Qcow2Result<Qcow2Dev<T>>,
    job: &Job,
) -> Result<f64, Box<dyn Error>> {
    let told = |error| format!("{error:?}");
    let disk = opened.map_err(told)?;
    // Not all ways to open it have read its metadata.
    disk.qcow2_prep_io().await.map_err(told)?;
    let block = block();
    let flush = || async {
        disk.flush_meta().await?;
        disk.fsync_range(0, 0).await
    };
    let seconds = drive(job, |at| disk.write_at(&block, at), flush).await?;
    disk.flush_meta().await.map_err(told)?;
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
