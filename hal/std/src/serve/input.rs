//! What was read ahead from one client.

use std::io;

use fvd_nbd::handshake::INPUT_BYTES_MAX;

use super::stream::Stream;

/// Bytes read ahead: many requests, or a whole option of the handshake.
const INPUT_BYTES: usize = if INPUT_BYTES_MAX > 64 << 10 {
    INPUT_BYTES_MAX
} else {
    64 << 10
};

/// Bytes of one client that were received and not used.
pub(super) struct Input {
    /// Never cleared: what lies outside of `used..filled` is not looked at.
    bytes: Box<[u8]>,
    used: usize,
    filled: usize,
}

impl Input {
    pub(super) fn new() -> Input {
        Input {
            bytes: vec![0; INPUT_BYTES].into_boxed_slice(),
            used: 0,
            filled: 0,
        }
    }

    pub(super) fn unused(&self) -> &[u8] {
        self.bytes.get(self.used..self.filled).unwrap_or(&[])
    }

    pub(super) fn use_up(&mut self, count: usize) {
        self.used = self.filled.min(self.used + count);
    }

    /// Moves bytes to `target`, as many as there are and it has room for. Returns how many.
    pub(super) fn take(&mut self, target: &mut [u8]) -> usize {
        let input = self.unused();
        let count = target.len().min(input.len());
        if let (Some(to), Some(from)) = (target.get_mut(..count), input.get(..count)) {
            to.copy_from_slice(from);
        }
        self.use_up(count);
        count
    }

    /// Reads more, as [`Stream::receive`] does.
    pub(super) fn receive(&mut self, stream: &mut Stream) -> io::Result<Option<usize>> {
        self.bytes.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        let room = self.bytes.get_mut(self.filled..).unwrap_or(&mut []);
        let count = stream.receive(room)?;
        self.filled += count.unwrap_or(0);
        Ok(count)
    }
}
