//! A middleware of yours under test: alone, or with `fvd` on top of it.
//!
//! Implement [`Middleware`] (one function) for a [`BlockDevice`] that stands on another one. Then
//! [`Alone`] searches it as the disk of a guest, and [`Under`] as the store of an `fvd` image, where
//! a promise that the middleware breaks turns up as data that `fvd` loses. The example `middleware`
//! does both for a layer that leaves out needless flushes.

use core::marker::PhantomData;

use fvd::buffer::{Arena, Head, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpKind, Status, When};
use fvd::units::Instant;

use crate::disk::SimDisk;
use crate::driver::FvdOn;
use crate::engine::{Devices, Engine, Event, Plan, arena_memory};
use crate::sector::SECTOR;
use crate::workload::Setup;

/// A layer of yours.
pub trait Middleware: 'static {
    /// The layer on a simulated disk.
    type Device: BlockDevice;

    /// Puts the layer on a disk that may hold data from earlier sessions.
    fn over(disk: SimDisk) -> Self::Device;
}

/// No layer at all.
pub struct Direct;

impl Middleware for Direct {
    type Device = SimDisk;

    fn over(disk: SimDisk) -> SimDisk {
        disk
    }
}

/// `fvd` with its image on the layer.
pub type Under<M> = FvdOn<M>;

/// Tag of the flush with which a session ends; guests count theirs from 0.
const CLOSE_TAG: u64 = u64::MAX;

/// The layer as the disk of a guest, byte for byte at its place.
pub struct Alone<M: Middleware> {
    device: Option<M::Device>,
    opened: bool,
    /// The op of the last flush, before and after use.
    pool: OpPool,
    layer: PhantomData<M>,
}

impl<M: Middleware> Engine for Alone<M> {
    fn plan(setup: &Setup) -> Option<Plan> {
        let plain = setup.base_sectors == 0 && setup.two_devices == 0;
        plain.then(|| Plan {
            metadata_bytes: u64::from(setup.guest_sectors) * SECTOR as u64,
            ..Plan::default()
        })
    }

    fn new(_: &Setup) -> Alone<M> {
        let memory = arena_memory(OpPool::arena_bytes(1));
        let pool = Arena::new(memory)
            .ok()
            .and_then(|mut arena| OpPool::carve(&mut arena, 1));
        Alone {
            device: None,
            opened: false,
            pool: pool.expect("the memory was measured"),
            layer: PhantomData,
        }
    }

    fn format(&mut self, _: &Devices) -> Result<(), String> {
        Ok(())
    }

    fn open(&mut self, devices: &Devices) {
        self.device = Some(M::over(devices.metadata.clone()));
        self.opened = true;
    }

    fn geometry(&self) -> Geometry {
        let geometry = self.device.as_ref().map(BlockDevice::geometry);
        geometry.unwrap_or(Geometry::basic(0))
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        match &mut self.device {
            Some(device) => device.submit(op),
            None => Err(op),
        }
    }

    fn poll(&mut self, now: Instant) -> Event {
        if core::mem::take(&mut self.opened) {
            return Event::Opened;
        }
        let Some(device) = &mut self.device else {
            return Event::Idle;
        };
        device.notify();
        match device.poll(now) {
            Some(op) if op.tag() == CLOSE_TAG => {
                let status = op.status();
                self.device = None;
                // It carries nothing, so its pool takes it.
                let _ = self.pool.put(op);
                match status {
                    Status::Done => Event::Closed,
                    other => Event::Failed(format!("the last flush: {other:?}")),
                }
            }
            Some(op) => Event::Completed(op),
            None => Event::Idle,
        }
    }

    fn poll_at(&self) -> When {
        self.device
            .as_ref()
            .map_or(When::Event, BlockDevice::poll_at)
    }

    fn close(&mut self) {
        let op = self
            .pool
            .take(Head::new(OpKind::Flush, 0, 0).with_tag(CLOSE_TAG));
        if let Some(op) = op
            && let Err(op) = self.submit(op)
        {
            let refused = op.status() == Status::Failed(DeviceError::Busy);
            assert!(!refused, "an idle device has no room for a flush");
            let _ = self.pool.put(op);
        }
    }

    fn abandon(&mut self, home: &mut dyn FnMut(Op)) {
        let Some(mut device) = self.device.take() else {
            return;
        };
        while let Some(op) = device.poll(Instant::ZERO) {
            if op.tag() == CLOSE_TAG {
                let _ = self.pool.put(op);
            } else {
                home(op);
            }
        }
    }
}
