//! Where a range of the guest's disk is: maximal runs of one source.

use crate::format::table::TableEntry;
use crate::units::GuestOffset;

use super::Map;

/// Where bytes of the guest's disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// On the data device, from this byte.
    Store(u64),
    /// In the base, from this byte.
    Base(u64),
    /// Nowhere: they read zeros.
    Zero,
    /// Known to be lost.
    Unreadable,
}

impl Source {
    /// The source `bytes` further on.
    const fn advance(self, bytes: u64) -> Source {
        match self {
            Source::Store(at) => Source::Store(at.wrapping_add(bytes)),
            Source::Base(at) => Source::Base(at.wrapping_add(bytes)),
            Source::Zero => Source::Zero,
            Source::Unreadable => Source::Unreadable,
        }
    }
}

/// A range that one device operation, or none, can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) source: Source,
    /// Bytes, at least 1.
    pub(crate) bytes: u64,
}

impl Map {
    /// The longest run from `start`, at most up to `end`. `start` < `end` <= the disk's size.
    #[inline]
    pub(crate) fn run(&self, start: u64, end: u64) -> Run {
        match self.one_chunk(start, end) {
            Some(source) => Run {
                source,
                bytes: end.wrapping_sub(start),
            },
            None => self.run_of_pieces(start, end),
        }
    }

    /// The source of all of `[start, end)`, if it has one, where [`Map::one_chunk`] can not say.
    #[inline(never)] // so that the usual case stays short
    pub(crate) fn whole_of_pieces(&self, start: u64, end: u64) -> Option<Source> {
        let run = self.run_of_pieces(start, end);
        (run.bytes == end.wrapping_sub(start)).then_some(run.source)
    }

    #[inline(never)] // so that the usual case stays short
    fn run_of_pieces(&self, start: u64, end: u64) -> Run {
        let mut run = self.piece(start, end);
        let mut at = start.saturating_add(run.bytes);
        // Each piece is at least one sector, and there are at most 16 blocks per chunk.
        let pieces = (end.saturating_sub(start) >> 9).saturating_add(1);
        for _ in 0..pieces {
            if at >= end {
                break;
            }
            let next = self.piece(at, end);
            if next.source != run.source.advance(run.bytes) {
                break;
            }
            run.bytes = run.bytes.saturating_add(next.bytes);
            at = at.saturating_add(next.bytes);
        }
        run
    }

    /// What most requests are, found in a third of the instructions: a range within one chunk of a
    /// disk that has no base to ask for, or any range of a raw-like one.
    #[inline]
    pub(crate) fn one_chunk(&self, start: u64, end: u64) -> Option<Source> {
        if self.plain {
            // One device operation per request, laid out exactly like a raw disk.
            return Some(Source::Store(self.data_offset.wrapping_add(start)));
        }
        let shape = &self.shape;
        let chunk = shape.chunk_of(GuestOffset(start));
        let inside = shape.within_chunk(GuestOffset(start));
        let fits = end.wrapping_sub(start) <= shape.chunk_bytes() - inside;
        if self.bitmap_blocks != 0 || !fits {
            return None;
        }
        match self.entry(chunk) {
            TableEntry::Chunk(at) => {
                let offset = self.data_offset.wrapping_add(shape.store_chunk_start(at));
                Some(Source::Store(offset.wrapping_add(inside)))
            }
            TableEntry::Unmapped => Some(Source::Zero),
            // Without a table, too.
            TableEntry::Unreadable | TableEntry::Split(_) => None,
        }
    }

    /// The run from `start` within one chunk.
    #[inline]
    fn piece(&self, start: u64, end: u64) -> Run {
        let shape = &self.shape;
        let offset = GuestOffset(start);
        let chunk = shape.chunk_of(offset);
        let begin = shape.chunk_start(chunk).0;
        let mut stop = end.min(begin.saturating_add(shape.chunk_bytes()));
        let covered = self.group_len(chunk);
        if covered != 0 {
            let first = shape.block_of(GuestOffset(begin)).0;
            let own = shape.block_of(offset).0.wrapping_sub(first) as u32;
            if own < covered {
                let bits = u32::from(self.bits(chunk)) >> (own & 15);
                let in_base = bits & 1 == 0;
                let same = if in_base {
                    bits.trailing_zeros()
                } else {
                    (!bits).trailing_zeros()
                };
                let block_end = own.saturating_add(same).min(covered);
                let end_offset =
                    begin.saturating_add(u64::from(block_end).wrapping_mul(shape.block_bytes()));
                stop = stop.min(end_offset);
                if in_base {
                    return self.base_piece(start, stop);
                }
            }
        }
        if self.loose
            && let Some(block_run) = self.loose_piece(start, stop)
        {
            if block_run.in_base {
                return self.base_piece(start, block_run.end);
            }
            stop = block_run.end;
        }
        let bytes = stop.saturating_sub(start);
        if !self.has_table {
            return self.unmapped_piece(start, stop);
        }
        let source = match self.entry(chunk) {
            TableEntry::Chunk(at) => {
                let inside = shape.within_chunk(offset);
                let base = self.data_offset.wrapping_add(shape.store_chunk_start(at));
                Source::Store(base.wrapping_add(inside))
            }
            TableEntry::Unmapped => Source::Zero,
            TableEntry::Unreadable | TableEntry::Split(_) => Source::Unreadable,
        };
        Run { source, bytes }
    }

    /// A run of a disk without a table: in the store at its own place, or beyond the store's end.
    fn unmapped_piece(&self, start: u64, stop: u64) -> Run {
        if start >= self.store_limit {
            return Run {
                source: Source::Zero,
                bytes: stop.saturating_sub(start),
            };
        }
        Run {
            source: Source::Store(self.data_offset.wrapping_add(start)),
            bytes: stop.min(self.store_limit).saturating_sub(start),
        }
    }

    /// A run in blocks that are still in the base: base bytes, then zeros beyond its end.
    fn base_piece(&self, start: u64, stop: u64) -> Run {
        if start >= self.base_bytes {
            return Run {
                source: Source::Zero,
                bytes: stop.saturating_sub(start),
            };
        }
        let bytes = stop.min(self.base_bytes).saturating_sub(start);
        Run {
            source: Source::Base(start),
            bytes,
        }
    }
}
