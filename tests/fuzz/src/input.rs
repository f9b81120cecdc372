//! Takes numbers off an input; past its end all are 0.
//!
//! The values that mark memory nobody wrote to are left out: a guest that writes them would look like
//! an engine that writes what it must not.

use crate::device::{UNREAD, UNWRITTEN};

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let len = N.min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        array[..len].copy_from_slice(taken);
        self.0 = rest;
        array.map(unmarked)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken.iter().copied().map(unmarked).collect()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number near one of the places where numbers break.
    pub(crate) fn edge(&mut self, places: &[u64]) -> u64 {
        let place = places[usize::from(self.u8()) % places.len()];
        let step = i64::from(self.u8() as i8);
        match step & 3 {
            0 => place.wrapping_add_signed(step >> 2),
            1 => place.wrapping_add_signed((step >> 2) * 512),
            2 => self.u64(),
            _ => place,
        }
    }
}

fn unmarked(byte: u8) -> u8 {
    match byte {
        UNREAD | UNWRITTEN => byte ^ 1,
        _ => byte,
    }
}
