//! A table before it is measured: data, and what kind of measurement fills it.

use super::args::BenchArgs;
use super::arm::{Arm, Format, Front, NO_TABLE, QEMU_RAW, RAW, RAW_JOURNAL, TABLE};
use super::client::Client;
use super::{files, fragments, latency, local, workload};

pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) what: What,
    pub(super) reference: Arm,
    pub(super) arms: &'static [Arm],
    pub(super) bars: &'static [Bar],
}

/// What is measured.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// Through NBD: what the client finds, and what it does.
    Nbd(Disk, Client),
    /// By this process or a crate, without a server.
    Local(local::Load),
    /// In a file system.
    Files(files::Load),
    /// How long reads take while something else goes on.
    Latency,
    Fragments,
}

/// What the client finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// A new disk for each measurement.
    Fresh,
    /// A new overlay on a base full of data for each measurement.
    FreshOverlay,
    /// A disk whose first part is written already.
    Written,
    /// An overlay that nothing was written to.
    Overlay,
    /// As `Written`, in memory: what is measured is the server.
    Memory,
}

/// What an arm should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) arm: &'static str,
    /// The arm to compare with; the reference if there is no such arm.
    pub(super) of: &'static str,
    pub(super) goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// At least this ratio.
    Ratio(f64),
    /// No difference to be seen beyond A/A.
    Level,
}

pub(super) const fn bar(arm: Arm, of: Arm, goal: Goal) -> Bar {
    Bar {
        arm: arm.name,
        of: of.name,
        goal,
    }
}

/// With a table and without one.
pub(super) const fn both(goal: Goal) -> [Bar; 2] {
    [bar(TABLE, RAW, goal), bar(NO_TABLE, RAW, goal)]
}

const fn flushed(of_raw: f64) -> [Bar; 4] {
    let [table, no_table] = both(Goal::Ratio(of_raw));
    let of_journal = Goal::Ratio(0.97);
    [
        bar(TABLE, RAW_JOURNAL, of_journal),
        table,
        bar(NO_TABLE, RAW_JOURNAL, of_journal),
        no_table,
    ]
}

pub(super) const BARS_100: &[Bar] = &both(Goal::Ratio(1.0));
pub(super) const BARS_097: &[Bar] = &both(Goal::Ratio(0.97));
pub(super) const BARS_095: &[Bar] = &both(Goal::Ratio(0.95));
pub(super) const BARS_090: &[Bar] = &both(Goal::Ratio(0.90));
pub(super) const BARS_FLUSH_EACH: &[Bar] = &flushed(0.88);
pub(super) const BARS_FLUSH_32: &[Bar] = &flushed(0.96);
pub(super) const BARS_LEVEL: &[Bar] = &both(Goal::Level);

/// All tables, in the order in which they are told.
pub(super) fn all() -> Vec<Plan> {
    let mut all = workload::plans();
    all.extend(local::PLANS);
    all.extend(files::PLANS);
    all.push(latency::PLAN);
    all.push(fragments::PLAN);
    all
}

impl Plan {
    /// Names and titles of its tables: most measurements fill one.
    pub(super) fn captions(&self) -> Vec<(String, String)> {
        let values: &[(&str, &str)] = match self.what {
            What::Latency => &latency::VALUES,
            _ => &[("", "")],
        };
        let caption = |(name, title): &(&str, &str)| {
            (
                format!("{}{name}", self.name),
                format!("{}{title}", self.title),
            )
        };
        values.iter().map(caption).collect()
    }

    /// Why an arm can not be measured here.
    pub(super) fn missing(&self, args: &BenchArgs, arm: &Arm) -> Option<String> {
        arm.missing().or_else(|| match self.what {
            What::Nbd(_, client) => client.missing(),
            What::Local(_) => local::missing(args, arm),
            What::Files(load) => load.missing(arm),
            What::Latency | What::Fragments => None,
        })
    }

    /// The arm beside the reference that `arm` is compared with.
    pub(super) fn beside(&self, arm: &Arm) -> Option<&'static str> {
        match self.what {
            What::Nbd(..) => {
                let is_format = arm.format != Format::Raw;
                (arm.front == Front::Qemu && is_format).then_some(QEMU_RAW.name)
            }
            What::Latency => latency::under_load(arm).map(|arm| arm.name),
            _ => None,
        }
    }

    /// What that comparison is called.
    pub(super) fn beside_title(&self) -> &'static str {
        match self.what {
            What::Latency => "to itself under load",
            _ => "to raw of its server",
        }
    }
}
