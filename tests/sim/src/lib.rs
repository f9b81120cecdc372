//! A simulated disk that loses power, and an oracle that knows what a guest may see afterwards.
//!
//! The crate looks for broken promises of a block layer: it runs short workloads in every order of
//! completion, stops at every moment at which a power loss could matter, builds **every** image that
//! the power-loss contract of [`fvd::device`] allows there, lets the layer recover from each, and
//! compares what the guest reads with what it may read. Each failure is one line of text that
//! replays it.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`sector`] | contents of sectors, each stored once, so that forks are cheap |
//! | [`medium`] | what a device holds and what of it may survive |
//! | [`disk`] | [`SimDisk`](disk::SimDisk), the device double |
//! | [`crash`] | all states that a power loss may leave, tears included |
//! | [`stamp`], [`oracle`] | what the guest writes, and what it may read |
//! | [`choices`] | every free decision, recorded |
//! | [`workload`], [`case`] | what to run, as values and as one line of text |
//! | [`engine`] | what can be put under test |
//! | [`session`], [`explore`], [`memory`] | running it, walking through all runs, and knowing what was seen |
//! | [`driver`] | `fvd` itself as the engine under test |
//! | [`opinion`] | what two checkers say of an image, who must agree |
//! | [`middleware`] | a layer of yours, alone or below `fvd` |
//! | [`shrink`] | the shortest line that still fails |
//! | [`hunt`], [`campaign`] | the searches that are always the same: for known bugs, and for all of it |
//!
//! # Your own middleware
//!
//! A [`BlockDevice`](fvd::device::BlockDevice) that stands on another one needs one function,
//! [`middleware::Middleware::over`]; the example `middleware` shows a layer with a bug that is hard to
//! see, and the run that loses a write by it. Anything else that turns simulated disks into a disk
//! can be tested too: implement [`engine::Engine`] (open, submit, poll, close) and call
//! [`explore::Explorer::run`]. `tests/toys` has two small engines, a correct one among them, and the
//! same with known bugs.

pub mod campaign;
pub mod case;
pub mod choices;
pub mod client;
pub mod crash;
pub mod disk;
pub mod driver;
pub mod engine;
pub mod explore;
pub mod hunt;
pub mod medium;
pub mod memory;
pub mod middleware;
pub mod opinion;
pub mod oracle;
pub mod sector;
pub mod session;
pub mod shrink;
pub mod stamp;
pub mod workload;
