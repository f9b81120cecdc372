//! What a kernel says of its progress, in one run under `cargo boot --kill`.

use crate::agreed::event;

/// What the kernel said in one run.
pub(crate) struct Said {
    pub(crate) phase: Phase,
    /// The kernel found everything that was durable before.
    pub(crate) verified: bool,
    /// No request from here on was sent.
    pub(crate) limit: u32,
    /// Requests of this run below are durable.
    pub(crate) flushed: u32,
    pub(crate) flushes: u32,
    /// Others that are.
    pub(crate) single: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Running,
    Closing,
    Ended,
}

impl Said {
    pub(crate) fn nothing(from: u32) -> Said {
        Said {
            phase: Phase::Opening,
            verified: false,
            limit: from,
            flushed: from,
            flushes: 0,
            single: Vec::new(),
        }
    }

    /// Takes down a line. `end` is the end of the requests that it was given.
    pub(crate) fn take(&mut self, line: &str, end: u32) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = rest.parse().ok();
        match (word, number) {
            (event::OPENED, _) => self.phase = Phase::Running,
            (event::VERIFIED, _) => self.verified = true,
            (event::LIMIT, Some(number)) => self.limit = end.min(number),
            (event::FLUSHED, Some(number)) => {
                self.flushed = self.flushed.max(number);
                self.flushes += 1;
            }
            (event::DURABLE, Some(number)) => self.single.push(number),
            (event::CLOSING, _) => self.phase = Phase::Closing,
            (event::CLOSED, _) => {
                self.phase = Phase::Ended;
                self.flushed = self.limit;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_the_kernel_is() {
        let mut said = Said::nothing(10);
        for line in [
            "opening",
            "opened",
            "verified",
            "limit 266",
            "flushed 24",
            "durable 30",
        ] {
            said.take(line, 100);
        }
        assert!(said.phase == Phase::Running && said.verified);
        assert_eq!((said.limit, said.flushed, said.flushes), (100, 24, 1));
        assert_eq!(said.single, [30]);
        said.take("closed", 100);
        assert_eq!(said.flushed, 100);
    }
}
