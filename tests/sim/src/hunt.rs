//! Looks for the deliberately wrong variants of `fvd`, to prove that the search sees.
//!
//! A variant that no search finds means one of three things: the search has a hole, the rule that
//! the variant breaks is not needed, or another rule covers for it. Each is worth knowing.

use core::ops::ControlFlow;

use fvd::device::OpKind;

use crate::case::{Case, Replay};
use crate::crash::Bound;
use crate::driver::Fvd;
use crate::explore::{Explorer, Found, Limits};
use crate::session::Stats;
use crate::workload::{alphabet, parse_ops, sequences};

/// A place to look: a kind of disk, what is done on it, and how far to go.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    /// The case, with an empty first session.
    pub line: &'static str,
    /// Steps to make the first session of; the whole alphabet if empty.
    pub steps: &'static str,
    /// Longest first session; 0 to take the one in the line.
    pub length: usize,
    /// Unusual decisions per run.
    pub deviations: usize,
    /// Store and kind of the operations that fail, one per run, until there is none left.
    pub faults: Option<(u8, OpKind)>,
}

/// What a search of a ground has come to.
pub struct Searched {
    /// The first violation.
    pub found: Option<Found>,
    /// Totals.
    pub stats: Stats,
}

/// Searches a ground; stops at the first violation, or when `states_max` states were checked.
///
/// # Errors
/// If the ground is no legal case.
pub fn search(ground: &Ground, states_max: u64) -> Result<Searched, String> {
    let mut case: Case = ground.line.parse::<Replay>()?.case;
    let limits = Limits {
        deviations: ground.deviations,
        bound: Bound {
            random_count: 256,
            ..Bound::default()
        },
        ..Limits::default()
    };
    let steps = match ground.steps {
        "" => alphabet(&case.setup),
        steps => parse_ops(steps)?,
    };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits)?;
    let mut found = None;
    if ground.length == 0 {
        found = explorer.run(&case, &limits).err();
    }
    let _ = sequences(&steps, ground.length, &mut |steps| {
        case.sessions[0] = steps.to_vec();
        found = match ground.faults {
            Some((store, kind)) => explorer.run_failing(&case, store, kind, &limits),
            None => explorer.run(&case, &limits),
        }
        .err();
        if found.is_some() || explorer.stats().states > states_max {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    Ok(Searched {
        found: found.map(|found| *found),
        stats: explorer.stats(),
    })
}

const fn ground(
    line: &'static str,
    steps: &'static str,
    length: usize,
    deviations: usize,
) -> Ground {
    Ground {
        line,
        steps,
        length,
        deviations,
        faults: None,
    }
}

const fn failing(mut ground: Ground, store: u8, kind: OpKind) -> Ground {
    ground.faults = Some((store, kind));
    ground
}

/// A case as it is, without sequences.
const fn exactly(line: &'static str, deviations: usize) -> Ground {
    ground(line, "", 0, deviations)
}

/// Where to look for any bug, cheap places first.
pub const GROUNDS: &[Ground] = &[
    ground("g=-;s=/w0,f", "", 2, 0),
    ground("g=B8;s=/w0,f", "", 2, 0),
    ground("g=B8d;s=/w0,f", "", 2, 0),
    ground("g=u;s=/w0,f", "w0,w3+2,f,z0+2,d0+4,k,o", 2, 0),
    ground("g=B8g;s=/w0,f", "", 2, 0),
    ground("g=t0B8;s=/w0,f", "", 2, 0),
    ground("g=-;s=/w0,f/w4,f", "w0,w4,f,k,o", 3, 0),
    ground("g=B8;s=/w0,f;q=2", "w0,w1,w3+2,f,z0+2,d0+4,r0+4", 3, 1),
    ground("g=B8j4;s=/w0,f;q=2", "w0,w4,w8,f,k", 4, 1),
    ground("g=B8;s=/z0+4,f", "w0,w2+2,f,k", 3, 0),
    ground("g=-;s=/w0,f;T=1", "w0,w4,f,k", 3, 0),
    ground("g=B4;s=/w0,f;T=3", "w0,w4,f,k", 3, 0),
    ground("g=B8;s=/w0,f;T=2", "w0,w4,f,k", 2, 0),
    ground("g=v32b8c16a8j4B20;s=/w1,f;T=4", "w0,w17,f,k", 2, 0),
    ground("g=B8;s=/w0,f;T=5", "w0,f", 1, 0),
    ground("g=DB8U2;s=/w0,f", "w0,w4,f,o", 2, 0),
    failing(ground("g=-;s=/w0,f", "w0,w1,w4,f", 3, 0), 0, OpKind::Write),
    failing(ground("g=B8;s=/w0,f", "w0,w1,w4,f", 3, 0), 0, OpKind::Write),
    failing(ground("g=-;s=/w0,f", "w0,w4,f,k", 3, 0), 0, OpKind::Flush),
    failing(ground("g=u;s=/w0,f", "w0,w1,w4,f", 3, 0), 0, OpKind::Write),
    failing(
        ground("g=-;s=/w0,f;q=2", "w0,w1,w4,f", 3, 1),
        0,
        OpKind::Write,
    ),
    ground("g=B8d;s=/w0,f;q=3", "w0,w1,f,d0+4,z0+4,k,x", 3, 2),
    ground("g=dE;s=/w0,f;q=3", "w0,w1,w4,W0,f", 3, 2),
    failing(
        ground("g=B8E;s=/w0,f;q=2", "w8,w9,w12,f", 3, 1),
        0,
        OpKind::Write,
    ),
];

/// A bug and the smallest place where it is known to show.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The bug.
    pub bug: fvd::seeded::Bug,
    /// Where it shows.
    pub ground: Ground,
}

macro_rules! bugs {
    ($($name:ident $line:literal $deviations:literal)*) => {
        /// Every bug but those of a repair.
        pub const ALL: &[Known] = &[$(Known {
            name: stringify!($name),
            bug: fvd::seeded::Bug::$name,
            ground: exactly($line, $deviations),
        },)*];
    };
}

bugs! {
    StrictWithoutDataFlush "g=B8;s=w0,f/" 0
    FlushBeforeLastFlush "g=-;s=w0,f/" 0
    ExemptFlushesMetadataOnly "g=B8d;s=w8+4,f/" 0
    HidingBitExempt "g=B8;s=w0,f/" 0
    PublishBeforeData "g=B8;s=w0,f/;q=2" 1
    FlushJoinsRunningCommit "g=B8;s=w0,f,w4,f/;q=2" 3
    FloorNotRaised "g=-;s=w3+2,w8+4/w0,f" 0
    FloorNotReplayed "g=-;s=w8+4,w3+2/w0,f" 0
    FloorNotInHeader "g=-;s=w0/w0,f" 0
    AllFreeIsZero "g=u;s=w0/w0,f" 0
    DirtyChunkNotZeroed "g=u;s=w0/w0,f" 0
    ZeroedCountsAsExempt "g=u;s=w0/w0,f" 0
    FailedChunkStaysFresh "g=-;s=w1,w4,f/;i=0w0+" 0
    SharedChunkGivenBack "g=-;s=w0,w1,w4,f/;q=2;i=0w0+" 1
    GrowthNotFlushed "g=B8g;s=w0/w0,f" 0
    CheckpointPagesNotFlushed "g=-;s=w0,o/w0,f" 0
    SpaceFreedEarly "g=B8j4;s=w0,f,w4,w8/w0,f;q=2" 1
    OneDirtySet "g=B8;s=w0,f,k1,w4,f,k/" 0
    CutAtEnd "g=B8j4;s=w0,f,k/w0,f;q=2" 1
    CutOffByOne "g=-;s=w0,k,f/w0,f/w4,f" 0
    StageLivePages "g=B8j4;s=w0,w4,w8/w0,f;q=2" 1
    NoRoomCheck "g=c2j4;s=w0,f,w2,f,w4,f,w6,f,w8,f,w10,f/;q=2" 1
    NoBurning "g=-;s=w0,f/w0,f;T=1" 0
    BurnReplayedOnly "g=v64bcV64;s=w0+50,f/w0,f" 0
    SeqIgnored "g=-;s=w0,f/w0,f;T=1" 0
    CrcIgnored "g=-;s=w0/w0,f;T=1" 0
    StableSeqEarly "g=B8j4;s=w0,f,w4,w8/w0,f;q=2" 1
    RecoveryWithoutFirstFlush "g=DB8d;s=w0,f,x,w0,f/;q=2" 1
    RecoveryPagesNotFlushed "g=-;s=w0,f/w0,f" 0
    RecoveryHeaderNotFlushed "g=-;s=w0/w0,f" 0
    RecoveryWithoutPages "g=-;s=w0,f/w0,f" 0
    OneHeaderSlot "g=-;s=w0/w0,f" 0
    NewerSlotOverwritten "g=-;s=w0/w0,f" 0
    OverlapIgnored "g=B8;s=w0,w1/;q=2" 1
    ZeroOverlapIgnored "g=B8;s=w0,z0+2/;q=2" 1
    PartialBlockZeroFilled "g=B8;s=w0/" 0
    NoPoison "g=-;s=w0,f,w4,f/;i=0f0" 0
    FuaWithoutMapping "g=B8;s=W5/" 0
    ChecksumsInPlace "g=B4;s=w4,f,k/w0,f;T=3" 0
    ZeroBitWithoutZeros "g=B8;s=w0,f,w2+2/z2+2,f" 0
    EagerNotExempt "g=B8E;s=w0/" 0
    EagerDurableOnCompletion "g=dE;s=w0,f/" 0
    EagerFailureGivesBack "g=E;s=w0,w4,f/;i=0w1+" 0
    EagerNotCoveredByFua "g=dE;s=w0,W0/" 0
    EagerFlushesDataOnly "g=dE;s=w0,f/" 0
    EagerGapUnflagged "g=E;s=w0,w4,f/" 0
    FlushBesideEager "g=E;s=w0,w1,f/;q=3" 3
    SealedAfterDataFlush "g=B8;s=w0,f,w4,f/;q=2" 3
    StageSealedPages "g=B8j4;s=w0,w4,w8/w0,f;q=2" 1
    GapRuleWithoutIndex "g=v64bcV64;s=w0+50,f/" 0
    SplitAndLastIgnored "g=B8;s=w0,f/" 0
    SplitAndNoBurning "g=B8;s=w0,f/w4,f/" 0
    ReplayPastGap "g=v64bcV64;s=w0+50,f/" 0
    AcknowledgedBesideFailedFlush "g=t0;s=w0,f,f/;q=3;i=0f0" 1
    FailedPageIgnored "g=-;p=w0,f;s=k,w0,f/;i=0w0" 0
    FailedHeaderIgnored "g=-;p=w0,f;s=k,w0,f/;i=0w2" 0
    FailedGrowthFlushIgnored "g=gs0;s=w0,f/;i=0f0" 0
    PartErrorOverwritten "g=-;p=w4,w0,f;s=w0+8/;i=0w0" 0
    FailedRecoveryFlushIgnored "g=-;p=w0,f;s=x/;i=0f0" 0
    RecoveryDataNotFlushed "g=ds0g;s=w0,x/;q=2" 1
    FailedSlotLeaked "g=-;s=w0,o/;i=0w0" 0
    FailedReservationLeaked "g=s0;s=w0,w0+4,w4+4,w8+4,w12+4/;i=0w0" 0
    UnreadableUnitFails "g=-;s=w0,f/;T=2" 0
    LastCommitTrusted "g=B8;s=w0,f/;T=5" 0
    NewerSlotTrusted "g=-;s=w0/w0,f;T=5" 0
    RewriteNotFlushed "g=-;s=w0,f,k/w0,f;T=5" 0
    BitsRecordedTwice "g=B8;s=w0,f,w2,f/" 0
    SumsAheadOfTheCut "g=B8j4;s=w0,f,w4,w8/w0,f;q=2" 1
    BitBeforeEntry "g=DB8;s=w0,f/" 0
    EntryNotFlushedBeforeBit "g=DB8;s=w0,f/" 0
    OldPagesNotFlushed "g=DB8U;s=/" 0
    SecondPlaceBelieved "g=DB8U2;s=/" 0
    NamedPagesTrusted "g=DB8U;s=/;T=5" 0
    ErasedWithZeros "g=DB8U2;s=/;T=1" 0
}

/// Looks for one bug, where it is known to show and then everywhere.
///
/// # Errors
/// If a ground is no legal case.
#[cfg(feature = "_seeded-bugs")]
pub fn hunt(known: &Known, states_max: u64) -> Result<Searched, String> {
    fvd::seeded::set(Some(known.bug));
    let mut last = search(&known.ground, states_max);
    for ground in GROUNDS {
        if !matches!(&last, Ok(Searched { found: None, .. })) {
            break;
        }
        last = search(ground, states_max);
    }
    fvd::seeded::set(None);
    last
}
