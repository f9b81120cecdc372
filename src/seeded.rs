//! Deliberately wrong variants of the engine, to prove that the crash simulator sees.
//!
//! Each bug breaks one rule of docs/DESIGN.md. The switch exists only with the feature
//! `_seeded-bugs`; without it [`bug`] is a constant `false` and the variants vanish from the binary.

/// One wrong variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Bug {
    /// A strict commit skips its data flush.
    StrictWithoutDataFlush = 1,
    /// A guest flush completes when the journal write does, before the last flush.
    FlushBeforeLastFlush,
    /// With two devices, an exempt commit flushes the metadata device only.
    ExemptFlushesMetadataOnly,
    /// Setting a bit that hides base data counts as exempt.
    HidingBitExempt,
    /// A mapping is published when its data write is submitted.
    PublishBeforeData,
    /// A guest flush joins the commit that is already running.
    FlushJoinsRunningCommit,
    /// Allocation goes above the durable floor without raising it first.
    FloorNotRaised,
    /// Replay ignores floor records.
    FloorNotReplayed,
    /// A header write at a checkpoint carries the floor as it was at open.
    FloorNotInHeader,
    /// Every free chunk counts as zero at open.
    AllFreeIsZero,
    /// A chunk below the floor is used without being zeroed.
    DirtyChunkNotZeroed,
    /// A zeroed but unflushed chunk counts as exempt.
    ZeroedCountsAsExempt,
    /// A failed write leaves its chunk "fresh" when given back.
    FailedChunkStaysFresh,
    /// A chunk shared by two first writes is given back when one of them fails.
    SharedChunkGivenBack,
    /// No flush between growing the store and recording the new size.
    GrowthNotFlushed,
    /// No flush between in-place pages and the header at a checkpoint.
    CheckpointPagesNotFlushed,
    /// Journal space is freed before the header that frees it is durable.
    SpaceFreedEarly,
    /// A checkpoint stores the next sequence number instead of its cut.
    CutAtEnd,
    /// A checkpoint's cut is one too high.
    CutOffByOne,
    /// One set of dirty pages instead of two.
    OneDirtySet,
    /// Checkpoint pages are staged from live memory, pending mappings included.
    StageLivePages,
    /// Journal space is taken without checking for room.
    NoRoomCheck,
    /// Recovery does not skip sequence numbers.
    NoBurning,
    /// Recovery skips only to the last replayed unit + 1.
    BurnReplayedOnly,
    /// Replay does not compare sequence numbers.
    SeqIgnored,
    /// Replay does not check the CRC of a unit.
    CrcIgnored,
    /// A unit names a `stable_seq` that is not durable yet.
    StableSeqEarly,
    /// Recovery does not begin with a flush.
    RecoveryWithoutFirstFlush,
    /// Recovery does not flush between pages and header.
    RecoveryPagesNotFlushed,
    /// Recovery does not flush after its header.
    RecoveryHeaderNotFlushed,
    /// Recovery skips sequence numbers without writing the pages.
    RecoveryWithoutPages,
    /// Header writes always go to the same slot.
    OneHeaderSlot,
    /// Header writes go to the newer slot.
    NewerSlotOverwritten,
    /// A copy-on-write fill does not wait for overlapping writes.
    OverlapIgnored,
    /// A write-zeroes does not wait for overlapping writes.
    ZeroOverlapIgnored,
    /// The tail of a partially written block is not read from the base.
    PartialBlockZeroFilled,
    /// After a failed flush, later flushes are acknowledged.
    NoPoison,
    /// A FUA write completes without its mapping being durable.
    FuaWithoutMapping,
    /// The checksum array in use is overwritten at a checkpoint.
    ChecksumsInPlace,
    /// Write-zeroes of a mapped block whose bit is clear sets the bit without writing zeros.
    ZeroBitWithoutZeros,
    /// Eager commit for a mapping that is not exempt.
    EagerNotExempt,
    /// An eager unit counts as durable when its write completes.
    EagerDurableOnCompletion,
    /// The data write of an eager commit fails and its chunk is given back.
    EagerFailureGivesBack,
    /// A FUA write under an eager mapping does not wait for the flush that makes it durable.
    EagerNotCoveredByFua,
    /// With two devices, a guest flush does not flush the eager unit.
    EagerFlushesDataOnly,
    /// A unit written behind an eager one that may be lost claims that nothing before it can be.
    EagerGapUnflagged,
    /// A commit starts while an eager unit is in flight.
    FlushBesideEager,
    /// Mappings are added to a commit after its data flush.
    SealedAfterDataFlush,
    /// A checkpoint stages mappings whose units are written but not known durable.
    StageSealedPages,
    /// Beyond a gap, a later unit of a commit that began before it proves lost data.
    GapRuleWithoutIndex,
    /// Entry and bits of a mapping go into different units, and replay ignores where a commit ends.
    SplitAndLastIgnored,
    /// Entry and bits of a mapping go into different units, and recovery skips no numbers.
    SplitAndNoBurning,
    /// Replay goes on behind a gap.
    ReplayPastGap,
    /// A record says all bits of its chunk, those that earlier records set too.
    BitsRecordedTwice,
    /// A checkpoint's checksums cover what became durable after its cut.
    SumsAheadOfTheCut,
    /// A request that was in flight when a flush failed is acknowledged if it went well.
    AcknowledgedBesideFailedFlush,
    /// A checkpoint goes on after a page could not be written.
    FailedPageIgnored,
    /// A checkpoint goes on after its header could not be written.
    FailedHeaderIgnored,
    /// A larger size is recorded although the flush of the growth failed.
    FailedGrowthFlushIgnored,
    /// A request of several operations ends like the last of them.
    PartErrorOverwritten,
    /// Recovery goes on after its first flush failed.
    FailedRecoveryFlushIgnored,
    /// Recovery does not flush a data device of its own.
    RecoveryDataNotFlushed,
    /// A request that fails keeps its slot.
    FailedSlotLeaked,
    /// A first write that fails keeps its chunk.
    FailedReservationLeaked,
    /// Opening fails when a unit of the journal can not be read.
    UnreadableUnitFails,
    /// Recovery does not write the last commit again before its pages.
    LastCommitTrusted,
    /// Recovery does not write the slot that counts again before it overwrites the other one.
    NewerSlotTrusted,
    /// Recovery does not flush between writing again and what relies on it.
    RewriteNotFlushed,
    /// A commit in place writes bits before the entries that they rely on.
    BitBeforeEntry,
    /// A commit in place does not flush between entries and bits, nor at its end.
    EntryNotFlushedBeforeBit,
    /// Recovery of an image of 2011 does not flush between its pages and what says that it is clean.
    OldPagesNotFlushed,
    /// Replay of a journal of 2011 believes a second place for a chunk.
    SecondPlaceBelieved,
    /// Recovery of an image of 2011 does not write pages that hold already what its journal says.
    NamedPagesTrusted,
    /// Recovery of an image of 2011 erases its journal with zeros, so that a torn sector says more.
    ErasedWithZeros,
}

