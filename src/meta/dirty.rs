//! Which metadata pages differ from what is in place.
//!
//! Two sets, two bits per page. `current` collects pages that durable records changed since the
//! last cut; a checkpoint turns it into `old`, writes `old` in place and empties it. With one set, a
//! page changed again while the checkpoint runs would be forgotten or never finished (PROTOCOL row
//! 27).

use crate::buffer::{Arena, Part};

const CURRENT: u8 = 1;
const OLD: u8 = 2;

/// The two sets.
pub(crate) struct DirtyPages {
    flags: Part<u8>,
    pub(super) old_count: u32,
}

impl DirtyPages {
    pub(crate) const fn arena_bytes(pages: usize) -> usize {
        Arena::part_bytes::<u8>(pages)
    }

    pub(crate) fn carve(arena: &mut Arena, pages: usize) -> Option<DirtyPages> {
        Some(DirtyPages {
            flags: arena.carve(pages, 0u8)?,
            old_count: 0,
        })
    }

    pub(crate) fn reclaim(self, arena: &mut Arena) -> bool {
        arena.reclaim(self.flags).is_ok()
    }

    /// Adds a page to `current`.
    pub(crate) fn mark(&mut self, page: u32) {
        if let Some(flags) = self.flags.get_mut(page as usize) {
            *flags |= CURRENT;
        }
    }

    /// Whether a page is in `current`.
    #[cfg(test)]
    pub(crate) fn is_current(&self, page: u32) -> bool {
        self.flags
            .get(page as usize)
            .is_some_and(|flags| flags & CURRENT != 0)
    }

    /// Makes `current` the new `old`. `old` must be empty, but a leftover joins rather than vanishes.
    pub(crate) fn cut(&mut self) {
        for flags in self.flags.iter_mut() {
            if *flags & CURRENT != 0 {
                if *flags & OLD == 0 {
                    self.old_count += 1;
                }
                *flags = OLD;
            }
        }
    }

    /// The first page of `old` at or after `from`.
    pub(crate) fn next_old(&self, from: u32) -> Option<u32> {
        if self.old_count == 0 {
            return None;
        }
        let rest = self.flags.get(from as usize..)?;
        let at = rest.iter().position(|flags| flags & OLD != 0)?;
        Some(from.saturating_add(at as u32))
    }

    /// Whether a page is in `old`.
    pub(crate) fn is_old(&self, page: u32) -> bool {
        self.flags
            .get(page as usize)
            .is_some_and(|flags| flags & OLD != 0)
    }

    /// Takes a page out of `old`.
    pub(crate) fn clear_old(&mut self, page: u32) {
        if let Some(flags) = self.flags.get_mut(page as usize)
            && *flags & OLD != 0
        {
            *flags &= !OLD;
            self.old_count = self.old_count.saturating_sub(1);
        }
    }

    /// Empties `current`; a deliberately wrong variant uses it.
    pub(crate) fn clear_current(&mut self) {
        for flags in self.flags.iter_mut() {
            *flags &= !CURRENT;
        }
    }
}
