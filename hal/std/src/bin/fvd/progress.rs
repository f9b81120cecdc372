//! Progress on standard error, where somebody is watching.

use core::time::Duration;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// How long work must last before a bar appears.
const PATIENCE: Duration = Duration::from_millis(500);

/// A bar over a number of bytes; invisible for short work and where standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
}

impl Progress {
    /// A bar that ends at `total_bytes`.
    pub(crate) fn new(what: &'static str, total_bytes: u64) -> Progress {
        let bar = ProgressBar::hidden();
        bar.set_length(total_bytes);
        bar.set_message(what);
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress {
            bar,
            start: Instant::now(),
            shown: false,
        }
    }

    /// `done_bytes` of the total are done.
    pub(crate) fn at(&mut self, done_bytes: u64) {
        if !self.shown && self.start.elapsed() >= PATIENCE {
            // This target draws nothing unless standard error is a terminal.
            self.bar
                .set_draw_target(indicatif::ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_position(done_bytes);
    }
}

impl Drop for Progress {
    /// Takes the bar off the screen, so that a message of failure stands alone.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Tells that something is going on whose end nobody can foresee.
pub(crate) struct Waiting(ProgressBar);

impl Waiting {
    /// A sign of life that says `what` is being done.
    pub(crate) fn new(what: &'static str) -> Waiting {
        let bar = ProgressBar::new_spinner();
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Waiting(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar over the time that something is given, which says what is being done; invisible where standard
/// error is no terminal.
pub(crate) struct Steps {
    bar: ProgressBar,
    start: Instant,
}

impl Steps {
    /// A bar that ends after `time`.
    pub(crate) fn new(time: Duration) -> Steps {
        let bar = ProgressBar::new(time.as_secs());
        if let Ok(style) = ProgressStyle::with_template("[{bar:20}] {pos}/{len} s  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Steps {
            bar,
            start: Instant::now(),
        }
    }

    /// `what` is done next.
    pub(crate) fn at(&mut self, what: String) {
        self.bar.set_position(self.start.elapsed().as_secs());
        self.bar.set_message(what);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
