//! Tags of the engine's own device operations: what a completion is for, found with one compare.
//!
//! ```text
//! bit 0      8      16            32            48
//!     | kind | role | slot        | generation  |
//! ```

use crate::stores::Role;

use super::RequestId;

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The guest's own op, on a device in place of the engine's.
    Forward,
    /// One part of a guest request.
    Part,
    /// The base's bytes before (0) or after (1) the guest's in a partly written block.
    Fill(u8),
    /// Zeros from the engine's own zero memory.
    ZeroMemory,
    /// The journal unit of a first write, sent along with its data.
    Eager,
    /// The commit under way.
    Commit,
    /// The checkpoint under way.
    Checkpoint,
    /// Growing the store.
    Growth,
    /// Opening.
    Open,
}

/// A tag taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) purpose: Purpose,
    pub(crate) role: Role,
    pub(crate) slot: u16,
    pub(crate) generation: u16,
}

impl Tag {
    /// A tag for a request's operation.
    #[inline]
    pub(crate) fn request(purpose: Purpose, role: Role, slot: u16, generation: u16) -> Tag {
        Tag {
            purpose,
            role,
            slot,
            generation,
        }
    }

    fn own(purpose: Purpose, role: Role) -> Tag {
        Tag {
            purpose,
            role,
            slot: 0,
            generation: 0,
        }
    }

    pub(crate) fn commit(role: Role) -> Tag {
        Tag::own(Purpose::Commit, role)
    }

    pub(crate) fn eager() -> Tag {
        Tag::own(Purpose::Eager, Role::Metadata)
    }

    pub(crate) fn checkpoint() -> Tag {
        Tag::own(Purpose::Checkpoint, Role::Metadata)
    }

    pub(crate) fn growth() -> Tag {
        Tag::own(Purpose::Growth, Role::Data)
    }

    pub(crate) fn open(role: Role) -> Tag {
        Tag::own(Purpose::Open, role)
    }

    /// The tag as a device carries it.
    #[inline]
    pub(crate) fn word(self) -> u64 {
        let kind = match self.purpose {
            Purpose::Forward => 1u64,
            Purpose::Part => 2,
            Purpose::Fill(0) => 3,
            Purpose::Fill(_) => 4,
            Purpose::ZeroMemory => 5,
            Purpose::Commit => 6,
            Purpose::Checkpoint => 7,
            Purpose::Growth => 8,
            Purpose::Open => 9,
            Purpose::Eager => 10,
        };
        let role = match self.role {
            Role::Metadata => 0u64,
            Role::Data => 1,
            Role::Base => 2,
        };
        kind | role << 8 | (self.slot as u64) << 16 | (self.generation as u64) << 32
    }

    /// Whose the guest's own op is, if this is the tag of one.
    #[inline]
    pub(crate) fn parse_forward(word: u64) -> Option<RequestId> {
        // The role says nothing here.
        if word & !0xFFFF_FFFF_FF00 != 1 {
            return None;
        }
        Some(RequestId {
            slot: (word >> 16) as u16,
            generation: (word >> 32) as u16,
        })
    }

    /// Takes a tag apart. `None` for one that the engine never gave out.
    #[inline]
    pub(crate) fn parse(word: u64) -> Option<Tag> {
        let purpose = match word & 0xFF {
            1 => Purpose::Forward,
            2 => Purpose::Part,
            3 => Purpose::Fill(0),
            4 => Purpose::Fill(1),
            5 => Purpose::ZeroMemory,
            6 => Purpose::Commit,
            7 => Purpose::Checkpoint,
            8 => Purpose::Growth,
            9 => Purpose::Open,
            10 => Purpose::Eager,
            _ => return None,
        };
        let role = match (word >> 8) & 0xFF {
            0 => Role::Metadata,
            1 => Role::Data,
            2 => Role::Base,
            _ => return None,
        };
        if word >> 48 != 0 {
            return None;
        }
        Some(Tag {
            purpose,
            role,
            slot: (word >> 16) as u16,
            generation: (word >> 32) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_survives_the_device() {
        for purpose in [
            Purpose::Forward,
            Purpose::Part,
            Purpose::Fill(0),
            Purpose::Fill(1),
            Purpose::ZeroMemory,
            Purpose::Commit,
            Purpose::Checkpoint,
            Purpose::Growth,
            Purpose::Open,
            Purpose::Eager,
        ] {
            for role in [Role::Metadata, Role::Data, Role::Base] {
                let tag = Tag::request(purpose, role, 0xABCD, 0x1234);
                assert_eq!(Tag::parse(tag.word()), Some(tag));
            }
        }
        assert_eq!(Tag::parse(0), None);
        assert_eq!(Tag::parse(1 << 48 | 1), None);
    }
}
