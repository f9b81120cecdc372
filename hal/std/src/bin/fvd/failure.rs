//! What can go wrong, and the exit codes that scripts rely on.

use core::fmt;

use crate::output;

/// All went well; for `check`: the image is clean.
pub(crate) const DONE: u8 = 0;
/// `check` found damage.
pub(crate) const CHECK_CORRUPT: u8 = 2;
/// `check` found leaked space and nothing worse.
pub(crate) const CHECK_LEAKS: u8 = 3;

const FAILED: u8 = 1;
const USAGE: u8 = 64;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// Something went wrong on the way.
    Failed(String),
    /// Nobody reads the output any more.
    PipeClosed,
}

impl Failure {
    /// A failure that reads `what: why`.
    pub(crate) fn because(what: impl fmt::Display, why: impl fmt::Display) -> Failure {
        Failure::Failed(format!("{what}: {why}"))
    }

    /// Tells the user, on standard error.
    pub(crate) fn print(&self) {
        match self {
            Failure::Usage(text) | Failure::Failed(text) => output::say(text),
            Failure::PipeClosed => {}
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::Failed(_) => FAILED,
            // A reader such as `head` that has seen enough is no failure of ours.
            Failure::PipeClosed => DONE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Failed(text) => f.write_str(text),
            Failure::PipeClosed => f.write_str("nobody reads the output any more"),
        }
    }
}

/// Adds what was being done to an error.
pub(crate) trait Doing<T> {
    /// Turns an error into a failure that begins with `what()`.
    fn doing<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T, Failure> {
        self.map_err(|error| Failure::because(what(), error))
    }
}
