//! What the disks of one simulation share.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::sector::{Sectors, SharedSectors};

/// What the disks of one simulation share.
#[derive(Clone)]
pub struct Bus {
    sectors: SharedSectors,
    serial: Rc<Cell<u32>>,
    trace: Rc<RefCell<Option<Vec<String>>>>,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus::new(&Sectors::shared())
    }
}

impl Bus {
    /// A bus for disks whose contents live in `sectors`.
    #[must_use]
    pub fn new(sectors: &SharedSectors) -> Bus {
        Bus {
            sectors: sectors.clone(),
            serial: Rc::new(Cell::new(0)),
            trace: Rc::new(RefCell::new(None)),
        }
    }

    /// A bus of its own that shares contents and trace, for another set of disks.
    #[must_use]
    pub fn sibling(&self) -> Bus {
        Bus {
            sectors: self.sectors.clone(),
            serial: Rc::new(Cell::new(0)),
            trace: self.trace.clone(),
        }
    }

    /// The contents of all disks.
    #[must_use]
    pub fn sectors(&self) -> &SharedSectors {
        &self.sectors
    }

    /// Operations submitted so far, to all disks.
    #[must_use]
    pub fn submitted(&self) -> u32 {
        self.serial.get()
    }

    /// Starts to record a line per event.
    pub fn start_trace(&self) {
        *self.trace.borrow_mut() = Some(Vec::new());
    }

    /// Adds a line to the trace, if one is being recorded.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut *self.trace.borrow_mut() {
            lines.push(line());
        }
    }

    /// Ends the recording, and returns its lines.
    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        self.trace.borrow_mut().take().unwrap_or_default()
    }

    pub(in crate::disk) fn next_serial(&self) -> u32 {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        serial
    }
}
