//! Turns a CPU exception into a message and a failed run. Without it any wild access resets the
//! machine in silence.
//!
//! A stack overflow is not caught: there is no guard page. The stack has 1 MiB (boot.s).

use super::exit::{Exit, exit};
use core::arch::asm;

const VECTOR_COUNT: usize = 32;
/// boot.s places the stubs this far apart.
const STUB_BYTES: usize = 16;
const CODE_SELECTOR: u16 = 0x08;
/// Present, privilege level 0, 64-bit interrupt gate.
const INTERRUPT_GATE: u8 = 0x8e;
const PAGE_FAULT: u64 = 14;

/// A gate of the interrupt descriptor table (Intel SDM volume 3, 7.14.1).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack_table: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const EMPTY: Gate = Gate {
    offset_low: 0,
    selector: 0,
    stack_table: 0,
    kind: 0,
    offset_middle: 0,
    offset_high: 0,
    reserved: 0,
};

static TABLE: spin::Mutex<[Gate; VECTOR_COUNT]> = spin::Mutex::new([EMPTY; VECTOR_COUNT]);

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// What the CPU and the stubs in boot.s push, lowest address first.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

unsafe extern "C" {
    safe static exception_stubs: u8;
}

/// Installs the handlers.
pub(crate) fn init() {
    let stubs = &raw const exception_stubs as usize;
    let mut table = TABLE.lock();
    for (vector, gate) in table.iter_mut().enumerate() {
        let offset = stubs + vector * STUB_BYTES;
        *gate = Gate {
            offset_low: offset as u16,
            selector: CODE_SELECTOR,
            kind: INTERRUPT_GATE,
            offset_middle: (offset >> 16) as u16,
            offset_high: (offset >> 32) as u32,
            ..EMPTY
        };
    }
    let pointer = TablePointer {
        limit: (size_of_val(&*table) - 1) as u16,
        base: table.as_ptr() as u64,
    };
    // SAFETY:
    // 1. `pointer` describes the whole table, which is static and not written again: `init` is its
    //    only user.
    // 2. Each gate leads to a stub that never returns, so no interrupted code can see its registers
    //    changed.
    unsafe {
        asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags))
    };
}

// SAFETY: the name is this program's own; only boot.s refers to it.
#[unsafe(no_mangle)]
extern "C" fn exception_handler(frame: &Frame) -> ! {
    println!(
        "\nCPU exception {} (error code {:#x}) at {:#x}, stack {:#x}",
        frame.vector, frame.error_code, frame.rip, frame.rsp
    );
    if frame.vector == PAGE_FAULT {
        println!("page fault at address {:#x}", fault_address());
    }
    exit(Exit::Failure)
}

fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
