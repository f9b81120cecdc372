//! Power fails while an image is made: it is refused, or it is whole and new (F26).

use core::cell::RefCell;
use core::ops::ControlFlow;
use core::task::Waker;
use std::collections::HashSet;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, When};
use fvd::units::Instant;
use fvd_sim::crash::{Bound, Space, Tear};
use fvd_sim::disk::{Bus, Schedule, SimDisk};
use fvd_sim::driver::Fvd;
use fvd_sim::engine::{Devices, Engine};
use fvd_sim::middleware::{Middleware, Under};
use fvd_sim::oracle::Oracle;
use fvd_sim::sector::SECTOR;
use fvd_sim::workload::Setup;

use crate::rig::{Loss, Rig};

/// Everything that a power loss may leave, and what is needed to find out.
struct Seen {
    bus: Bus,
    space: Space,
    tear: Tear,
    images: HashSet<Vec<u8>>,
}

impl Seen {
    fn look(&mut self, disk: &SimDisk) {
        self.space.clear();
        disk.add_to(&mut self.space);
        let bound = Bound {
            product_max: 1 << 8,
            random_count: 64,
            pairs_max: 64,
            seed: 1,
        };
        let (space, tear, sectors) = (&self.space, self.tear, self.bus.sectors());
        let mut ids = Vec::new();
        let _ = space.visit(bound, tear, &mut |outcome| {
            space.image(disk.id(), outcome, tear, sectors, &mut ids);
            let sectors = sectors.borrow();
            let contents = ids.iter().map(|id| sectors.get(*id).expect("readable"));
            self.images.insert(contents.flatten().copied().collect());
            ControlFlow::Continue(())
        });
    }
}

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Looks at the disk before each operation on it.
struct Watch(SimDisk);

impl Middleware for Watch {
    type Device = Watch;

    fn over(disk: SimDisk) -> Watch {
        Watch(disk)
    }
}

impl BlockDevice for Watch {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let result = self.0.submit(op);
        SEEN.with_borrow_mut(|seen| seen.as_mut().expect("it is watched").look(&self.0));
        result
    }

    fn notify(&mut self) {
        self.0.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.0.set_waker(waker)
    }
}

/// What a power loss in the middle of making an image may leave, and at its end.
fn states(setup: &Setup, tear: Tear) -> (HashSet<Vec<u8>>, HashSet<Vec<u8>>) {
    let bus = Bus::default();
    let plan = Fvd::plan(setup).expect("a setup of fvd");
    let devices = Devices::new(&bus, setup, &plan);
    devices.set_schedule(Schedule::Fifo);
    let mut space = Space::new();
    space.zones(&plan.zones);
    let seen = Seen {
        bus,
        space,
        tear,
        images: HashSet::new(),
    };
    SEEN.set(Some(seen));
    let formatted = Under::<Watch>::new(setup).format(&devices);
    formatted.expect("nothing failed");
    let mut seen = SEEN.take().expect("it was watched");
    let middle = core::mem::take(&mut seen.images);
    seen.look(&devices.metadata);
    (middle, seen.images)
}

#[test]
fn f26_power_loss_in_creation_leaves_a_new_image_or_none() {
    for (setup, tear) in [
        ("-", Tear::None),
        ("B8", Tear::None),
        ("uB8", Tear::None),
        ("t0B8d", Tear::None),
        ("a8j4B8", Tear::None),
        ("u", Tear::Cut),
        ("u", Tear::Garbage),
    ] {
        let mut rig = Rig::formatted(setup);
        let setup: Setup = setup.parse().expect("legal");
        let (middle, end) = states(&setup, tear);
        let mut open = |image: &Vec<u8>| {
            for (sector, bytes) in image.as_chunks::<SECTOR>().0.iter().enumerate() {
                rig.devices.metadata.put(sector, bytes);
            }
            rig.oracle = Oracle::of_new_disk(&setup);
            let opened = rig.open();
            if opened.is_ok() {
                // Every sector is as on a new disk, and it is one that works.
                rig.contents();
                rig.done("w0,w4,f");
                rig.lose(Loss::AllLost);
                rig.die(Loss::AllLost);
            }
            opened
        };
        let reasons: Vec<String> = middle
            .iter()
            .filter_map(|image| open(image).err())
            .collect();
        let refused = reasons.len();
        // There is no header yet, rather than one of an image that is not there.
        for reason in &reasons {
            let header = ["`magic`", "`slot_crc`"].map(|field| reason.contains(field));
            assert!(header.contains(&true), "{setup} {tear:?}: {reason}");
        }
        let opened = middle.len() - refused;
        assert!(refused > 0 && opened > 0, "{setup}: {refused}, {opened}");
        assert_eq!(end.len(), 1, "{setup}: what was made is durable");
        for image in &end {
            open(image).expect("a new image opens");
        }
    }
}
