//! A clock that only runs: nanoseconds since [`init`], from the CPU's time stamp counter.
//!
//! The counter's frequency is measured once against the timer of the local APIC, which counts
//! nanoseconds in QEMU and in KVM and is there on every machine, also on `microvm` without its
//! other timers. Elsewhere the unit of [`now`] would be off by a constant factor, but time would
//! still not run backwards.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

const APIC: usize = 0xfee0_0000;
const APIC_TIMER_VECTOR: usize = APIC + 0x320;
const APIC_TIMER_INITIAL: usize = APIC + 0x380;
const APIC_TIMER_CURRENT: usize = APIC + 0x390;
const APIC_TIMER_DIVIDE: usize = APIC + 0x3e0;
/// No interrupt, count down once.
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

/// Long enough that reading the registers does not matter, short enough not to be seen in a boot.
const CALIBRATION_NS: u32 = 2_000_000;

static START_TICKS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds in a tick, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);

/// Starts the clock at zero.
pub(crate) fn init() {
    write_apic(APIC_TIMER_VECTOR, MASKED);
    write_apic(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    write_apic(APIC_TIMER_INITIAL, u32::MAX);
    let start = ticks();
    let apic_start = read_apic(APIC_TIMER_CURRENT);
    let elapsed_ns = loop {
        let elapsed_ns = apic_start.wrapping_sub(read_apic(APIC_TIMER_CURRENT));
        if elapsed_ns >= CALIBRATION_NS {
            break elapsed_ns;
        }
    };
    let elapsed_ticks = (ticks() - start).max(1);
    write_apic(APIC_TIMER_INITIAL, 0);

    START_TICKS.store(start, Ordering::Relaxed);
    NS_PER_TICK.store(
        (u64::from(elapsed_ns) << 32) / elapsed_ticks,
        Ordering::Relaxed,
    );
}

/// The time since [`init`].
pub(crate) fn now() -> Duration {
    let elapsed_ticks = ticks().saturating_sub(START_TICKS.load(Ordering::Relaxed));
    let ns = (u128::from(elapsed_ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed))) >> 32;
    Duration::from_nanos(ns as u64)
}

fn ticks() -> u64 {
    // SAFETY: every x86_64 CPU has the counter, and reading it has no effect.
    unsafe { _rdtsc() }
}

fn read_apic(register: usize) -> u32 {
    // SAFETY: the local APIC is at its reset address (nothing here moves it), identity mapped, and
    // the registers above are aligned words that may be read at any time.
    unsafe { (register as *const u32).read_volatile() }
}

fn write_apic(register: usize, value: u32) {
    // SAFETY: as in `read_apic`; the timer registers only drive the timer, whose interrupt is
    // masked.
    unsafe { (register as *mut u32).write_volatile(value) };
}
