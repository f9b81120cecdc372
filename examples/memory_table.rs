//! Prints the tables of docs/MEMORY.md: what disks of several sizes take, part by part.
//!
//! `cargo run --example memory_table`

use core::mem::MaybeUninit;

use fvd::buffer::{ARENA_ALIGN, Op};
use fvd::device::{BlockDevice, Geometry, Growth, Ram, When};
use fvd::format::{BaseParams, CreateParams, FormatName, ImageId, Name, SLOT_BYTES, plan_layout};
use fvd::open::{MemoryParts, OpenOptions, PROBE_ARENA_BYTES, Probe};
use fvd::stores::{One, Stores, WithBase};
use fvd::units::Instant;

/// As little as still takes requests of every legal size.
const SMALLEST: OpenOptions = OpenOptions {
    queue_depth: 1,
    part_ops: 4,
    pending_max: 66,
    scratch_blocks: 2,
    zero_memory_bytes: 4096,
    ..OpenOptions::DEFAULT
};

/// A device of any size of which only the first bytes exist: opening begins with the header.
struct Beginning {
    ram: Ram,
    bytes: u64,
}

impl BlockDevice for Beginning {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: self.bytes,
            growth: Some(Growth {
                unit_bytes: 1 << 20,
                max_bytes: 1 << 62,
                zeroed: true,
            }),
            ..self.ram.geometry()
        }
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.ram.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.ram.poll(now)
    }

    fn poll_at(&self) -> When {
        self.ram.poll_at()
    }
}

fn beginning(bytes: u64) -> Beginning {
    let ram = Ram::new(vec![0; 2 * SLOT_BYTES].leak());
    Beginning { ram, bytes }
}

/// The device of a new image in a growing file.
fn image(virtual_bytes: u64, table: bool, base: bool) -> Beginning {
    let base = base.then_some(BaseParams {
        name: Name::EMPTY,
        format: FormatName::EMPTY,
        bytes: virtual_bytes,
        id: [0; 16],
        generation: 0,
    });
    let params = CreateParams {
        table,
        base,
        ..CreateParams::new(virtual_bytes, ImageId(*b"made at random!!"))
    };
    let header = plan_layout(&params).expect("a legal image");
    let mut slot = [0; SLOT_BYTES];
    header.encode(&mut slot).expect("a legal header");
    let first = [slot, [0; SLOT_BYTES]].concat();
    Beginning {
        ram: Ram::new(first.leak()),
        bytes: header.store_bytes,
    }
}

fn probe<S: Stores>(stores: S, options: OpenOptions) -> MemoryParts {
    let block = vec![MaybeUninit::uninit(); PROBE_ARENA_BYTES + ARENA_ALIGN].leak();
    let skip = block.as_ptr().align_offset(ARENA_ALIGN);
    let memory = &mut block[skip..skip + PROBE_ARENA_BYTES];
    let mut probe = Probe::new(stores, memory, options);
    while probe.poll(Instant::ZERO).is_pending() {}
    match probe.finish() {
        Ok(probed) => probed.layout.memory(),
        Err(failure) => panic!("{}", failure.error),
    }
}

fn memory(virtual_bytes: u64, table: bool, base: bool, options: OpenOptions) -> MemoryParts {
    let store = One(image(virtual_bytes, table, base));
    if base {
        probe(WithBase::new(store, beginning(virtual_bytes)), options)
    } else {
        probe(store, options)
    }
}

/// 1234567 -> "1,234,567".
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

fn parts_table(options: OpenOptions) -> String {
    let mut text = String::from(
        "| disk | table | base | table | bitmap | checksums | free map | pending | staging | slots \
         | ops | **total** |\n| --- | --- | --- |",
    );
    text += &" ---: |".repeat(9);
    text.push('\n');
    for (name, bytes) in [
        ("1 GiB", 1u64 << 30),
        ("16 GiB", 16 << 30),
        ("1 TiB", 1 << 40),
        ("16 TiB", 16 << 40),
    ] {
        for (table, base) in [(false, false), (false, true), (true, false), (true, true)] {
            let parts = memory(bytes, table, base, options);
            let answer = |yes| if yes { "yes" } else { "no" };
            text += &format!("| {name} | {} | {} |", answer(table), answer(base));
            for bytes in [
                parts.table,
                parts.bitmap,
                parts.checksums,
                parts.free_map,
                parts.pending,
                parts.staging,
                parts.slots,
                parts.ops,
            ] {
                text += &format!(" {} |", grouped(bytes));
            }
            text += &format!(" **{}** |\n", grouped(parts.total()));
        }
    }
    text
}

/// What one more of each option costs, taken over 1024 more so that rounding does not show.
fn prices_table() -> String {
    const MORE: u16 = 1024;
    let few = OpenOptions {
        pending_max: 1024,
        ..SMALLEST
    };
    let total = |options| memory(16 << 40, true, true, options).total();
    let price = |options| grouped((total(options) - total(few)) / usize::from(MORE));
    let mut text = String::from("| option | bytes for each |\n| --- | ---: |\n");
    for (name, options) in [
        (
            "`queue_depth`",
            OpenOptions {
                queue_depth: few.queue_depth + MORE,
                ..few
            },
        ),
        (
            "`part_ops`",
            OpenOptions {
                part_ops: few.part_ops + MORE,
                ..few
            },
        ),
        (
            "`pending_max`",
            OpenOptions {
                pending_max: few.pending_max + MORE,
                ..few
            },
        ),
        (
            "`scratch_blocks`, 64 KiB each",
            OpenOptions {
                scratch_blocks: few.scratch_blocks + MORE,
                ..few
            },
        ),
    ] {
        text += &format!("| {name} | {} |\n", price(options));
    }
    text
}

/// Everything that docs/MEMORY.md quotes, by heading.
pub(crate) fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("Default options", parts_table(OpenOptions::DEFAULT)),
        ("Smallest options", parts_table(SMALLEST)),
        ("Prices", prices_table()),
    ]
}

fn main() {
    for (heading, table) in tables() {
        println!("## {heading}\n\n{table}");
    }
}
