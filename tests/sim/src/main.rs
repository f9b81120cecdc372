//! Runs the crash simulator by hand: one line, one search, every known bug, or the whole campaign.

mod args;
mod progress;

use core::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::{CampaignArgs, CommandLine, Failing, LimitArgs, SearchArgs, Verb};
use clap::Parser;
use fvd_sim::campaign::{self, Outcome, plan};
use fvd_sim::case::{Case, Replay};
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Found, Limits};
use fvd_sim::opinion::Python;
use fvd_sim::session::Auditor;
use fvd_sim::workload::{alphabet, parse_ops, sequences};

fn replay(line: &Replay) -> Result<bool, String> {
    let mut explorer = Explorer::<Fvd>::new(&line.case, &Limits::default())?;
    match Python::start()? {
        Some(second) => drop(explorer.set_auditor(Some(Auditor::new(Box::new(second), 1)))),
        None => eprintln!("SKIP: checkers not compared, python3 is not installed"),
    }
    let (trace, failure) = explorer.replay(&line.path);
    trace.iter().for_each(|line| println!("{line}"));
    match &failure {
        Some(failure) => println!("{}: {}", failure.violation.rule, failure.violation.detail),
        None => println!("no violation"),
    }
    Ok(failure.is_none())
}

fn report(explorer: &Explorer<Fvd>, start: Instant, found: Option<&Found>) {
    let (stats, seconds) = (explorer.stats(), start.elapsed().as_secs_f64());
    let rate = stats.states as f64 / seconds;
    println!("{stats:?}\n{seconds:.1} s, {rate:.0} states/s");
    if let Some(found) = found {
        println!("{found}");
    }
}

/// Turns a seeded bug on for the commands that run something.
#[cfg(feature = "_seeded-bugs")]
fn set_bug(wanted: Option<&str>) -> Result<(), String> {
    if let Some(wanted) = wanted {
        let found = fvd_sim::hunt::ALL.iter().find(|known| known.name == wanted);
        fvd::seeded::set(Some(found.ok_or("no such bug")?.bug));
    }
    Ok(())
}

#[cfg(not(feature = "_seeded-bugs"))]
fn set_bug(wanted: Option<&str>) -> Result<(), String> {
    match wanted {
        None => Ok(()),
        Some(_) => Err("built without the feature _seeded-bugs".into()),
    }
}

fn run(case: &Case, args: &LimitArgs) -> Result<bool, String> {
    let limits = args.limits();
    let start = Instant::now();
    let mut explorer = Explorer::<Fvd>::new(case, &limits)?;
    let found = explorer.run(case, &limits).err();
    report(&explorer, start, found.as_deref());
    Ok(found.is_none())
}

fn search(mut case: Case, args: &SearchArgs) -> Result<bool, String> {
    let limits = args.limits.limits();
    let mut explorer = Explorer::<Fvd>::new(&case, &limits)?;
    let start = Instant::now();
    let steps = match &args.steps {
        Some(steps) => parse_ops(steps)?,
        None => alphabet(&case.setup),
    };
    if case.sessions.is_empty() {
        case.sessions.push(Vec::new());
    }
    let mut found = None;
    let _ = sequences(&steps, args.length, &mut |steps| {
        case.sessions[0] = steps.to_vec();
        found = match args.failing {
            Some(Failing::Each) => explorer.run_each_fault(&case, &limits).map(|_| ()),
            Some(Failing::Kind(store, kind)) => explorer.run_failing(&case, store, kind, &limits),
            None => explorer.run(&case, &limits),
        }
        .err();
        if found.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    report(&explorer, start, found.as_deref());
    Ok(found.is_none())
}

#[cfg(feature = "_seeded-bugs")]
fn hunt(wanted: Option<&str>) -> Result<bool, String> {
    let mut missed = Vec::new();
    for known in fvd_sim::hunt::ALL {
        let name = known.name;
        if wanted.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let start = Instant::now();
        let searched = fvd_sim::hunt::hunt(known, 400_000)?;
        let (seconds, states) = (start.elapsed().as_secs_f64(), searched.stats.states);
        match searched.found {
            Some(found) => println!("{name} ({states} states, {seconds:.1} s): {found}"),
            None => {
                println!("{name} ({states} states, {seconds:.1} s): NOT FOUND");
                missed.push(name);
            }
        }
    }
    println!("missed: {missed:?}");
    Ok(missed.is_empty())
}

#[cfg(not(feature = "_seeded-bugs"))]
fn hunt(_: Option<&str>) -> Result<bool, String> {
    Err("built without the feature _seeded-bugs".into())
}

#[cfg(feature = "_seeded-bugs")]
fn hunt_all() -> Result<Option<campaign::Hunt>, String> {
    campaign::hunt_all(400_000).map(Some)
}

#[cfg(not(feature = "_seeded-bugs"))]
fn hunt_all() -> Result<Option<campaign::Hunt>, String> {
    Ok(None)
}

fn run_campaign(args: &CampaignArgs) -> Result<Outcome, String> {
    let mut plan = if args.long {
        plan::long()
    } else {
        plan::quick()
    };
    if let Some(text) = &args.only {
        plan.keep(text);
        if plan.rows.is_empty() {
            return Err(format!(
                "no row of the plan has {text:?} in its words or letters"
            ));
        }
    }
    let start = Instant::now();
    let until = args
        .minutes
        .map(|minutes| start + Duration::from_secs(60 * minutes));
    // Before the search: the switch of the bugs is one for the whole process.
    let hunt = if args.only.is_none() {
        hunt_all()?
    } else {
        None
    };
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, usize::from);
    let mut report = progress::watch(&plan, |progress| {
        campaign::run(&plan, threads, until, progress)
    })?;
    (report.hunt, report.seconds) = (hunt, start.elapsed().as_secs_f64());
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        println!("{report}");
    }
    let problems = report.problems();
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    Ok(report.outcome())
}

fn run_verb(args: &CommandLine) -> Result<Outcome, String> {
    set_bug(args.bug.as_deref())?;
    let found_nothing = match &args.verb {
        Verb::Replay { line } => replay(line),
        Verb::Run { line, limits } => run(&line.case, limits),
        Verb::Search(search_args) => search(search_args.line.case.clone(), search_args),
        Verb::Hunt { name } => hunt(name.as_deref()),
        Verb::Campaign(args) => return run_campaign(args),
    };
    found_nothing.map(|nothing| match nothing {
        true => Outcome::Passed,
        false => Outcome::Failed,
    })
}

fn main() -> ExitCode {
    match run_verb(&CommandLine::parse()) {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::CutShort) => ExitCode::from(3),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
