//! The engine's tables and memory on their own; requests as a whole are tested through disks.

extern crate std;

mod sets;
mod slots;
mod staging;
