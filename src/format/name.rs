//! Inert strings: bounded bytes that an image carries and nobody acts on.
//!
//! Invariants:
//! 1. A [`Text`] holds at most `MAX` bytes and no zero byte.
//! 2. Nothing in this crate opens, resolves, parses or runs one (SPEC.md §3.6). An image that names
//!    `/etc/passwd` as its base gets to show that name, escaped, and nothing else.

use core::fmt;

use super::error::{Field, FormatError};

/// The name of a base or data file, or a command: at most 255 bytes.
pub type Name = Text<255>;

/// The name of a format, such as `raw`: at most 15 bytes.
pub type FormatName = Text<15>;

/// At most `MAX` bytes without a zero byte, in no particular encoding; `MAX` is at most 255.
///
/// Images of 2011 may have longer ones. Of those, this is the start: see [`Text::is_cut`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const MAX: usize> {
    len: u8,
    cut: bool,
    bytes: [u8; MAX],
}

impl<const MAX: usize> Text<MAX> {
    /// No bytes: "none" for every name in a header.
    pub const EMPTY: Text<MAX> = Text {
        len: 0,
        cut: false,
        bytes: [0; MAX],
    };

    /// Takes `bytes`, or `None` if they are more than `MAX` or hold a zero byte.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Text<MAX>> {
        if bytes.contains(&0) {
            return None;
        }
        let mut text = Text::EMPTY;
        text.set(bytes).then_some(text)
    }

    /// The bytes, without an end marker. Show them escaped: they come from the image.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether the image has a longer text than this, of which this is only the start: nothing to
    /// open a file by.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads a zero-terminated field of version 2.
    ///
    /// What follows the first zero byte is ignored. A field without one is `Corrupt`, because a
    /// reader that trusts the end marker would run past the field; a longer name is a `Limit`.
    pub(super) fn read_terminated(
        &mut self,
        field: &[u8],
        which: Field,
    ) -> Result<(), FormatError> {
        if !field.contains(&0) {
            return Err(FormatError::corrupt(which, length(field)));
        }
        let name = until_zero(field);
        if self.set(name) {
            Ok(())
        } else {
            Err(FormatError::limit(which, length(name)))
        }
    }

    /// Reads a field of version 1, where the end of the field also ends the name. Of a name that is
    /// longer than `MAX` it keeps the start: their writers allow it, and nothing here depends on it.
    pub(super) fn read_bounded(&mut self, field: &[u8]) {
        let name = until_zero(field);
        let kept = name.get(..MAX).unwrap_or(name);
        self.set(kept);
        self.cut = kept.len() < name.len();
    }

    /// Refuses a text of which only the start is known.
    pub(super) fn check_whole(&self, which: Field) -> Result<(), FormatError> {
        if self.cut {
            return Err(FormatError::limit(
                which,
                length(&self.bytes).saturating_add(1),
            ));
        }
        Ok(())
    }

    /// Takes a name without a zero byte; `false` if it is too long. In place, because a header is
    /// large and stacks are small where this crate runs.
    fn set(&mut self, name: &[u8]) -> bool {
        let (Ok(len), Some(room)) = (u8::try_from(name.len()), self.bytes.get_mut(..name.len()))
        else {
            return false;
        };
        room.copy_from_slice(name);
        if let Some(rest) = self.bytes.get_mut(name.len()..) {
            rest.fill(0);
        }
        self.len = len;
        self.cut = false;
        true
    }

    /// Writes the bytes to a field, padded with zeros. A field is longer than `MAX` by design.
    pub(super) fn write(&self, field: &mut [u8]) {
        field.fill(0);
        for (target, source) in field.iter_mut().zip(self.as_bytes()) {
            *target = *source;
        }
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(&[])
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl<const MAX: usize> Default for Text<MAX> {
    fn default() -> Self {
        Text::EMPTY
    }
}

/// Escaped, so that a name can not move the cursor or start a line of its own.
impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)?;
        f.write_str(if self.cut { "..." } else { "" })
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
