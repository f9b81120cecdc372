//! Counts instructions, on a machine that lets one nanosecond pass with each (QEMU with `-icount
//! shift=0`): there the time stamp counter, which ticks with nanoseconds, is a counter of
//! instructions. [`Counter::new`] makes sure of that by loops whose length is known.

use core::arch::asm;

/// Counts what is done inside [`Counter::count`].
pub(crate) struct Counter {
    /// What two readings are apart if nothing is between them.
    reading: u64,
    sum: u64,
}

impl Counter {
    /// A counter at 0.
    ///
    /// # Panics
    ///
    /// If the machine does not tick once for each instruction.
    pub(crate) fn new() -> Counter {
        let reading = ticks_of(|| {});
        let mut turns = 1;
        while turns < 1 << 20 {
            let more = ticks_of_loop(2 * turns).wrapping_sub(ticks_of_loop(turns));
            assert!(
                more == turns * INSTRUCTIONS_PER_TURN && ticks_of(|| {}) == reading,
                "{turns} more turns of a loop took {more} ticks: boot me with -icount shift=0"
            );
            turns *= 4;
        }
        Counter { reading, sum: 0 }
    }

    /// Counts the instructions of `work`.
    pub(crate) fn count<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = ticks();
        let result = work();
        self.sum += ticks() - start - self.reading;
        result
    }

    /// Instructions since the last call.
    pub(crate) fn take(&mut self) -> u64 {
        core::mem::take(&mut self.sum)
    }
}

fn ticks_of(work: impl FnOnce()) -> u64 {
    let start = ticks();
    work();
    ticks() - start
}

/// The time stamp counter. Unlike the intrinsic it is not moved past memory accesses.
fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every x86_64 CPU has the counter, and reading it has no effect.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

const INSTRUCTIONS_PER_TURN: u64 = 2;

/// Not inlined: whatever `turns` is, the code around the loop must be the same.
#[inline(never)]
fn ticks_of_loop(turns: u64) -> u64 {
    let start = ticks();
    // SAFETY: counts a register down; `turns` is not 0 (only `Counter::new` calls).
    unsafe {
        asm!("2:", "dec {turns}", "jnz 2b", turns = inout(reg) turns => _, options(nostack, nomem))
    };
    ticks() - start
}
