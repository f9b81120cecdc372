//! Requests that a guest may send although they make little sense.

use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind};
use fvd::units::Instant;

use crate::common::{self, Client};
use crate::image::{CHUNK, End, KINDS, golden, options};

const FLAGS: [OpFlags; 4] = [
    OpFlags::NONE,
    OpFlags::FUA,
    OpFlags::MAY_UNMAP,
    OpFlags::FUA.union(OpFlags::MAY_UNMAP),
];

/// Found by fuzzing: a flush with FUA went to the device as it was. One that knows no FUA refused it,
/// and the failed flush cost the guest every later write.
#[test]
fn flags_that_mean_nothing_for_a_request_do_no_harm() {
    for kind in KINDS.into_iter().filter(|kind| !kind.external) {
        let disk = common::open(golden(kind, End::Closed).devices::<true>(), options());
        let (mut disk, mut client) = (disk, Client::new(2));
        for turn in 0..3 {
            for flags in FLAGS {
                for what in [
                    OpKind::Read,
                    OpKind::Write,
                    OpKind::Flush,
                    OpKind::WriteZeroes,
                    OpKind::Discard,
                ] {
                    let (loan, lease) = common::lend(4096, 9);
                    let at = (turn + 1) * CHUNK;
                    let len = if what == OpKind::Flush { 0 } else { 4096 };
                    let at = if what == OpKind::Flush { 0 } else { at };
                    let mut op = client.op(what, flags, at, len, 5);
                    let carries = matches!(what, OpKind::Read | OpKind::Write);
                    if carries {
                        op.push(lease).expect("room");
                    }
                    assert!(disk.submit(op).is_ok(), "{what:?} {flags:?}");
                    let mut op = loop {
                        if let Some(op) = disk.poll(Instant::ZERO) {
                            break op;
                        }
                    };
                    let result: Result<(), DeviceError> = common::result_of(&op);
                    assert_eq!(result, Ok(()), "{what:?} {flags:?} on {kind:?}");
                    assert_eq!((op.flags(), op.tag(), op.offset()), (flags, 5, at));
                    while op.pop().is_some() {}
                    client.put(op);
                    drop(loan);
                }
            }
        }
        assert_eq!(common::close(disk).faults, [""; 0]);
    }
}
