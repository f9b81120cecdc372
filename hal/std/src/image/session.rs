//! One open disk, whatever its stores are: opening, use, closing.

use core::ops::Range;
use core::task::Poll;
use std::io;

use fvd::check::{Extent, ExtentState, Usage};
use fvd::device::BlockDevice;
use fvd::format::Header;
use fvd::open::{OpenOptions, Opening, PROBE_ARENA_BYTES, Probe};
use fvd::stores::Stores;
use fvd::units::GuestOffset;
use fvd::{Disk, Stats};

use super::error::ImageError;
use super::stores::HostStores;
use crate::arena::{HeapArena, Memory};
use crate::drive::{Driver, Step};
use crate::sparse::SparseDevice;

/// Bytes of data that one answer of `next_data` covers at least, where there are so many.
const DATA_RUN_BYTES: u64 = 16 << 20;

/// What an open disk can be asked, apart from being a device.
pub(super) trait Session: Send {
    fn device(&self) -> &dyn BlockDevice;
    fn device_mut(&mut self) -> &mut dyn BlockDevice;
    fn header(&self) -> &Header;
    fn stats(&self) -> Stats;
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
pub(super) fn open<S: Stores + Send + 'static>(
    driver: &mut Driver,
    mut stores: HostStores<S>,
    options: OpenOptions,
) -> Result<Box<dyn Session>, ImageError> {
    driver.attach_stores(&mut stores);
    let (heap, memory) = allocate(PROBE_ARENA_BYTES)?;
    let mut probe = Probe::new(stores, memory, options);
    driver.run(|now| match probe.poll(now) {
        Poll::Ready(()) => Step::Done(()),
        Poll::Pending => Step::Wait(probe.poll_at()),
    });
    let (stores, layout) = match probe.finish() {
        Ok(probed) => {
            free(heap, probed.memory);
            (probed.stores, probed.layout)
        }
        Err(failure) => {
            free(heap, failure.memory);
            return Err(failure.error.into());
        }
    };
    let (heap, memory) = allocate(layout.arena_bytes())?;
    let mut opening = Opening::new(stores, layout, memory);
    driver.run(|now| match opening.poll(now) {
        Poll::Ready(()) => Step::Done(()),
        Poll::Pending => Step::Wait(opening.poll_at()),
    });
    match opening.finish() {
        Ok(disk) => Ok(Box::new(OpenDisk { disk, heap })),
        Err(failure) => {
            free(heap, failure.memory);
            Err(failure.error.into())
        }
    }
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
        let mut closing = disk.close();
        let closed = loop {
            driver.run(|now| match closing.poll(now) {
                Poll::Ready(()) => Step::Done(()),
                Poll::Pending => Step::Wait(closing.poll_at()),
            });
            // Completions that nobody took: their owner is gone, so their memory stays leaked.
            while closing.reap().is_some() {}
            match closing.finish() {
                Ok(closed) => break closed,
                Err(unfinished) => closing = unfinished,
            }
        };
        free(heap, closed.memory);
        let below = closed
            .stores
            .into_base()
            .map_or(Ok(()), |base| base.close(driver));
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