impl Bug {
    /// Every wrong variant.
    pub const ALL: &'static [Bug] = &[
        Bug::StrictWithoutDataFlush,
        Bug::FlushBeforeLastFlush,
        Bug::ExemptFlushesMetadataOnly,
        Bug::HidingBitExempt,
        Bug::PublishBeforeData,
        Bug::FlushJoinsRunningCommit,
        Bug::FloorNotRaised,
        Bug::FloorNotReplayed,
        Bug::FloorNotInHeader,
        Bug::AllFreeIsZero,
        Bug::DirtyChunkNotZeroed,
        Bug::ZeroedCountsAsExempt,
        Bug::FailedChunkStaysFresh,
        Bug::SharedChunkGivenBack,
        Bug::GrowthNotFlushed,
        Bug::CheckpointPagesNotFlushed,
        Bug::SpaceFreedEarly,
        Bug::CutAtEnd,
        Bug::CutOffByOne,
        Bug::OneDirtySet,
        Bug::StageLivePages,
        Bug::NoRoomCheck,
        Bug::NoBurning,
        Bug::BurnReplayedOnly,
        Bug::SeqIgnored,
        Bug::CrcIgnored,
        Bug::StableSeqEarly,
        Bug::RecoveryWithoutFirstFlush,
        Bug::RecoveryPagesNotFlushed,
        Bug::RecoveryHeaderNotFlushed,
        Bug::RecoveryWithoutPages,
        Bug::OneHeaderSlot,
        Bug::NewerSlotOverwritten,
        Bug::OverlapIgnored,
        Bug::ZeroOverlapIgnored,
        Bug::PartialBlockZeroFilled,
        Bug::NoPoison,
        Bug::FuaWithoutMapping,
        Bug::ChecksumsInPlace,
        Bug::ZeroBitWithoutZeros,
        Bug::EagerNotExempt,
        Bug::EagerDurableOnCompletion,
        Bug::EagerFailureGivesBack,
        Bug::EagerNotCoveredByFua,
        Bug::EagerFlushesDataOnly,
        Bug::EagerGapUnflagged,
        Bug::FlushBesideEager,
        Bug::SealedAfterDataFlush,
        Bug::StageSealedPages,
        Bug::GapRuleWithoutIndex,
        Bug::SplitAndLastIgnored,
        Bug::SplitAndNoBurning,
        Bug::ReplayPastGap,
        Bug::BitsRecordedTwice,
        Bug::SumsAheadOfTheCut,
        Bug::AcknowledgedBesideFailedFlush,
        Bug::FailedPageIgnored,
        Bug::FailedHeaderIgnored,
        Bug::FailedGrowthFlushIgnored,
        Bug::PartErrorOverwritten,
        Bug::FailedRecoveryFlushIgnored,
        Bug::RecoveryDataNotFlushed,
        Bug::FailedSlotLeaked,
        Bug::FailedReservationLeaked,
        Bug::UnreadableUnitFails,
        Bug::LastCommitTrusted,
        Bug::NewerSlotTrusted,
        Bug::RewriteNotFlushed,
        Bug::BitBeforeEntry,
        Bug::EntryNotFlushedBeforeBit,
        Bug::OldPagesNotFlushed,
        Bug::SecondPlaceBelieved,
        Bug::NamedPagesTrusted,
        Bug::ErasedWithZeros,
    ];
}

#[cfg(feature = "_seeded-bugs")]
mod switch {
    use core::sync::atomic::{AtomicU8, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Turns one wrong variant on for the whole process, or all off.
    pub fn set(bug: Option<super::Bug>) {
        ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }

    /// Whether a wrong variant is on.
    #[inline]
    #[must_use]
    pub fn bug(which: super::Bug) -> bool {
        ACTIVE.load(Ordering::Relaxed) == which as u8
    }
}

#[cfg(not(feature = "_seeded-bugs"))]
mod switch {
    /// Whether a wrong variant is on: never in a normal build.
    #[inline(always)]
    #[must_use]
    pub const fn bug(_: super::Bug) -> bool {
        false
    }
}

pub use switch::*;
