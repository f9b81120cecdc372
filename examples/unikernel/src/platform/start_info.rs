//! What the loader says about the machine: Xen's "HVM start info", as the PVH boot protocol hands
//! it over.

use core::ffi::CStr;
use core::ptr;
use core::slice;

const MAGIC: u32 = 0x336e_c578;
/// From this version on there is a memory map.
const VERSION_WITH_MEMORY_MAP: u32 = 1;
/// [`MemoryRange::kind`] of memory that nothing else uses.
pub(super) const KIND_RAM: u32 = 1;

/// `struct hvm_start_info`. All addresses are physical, and 0 if there is nothing.
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    cmdline: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_count: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`, with the E820 numbers as `kind`.
#[repr(C)]
pub(super) struct MemoryRange {
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) kind: u32,
    reserved: u32,
}

static CMDLINE: spin::Mutex<&'static str> = spin::Mutex::new("");

/// The kernel's command line; empty if there is none or if it is not UTF-8.
///
/// It holds what was given with QEMU's `-append`, and on `microvm` also the disks (mmio.rs).
pub(crate) fn cmdline() -> &'static str {
    *CMDLINE.lock()
}

/// The values of all words `name=value` of the command line, in order.
pub(crate) fn options(name: &str) -> impl Iterator<Item = &'static str> {
    cmdline()
        .split_ascii_whitespace()
        .filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
}

impl StartInfo {
    /// The memory map; empty if the loader gave none.
    pub(super) fn memory_map(&self) -> &'static [MemoryRange] {
        let map = ptr::with_exposed_provenance::<MemoryRange>(self.memory_map as usize);
        if self.version < VERSION_WITH_MEMORY_MAP || map.is_null() {
            return &[];
        }
        // SAFETY: only `init` makes a `StartInfo`, from a loader that keeps to the protocol: so
        // many entries at this address, which is mapped. `memory::init` gives out no memory that
        // the tables are in, so nobody writes there.
        unsafe { slice::from_raw_parts(map, self.memory_map_count as usize) }
    }

    /// The lowest address from `start` on where the loader left something that must stay: this
    /// information, the command line or a table. What it was told to load beside the kernel does
    /// not count, as nothing looks at it.
    pub(super) fn first_use_above(&self, start: u64) -> Option<u64> {
        let own = ptr::from_ref(self).expose_provenance() as u64;
        [own, self.cmdline, self.memory_map, self.modules, self.rsdp]
            .into_iter()
            .filter(|address| *address >= start)
            .min()
    }
}

/// Checks the start information and keeps the command line.
///
/// # Panics
///
/// If there is none: then the kernel was not started through its PVH entry.
///
/// # Safety
///
/// `start` is null or points to at least a 32-bit word and, if that is the magic number, to the
/// start information of a loader that keeps to the protocol. Nobody writes to it, or to what it
/// points to, ever after.
pub(super) unsafe fn init(start: *const StartInfo) -> &'static StartInfo {
    assert!(
        !start.is_null() && start.is_aligned(),
        "no start information: boot the kernel by PVH"
    );
    // SAFETY: readable as a word (caller).
    let magic = unsafe { start.cast::<u32>().read() };
    assert_eq!(magic, MAGIC, "not PVH start information");
    // SAFETY: the magic number says that all of it is there, and it is never written (caller).
    let info = unsafe { &*start };

    let text = ptr::with_exposed_provenance(info.cmdline as usize);
    if info.cmdline != 0 {
        // SAFETY: the protocol promises a NUL-terminated string, which nobody writes to (caller).
        let text = unsafe { CStr::from_ptr(text) };
        *CMDLINE.lock() = text.to_str().unwrap_or_default();
    }
    info
}
