//! One open disk, whatever its stores are: opening, use, closing.

use core::ops::Range;
use std::io;

use fvd::blocking;
use fvd::check::{Extent, ExtentState, Finding, Usage};
use fvd::device::BlockDevice;
use fvd::format::Header;
use fvd::open::{OpenError, OpenFailure, OpenOptions, PROBE_ARENA_BYTES};
use fvd::repair::RepairError;
use fvd::stores::Stores;
use fvd::units::GuestOffset;
use fvd::{Disk, Stats};

use super::error::ImageError;
use super::stores::{DeviceCounts, HostStores};
use super::upkeep::Inspected;
use crate::arena::{HeapArena, Memory};
use crate::drive::Driver;
use crate::sparse::SparseDevice;

/// Bytes of data that one answer of `next_data` covers at least, where there are so many.
const DATA_RUN_BYTES: u64 = 16 << 20;

/// What an open disk can be asked, apart from being a device.
pub(super) trait Session: Send {
    fn device(&self) -> &dyn BlockDevice;
    fn device_mut(&mut self) -> &mut dyn BlockDevice;
    fn header(&self) -> &Header;
    fn stats(&self) -> Stats;
    fn device_counts(&self) -> DeviceCounts;
    fn memory_bytes(&self) -> usize;
    fn usage(&self) -> Usage;
    fn extent_at(&self, offset: u64) -> Option<Extent>;
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>>;
    /// Ends cleanly and frees the memory. Nothing may be in flight.
    fn close(self: Box<Self>, driver: &mut Driver) -> Result<(), ImageError>;
}

/// A disk and what can free the memory that it borrowed.
struct OpenDisk<S: Stores> {
    disk: Disk<HostStores<S>>,
    heap: HeapArena,
}

/// Opens the image on `stores`.
#[allow(clippy::result_large_err)] // whoever fails gives its devices back
pub(super) fn open<S: Stores + Send + 'static>(
    driver: &mut Driver,
    mut stores: HostStores<S>,
    options: OpenOptions,
) -> Result<Box<dyn Session>, ImageError> {
    driver.attach_stores(&mut stores);
    let (disk, heap) = with_memory(stores, |stores, memory| {
        blocking::open(stores, options, memory, driver.idle())
    })?;
    Ok(Box::new(OpenDisk { disk, heap }))
}

/// Looks at the image on `stores`, and tells `sink` of each finding. Nothing is written.
#[allow(clippy::result_large_err)] // as above
pub(super) fn inspect<S: Stores>(
    driver: &mut Driver,
    mut stores: HostStores<S>,
    options: OpenOptions,
    sink: &mut dyn FnMut(Finding),
) -> Result<Inspected, ImageError> {
    driver.attach_stores(&mut stores);
    let (mut inspection, heap) = with_memory(stores, |stores, memory| {
        blocking::inspect(stores, options, memory, driver.idle())
    })?;
    inspection.findings(sink);
    let inspected = Inspected {
        header: *inspection.header(),
        usage: inspection.usage(),
    };
    let (stores, memory) = inspection.finish();
    free(heap, memory);
    close_base(stores, driver)?;
    Ok(inspected)
}

/// Repairs the image on `stores`.
#[allow(clippy::result_large_err)] // as above
pub(super) fn repair<S: Stores>(
    driver: &mut Driver,
    mut stores: HostStores<S>,
    options: OpenOptions,
) -> Result<(), ImageError> {
    driver.attach_stores(&mut stores);
    let (repaired, heap) = with_memory(stores, |stores, memory| {
        let repaired = blocking::repair(stores, options, memory, driver.idle());
        match repaired.result {
            Err(RepairError::Open(error)) => Err(OpenFailure {
                stores: repaired.stores,
                memory: repaired.memory,
                error,
            }),
            _ => Ok(repaired),
        }
    })?;
    free(heap, repaired.memory);
    let below = close_base(repaired.stores, driver);
    repaired.result.map_err(ImageError::Repair).and(below)
}

