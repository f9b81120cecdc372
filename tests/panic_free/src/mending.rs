//! Looking at damaged images, and mending them.

use core::fmt::{Display, Formatter, Result as Shown};
use core::mem::MaybeUninit;
use core::task::Poll;

use fvd::check::{Finding, Inspection, Place, Problem, Severity, Usage};
use fvd::device::When;
use fvd::format::{FormatError, Header, SlotIndex, bitmap, slot_faults};
use fvd::open::{Layout, OpenFailure, OpenOptions, Probe};
use fvd::repair::{Repair, RepairError, Repaired};
use fvd::stores::One;
use fvd::units::Instant;

use crate::Unknown;

type Stores = One<Unknown>;
type Memory = &'static mut [MaybeUninit<u8>];
type Idle = fn(When) -> Instant;
type Inspected = Result<Inspection<Stores>, OpenFailure<Stores>>;

fn inspect(stores: Stores, options: OpenOptions, memory: Memory, idle: Idle) -> Inspected {
    fvd::blocking::inspect(stores, options, memory, idle)
}

fn repair(stores: Stores, options: OpenOptions, memory: Memory, idle: Idle) -> Repaired<Stores> {
    fvd::blocking::repair(stores, options, memory, idle)
}

fn findings(inspection: &mut Inspection<Stores>, sink: &mut dyn FnMut(Finding)) {
    inspection.findings(sink);
}

keep! {
    fn(Stores, OpenOptions, Memory, Idle) -> Inspected = inspect;
    fn(&Inspection<Stores>) -> &Header = Inspection::header;
    fn(&Inspection<Stores>) -> Usage = Inspection::usage;
    fn(&mut Inspection<Stores>, &mut dyn FnMut(Finding)) = findings;
    fn(Inspection<Stores>) -> (Stores, Option<Memory>) = Inspection::finish;

    fn(Stores, OpenOptions, Memory, Idle) -> Repaired<Stores> = repair;
    fn(Stores, Memory, OpenOptions) -> Probe<Stores> = Probe::for_repair;
    fn(Stores, Layout, Memory) -> Repair<Stores> = Repair::new;
    fn(&mut Repair<Stores>, Instant) -> Poll<()> = Repair::poll;
    fn(&Repair<Stores>) -> When = Repair::poll_at;
    fn(Repair<Stores>) -> Result<Repaired<Stores>, Repair<Stores>> = Repair::finish;

    fn(&[u8], &[u8]) -> [Option<FormatError>; 2] = slot_faults;
    fn(&mut [u8], u64) = bitmap::clear_tail;
    fn(Option<SlotIndex>, FormatError) -> Finding = Finding::of_header;
    fn(Severity) -> &'static str = Severity::name;
    fn(Problem) -> &'static str = Problem::name;
    fn(&Place, &mut Formatter<'_>) -> Shown = <Place as Display>::fmt;
    fn(&Finding, &mut Formatter<'_>) -> Shown = <Finding as Display>::fmt;
    fn(&RepairError, &mut Formatter<'_>) -> Shown = <RepairError as Display>::fmt;
}
