//! A line on the terminal while a campaign runs.

use core::sync::atomic::Ordering;
use core::time::Duration;

use fvd_sim::campaign::plan::Plan;
use fvd_sim::campaign::{Progress, Report};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// Runs a campaign with a bar, if standard error is a terminal, or a line per row, if it is not.
pub(crate) fn watch(
    plan: &Plan,
    run: impl FnOnce(&Progress) -> Result<Report, String> + Send,
) -> Result<Report, String> {
    let total = plan
        .rows
        .iter()
        .map(|row| row.workloads())
        .sum::<Result<u64, _>>()?;
    let bar = ProgressBar::new(total);
    let template = "{msg} [{bar:30}] {human_pos}/{human_len} workloads {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    let progress = Progress::default();
    let report = std::thread::scope(|scope| {
        let search = scope.spawn(|| run(&progress));
        while !search.is_finished() {
            bar.set_position(progress.workloads.load(Ordering::Relaxed));
            let states = HumanCount(progress.states.load(Ordering::Relaxed));
            let violations = progress.violations.load(Ordering::Relaxed);
            bar.set_message(format!("{states} states, {violations} violations"));
            tell(&bar, &progress);
            std::thread::sleep(Duration::from_millis(100));
        }
        tell(&bar, &progress);
        search.join()
    });
    bar.finish_and_clear();
    report.map_err(|_| "a search has panicked")?
}

/// Without a terminal, each row that has ended leaves a line.
fn tell(bar: &ProgressBar, progress: &Progress) {
    let ended = progress.ended.lock();
    let ended = ended.map(|mut ended| core::mem::take(&mut *ended));
    if bar.is_hidden() {
        for row in ended.unwrap_or_default() {
            eprintln!("{row}");
        }
    }
}
