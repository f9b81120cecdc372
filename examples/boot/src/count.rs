//! `cargo boot --count`: instructions and device operations of requests, on the image and on a bare
//! virtio disk of the same machine.
//!
//! The kernel counts (see its own `count`). Operations of devices are held against what they must be;
//! instructions are for people to read (docs/INSTRUCTIONS.md).

use crate::agreed::{COUNTED, option};
use crate::cases::{
    BASE_CHUNKS, BATCHES, BLOCK_BYTES, CHUNK_BYTES, Case, DISK_CHUNKS, REQUEST_BYTES, REQUESTS,
};
use crate::qemu::{Boot, Disk};
use crate::setting::Setting;
use crate::trial;
use crate::verify;
use core::time::Duration;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

const TIMEOUT: Duration = Duration::from_secs(120);

/// So long a journal that no checkpoint falls into what is counted.
const SHAPE: [&str; 3] = ["--force", "--journal-size", "8M"];

/// The journal's unit in an image that `fvd` makes.
const UNIT_BYTES: u64 = 4096;

/// What [`REQUESTS`] requests of a kind took, on the image and on the bare disk.
pub(crate) struct Line {
    machine: String,
    table: &'static str,
    case: Case,
    batch: u64,
    disk: Row,
    bare: Row,
}

/// What the kernel counted for [`REQUESTS`] requests.
struct Row {
    instructions: u64,
    doorbells: u64,
    devices: Devices,
}

/// What was asked of the image's device, or of the bare one, and of the base's.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Devices {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    flushes: u64,
    others: u64,
    base_reads: u64,
    base_read_bytes: u64,
}

/// Counts everything.
///
/// # Errors
///
/// The first thing that went wrong, with what the kernel printed.
pub(crate) fn run(setting: &Setting<'_>) -> Result<Vec<Line>, String> {
    let path = |name: &str| setting.path("count-", name);
    let (base, image, bare) = (path("base.raw"), path("fvd"), path("bare.raw"));
    let disk_bytes = DISK_CHUNKS * CHUNK_BYTES;
    make_sparse(&base, BASE_CHUNKS * CHUNK_BYTES)?;
    make_sparse(&bare, disk_bytes)?;
    let shape: Vec<_> = ["--table", setting.table]
        .into_iter()
        .chain(SHAPE)
        .collect();
    setting
        .fvd
        .create(&base, &image, disk_bytes as usize, &shape)?;

    let disk = |path: &Path, read_only| Disk {
        path: path.to_owned(),
        read_only,
    };
    let disks = [disk(&image, false), disk(&base, true), disk(&bare, false)];
    let cmdline = format!("{}={} {}=on", option::SEED, setting.seed, option::COUNT);
    let boot = Boot {
        counts_instructions: true,
        ..setting.boot(&disks, &cmdline, TIMEOUT)
    };
    let outcome = boot.run()?;
    let lines = trial::judge(&outcome)
        .and_then(|()| lines(setting, &outcome.output))
        .map_err(|fault| outcome.explain(fault))?;
    setting.fvd.check(&base, &image)?;
    Ok(lines)
}

/// All lines, if the devices were asked what they must be asked.
fn lines(setting: &Setting<'_>, output: &str) -> Result<Vec<Line>, String> {
    let has_table = setting.table == "on";
    let mut lines = Vec::new();
    for case in Case::ALL {
        for batch in BATCHES {
            let row = |on, expected| {
                Row::find(output, case, on, batch)
                    .and_then(|row| row.expect(&expected))
                    .map_err(|fault| format!("{}, {batch} in flight, {on}: {fault}", case.name()))
            };
            lines.push(Line {
                machine: setting.machine.to_string(),
                table: setting.table,
                case,
                batch,
                disk: row("disk", Devices::of_disk(case, batch, has_table))?,
                bare: row("bare", Devices::of_bare(case, batch))?,
            });
        }
    }
    Ok(lines)
}

fn make_sparse(path: &Path, bytes: u64) -> Result<(), String> {
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| format!("cannot make {}: {error}", path.display()))
}

impl Row {
    /// Finds a row in what the kernel printed.
    fn find(output: &str, case: Case, on: &str, batch: u64) -> Result<Row, String> {
        let start = format!("{COUNTED} case={} on={on} batch={batch} ", case.name());
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(&start))
            .ok_or("the kernel did not say what it counted")?;
        let value = |name: &str| {
            verify::number(line, name)
                .ok_or_else(|| format!("the kernel did not say how many {name}"))
        };
        Ok(Row {
            instructions: value("instructions")?,
            doorbells: value("doorbells")?,
            devices: Devices {
                reads: value("reads")?,
                read_bytes: value("read_bytes")?,
                writes: value("writes")?,
                write_bytes: value("write_bytes")?,
                flushes: value("flushes")?,
                others: value("others")?,
                base_reads: value("base_reads")?,
                base_read_bytes: value("base_read_bytes")?,
            },
        })
    }

    fn expect(self, expected: &Devices) -> Result<Row, String> {
        if self.devices == *expected {
            return Ok(self);
        }
        let devices = &self.devices;
        Err(format!(
            "for {REQUESTS} requests the devices were asked\n{devices:?}, must be\n{expected:?}"
        ))
    }
}

impl Devices {
    /// What one request after the other on a bare disk comes to.
    fn of_bare(case: Case, batch: u64) -> Devices {
        let flushes = if case.flushes() { REQUESTS / batch } else { 0 };
        let bytes = REQUESTS * REQUEST_BYTES;
        if case.reads() {
            return Devices {
                reads: REQUESTS,
                read_bytes: bytes,
                ..Devices::default()
            };
        }
        Devices {
            writes: REQUESTS,
            write_bytes: bytes,
            flushes,
            ..Devices::default()
        }
    }