/// Runs `open` with as much memory as the image takes. The first attempt reads the header and fails
/// for want of memory, which says how much that is.
fn with_memory<S, T>(
    mut stores: HostStores<S>,
    mut open: impl FnMut(HostStores<S>, Memory) -> Result<T, OpenFailure<HostStores<S>>>,
) -> Result<(T, HeapArena), ImageError> {
    let mut bytes = PROBE_ARENA_BYTES;
    loop {
        let (heap, memory) = allocate(bytes)?;
        match open(stores, memory) {
            Ok(opened) => return Ok((opened, heap)),
            Err(failure) => {
                free(heap, failure.memory);
                match failure.error {
                    OpenError::ArenaTooSmall { needed, given } if needed > given => {
                        stores = failure.stores;
                        bytes = needed.max(PROBE_ARENA_BYTES);
                    }
                    error => return Err(error.into()),
                }
            }
        }
    }
}

/// Ends the session of a base that is an image.
fn close_base<S>(stores: HostStores<S>, driver: &mut Driver) -> Result<(), ImageError> {
    let base = stores.into_base();
    base.map_or(Ok(()), |base| base.close(driver))
}

pub(super) fn allocate(bytes: usize) -> Result<(HeapArena, Memory), ImageError> {
    HeapArena::new(bytes).ok_or(ImageError::NoMemory(bytes))
}

/// Frees memory that came back. What a device kept stays leaked.
pub(super) fn free(heap: HeapArena, memory: Option<Memory>) {
    if let Some(memory) = memory {
        drop(heap.redeem(memory));
    }
}

impl<S: Stores + Send> Session for OpenDisk<S> {
    fn device(&self) -> &dyn BlockDevice {
        &self.disk
    }

    fn device_mut(&mut self) -> &mut dyn BlockDevice {
        &mut self.disk
    }

    fn header(&self) -> &Header {
        self.disk.header()
    }

    fn stats(&self) -> Stats {
        self.disk.stats()
    }

    fn device_counts(&self) -> DeviceCounts {
        self.disk.stores().counts()
    }

    fn memory_bytes(&self) -> usize {
        self.heap.bytes()
    }

    fn usage(&self) -> Usage {
        self.disk.usage()
    }

    fn extent_at(&self, offset: u64) -> Option<Extent> {
        self.disk.extent_at(GuestOffset(offset))
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let mut at = from;
        let mut data: Option<Range<u64>> = None;
        while let Some(extent) = self.extent_at(at) {
            let end = at.saturating_add(extent.bytes);
            let found = self.data_in(&extent, at)?;
            match (&mut data, found) {
                (None, found) => data = found,
                (Some(data), Some(found)) if found.start == data.end => data.end = found.end,
                (Some(_), _) => break,
            }
            match &data {
                Some(data) if data.end < end || data.end - data.start >= DATA_RUN_BYTES => break,
                _ => at = end,
            }
        }
        Ok(data)
    }

    fn close(self: Box<Self>, driver: &mut Driver) -> Result<(), ImageError> {
        let OpenDisk { mut disk, heap } = *self;
        let read_only = disk.geometry().read_only;
        driver.attach(&mut disk);
        // Completions that nobody took have lost their owner, so their memory stays leaked.
        let closed = blocking::close(disk, driver.idle(), drop);
        free(heap, closed.memory);
        let below = close_base(closed.stores, driver);
        // A session that wrote nothing has nothing to lose.
        let result = if read_only { Ok(()) } else { closed.result };
        result.map_err(ImageError::Device).and(below)
    }
}

impl<S: Stores> OpenDisk<S> {
    /// The first part of an extent that may hold something else than zeros, as guest offsets.
    fn data_in(&self, extent: &Extent, start: u64) -> io::Result<Option<Range<u64>>> {
        let end = start.saturating_add(extent.bytes);
        match (extent.state, self.disk.stores().base()) {
            (ExtentState::Zero, _) => Ok(None),
            // A base shows at the same offsets that it has itself.
            (ExtentState::Base { offset }, Some(base)) => {
                let data = base
                    .next_data(offset)?
                    .filter(|data| data.start - offset < end - start);
                Ok(data.map(|data| {
                    let first = start + (data.start - offset);
                    first..end.min(start.saturating_add(data.end - offset))
                }))
            }
            (ExtentState::Image { .. } | ExtentState::Base { .. } | ExtentState::Unreadable, _) => {
                Ok(Some(start..end))
            }
        }
    }
}
