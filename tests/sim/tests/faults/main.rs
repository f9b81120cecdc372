//! Devices that fail: each operation of each phase in turn, and every promise of the fault table in
//! docs/TESTING.md that belongs to a device.

mod creating;
mod killed;
mod named;
mod opening;
mod phases;
mod rig;