    /// What the image may add to that: one unit of the journal for each flush that has something to
    /// record, and the rest of each block that is copied.
    fn of_disk(case: Case, batch: u64, has_table: bool) -> Devices {
        let bare = Devices::of_bare(case, batch);
        let journaled = |devices: Devices| Devices {
            writes: devices.writes + devices.flushes,
            write_bytes: devices.write_bytes + devices.flushes * UNIT_BYTES,
            ..devices
        };
        match case {
            Case::BaseRead => Devices {
                reads: 0,
                read_bytes: 0,
                base_reads: bare.reads,
                base_read_bytes: bare.read_bytes,
                ..bare
            },
            Case::MappedRead | Case::MappedWrite | Case::FirstWrite => bare,
            Case::FirstWriteFlush if has_table => journaled(bare),
            // Beyond the base an image without a table has nothing to record.
            Case::FirstWriteFlush => bare,
            Case::CopyFlush => Devices {
                // Before the write and behind it.
                base_reads: 2 * REQUESTS,
                base_read_bytes: REQUESTS * (BLOCK_BYTES - REQUEST_BYTES),
                write_bytes: REQUESTS * BLOCK_BYTES + bare.flushes * UNIT_BYTES,
                // The copy is durable before the journal says that it is there.
                flushes: 2 * bare.flushes,
                ..journaled(bare)
            },
        }
    }
}

/// The lines for programs: sums of all requests.
pub(crate) fn json(lines: &[Line]) -> Value {
    let row = |row: &Row| {
        let devices = &row.devices;
        json!({
            "instructions": row.instructions,
            "reads": devices.reads,
            "read_bytes": devices.read_bytes,
            "writes": devices.writes,
            "write_bytes": devices.write_bytes,
            "flushes": devices.flushes,
            "base_reads": devices.base_reads,
            "base_read_bytes": devices.base_read_bytes,
            "doorbells": row.doorbells,
        })
    };
    lines
        .iter()
        .map(|line| {
            json!({
                "machine": line.machine,
                "table": line.table,
                "request": line.case.name(),
                "in_flight": line.batch,
                "requests": REQUESTS,
                "disk": row(&line.disk),
                "bare": row(&line.bare),
            })
        })
        .collect()
}

/// The lines for people: what one request takes.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = "| machine | table | request | in flight | disk | bare device | **fvd** | base \
                    reads | image reads | writes | bytes | flushes | doorbells |\n\
                    | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | \
                    ---: | ---: |\n"
        .to_owned();
    for line in lines {
        let (disk, bare) = (&line.disk, &line.bare);
        let instructions = [disk, bare].map(|row| rounded(row.instructions));
        let more = instructions[0] as i64 - instructions[1] as i64;
        let devices = &disk.devices;
        let bytes = devices.base_read_bytes + devices.read_bytes + devices.write_bytes;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | **{more}** | {} | {} | {} | {} | {} | {} |",
            line.machine,
            line.table,
            title(line.case),
            line.batch,
            instructions[0],
            instructions[1],
            each(devices.base_reads),
            each(devices.reads),
            each(devices.writes),
            rounded(bytes),
            each(devices.flushes),
            each(disk.doorbells),
        );
    }
    text
}

/// The name of a case for people.
const fn title(case: Case) -> &'static str {
    match case {
        Case::BaseRead => "read of the base",
        Case::MappedRead => "mapped read",
        Case::MappedWrite => "mapped write",
        Case::FirstWrite => "first write",
        Case::FirstWriteFlush => "first write + flush",
        Case::CopyFlush => "first write over the base + flush",
    }
}

fn rounded(sum: u64) -> u64 {
    (sum + REQUESTS / 2) / REQUESTS
}

/// What of `sum` one request has, in hundredths where it is not whole.
fn each(sum: u64) -> String {
    if sum.is_multiple_of(REQUESTS) {
        (sum / REQUESTS).to_string()
    } else {
        format!("{:.2}", sum as f64 / REQUESTS as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_write_and_its_flush_are_two_writes_and_one_sync() {
        let one = |case, batch, has_table| Devices::of_disk(case, batch, has_table);
        let first = one(Case::FirstWriteFlush, 1, true);
        let (writes, bytes) = (first.writes / REQUESTS, first.write_bytes / REQUESTS);
        assert_eq!((writes, bytes, first.flushes), (2, 8192, REQUESTS));
        let batch = one(Case::FirstWriteFlush, 32, true);
        assert_eq!(
            (batch.writes * 32 / REQUESTS, batch.flushes),
            (33, REQUESTS / 32)
        );
        assert_eq!(one(Case::MappedRead, 1, true).reads, REQUESTS);
        assert_eq!(one(Case::MappedWrite, 1, true).writes, REQUESTS);
    }

    #[test]
    fn an_operation_too_many_is_found() {
        let line = |reads| {
            format!(
                "{COUNTED} case=mapped-read on=disk batch=1 instructions=300000 reads={reads} \
                 read_bytes=1048576 writes=0 write_bytes=0 flushes=0 others=0 base_reads=0 \
                 base_read_bytes=0 doorbells=256"
            )
        };
        let judged = |reads| {
            let row = Row::find(&line(reads), Case::MappedRead, "disk", 1).expect("a row");
            row.expect(&Devices::of_disk(Case::MappedRead, 1, true))
        };
        assert!(judged(REQUESTS).is_ok());
        assert!(judged(REQUESTS + 1).is_err());
        assert!(Row::find(&line(REQUESTS), Case::MappedWrite, "disk", 1).is_err());
    }
}
