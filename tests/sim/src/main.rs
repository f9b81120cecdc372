//! Runs the crash simulator by hand: one line, one search, or every known bug.

use core::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

use fvd::device::OpKind;
use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Bound;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::workload::{alphabet, parse_ops, sequences};

const USAGE: &str = "\
fvd-sim replay LINE              runs one printed line again, with a trace
fvd-sim run LINE [-d N]          runs a case (a line without c= and k=) in all ways, N unusual choices
fvd-sim search LINE [-l N] [-d N] [-a STEPS] [-f FAULT]
                                 the same for every sequence of up to N steps as first session
                                 (-a: of these steps; -f 0w: each write of store 0 fails in turn;
                                 -f each: each operation on each store, in every way)
                                 (-B NAME turns a seeded bug on for these three)
fvd-sim hunt [NAME]              looks for the seeded bugs (feature _seeded-bugs)
";

fn number(args: &[String], flag: &str, default: usize) -> Result<usize, String> {
    match args.iter().position(|arg| arg == flag) {
        None => Ok(default),
        Some(at) => {
            let text = args
                .get(at + 1)
                .ok_or_else(|| format!("{flag} wants a number"))?;
            text.parse().map_err(|_| format!("{flag} wants a number"))
        }
    }
}

fn limits(args: &[String]) -> Result<Limits, String> {
    Ok(Limits {
        deviations: number(args, "-d", 0)?,
        bound: Bound {
            product_max: number(args, "-b", 1 << 12)? as u64,
            random_count: number(args, "-r", 1024)? as u32,
            seed: number(args, "-s", 1)? as u64,
        },
        ..Limits::default()
    })
}

fn replay(line: &str) -> Result<bool, String> {
    let line: Replay = line.parse()?;
    let mut explorer = Explorer::<Fvd>::new(&line.case, &Limits::default())?;
    let (trace, failure) = explorer.replay(&line.path);
    trace.iter().for_each(|line| println!("{line}"));
    match &failure {
        Some(failure) => println!("{}: {}", failure.violation.rule, failure.violation.detail),
        None => println!("no violation"),
    }
    Ok(failure.is_none())
}

fn report(explorer: &Explorer<Fvd>, start: Instant) {
    let (stats, seconds) = (explorer.stats(), start.elapsed().as_secs_f64());
    let rate = stats.states as f64 / seconds;
    println!("{stats:?}\n{seconds:.1} s, {rate:.0} states/s");
}

/// `-f 0w`: each write of store 0 fails in turn.
fn fault(args: &[String]) -> Result<Option<(u8, OpKind)>, String> {
    let Some(at) = args.iter().position(|arg| arg == "-f") else {
        return Ok(None);
    };
    let rule = format!(
        "g=-;i={}0",
        args.get(at + 1).ok_or("-f wants a store and a kind")?
    );
    let (store, rule) = rule
        .parse::<Replay>()?
        .case
        .fault
        .ok_or("-f wants a fault")?;
    Ok(rule.kind.map(|kind| (store, kind)))
}

/// Turns a seeded bug on for the commands that run something: `-B NAME`.
#[cfg(feature = "_seeded-bugs")]
fn set_bug(args: &[String]) -> Result<(), String> {
    if let Some(at) = args.iter().position(|arg| arg == "-B") {
        let wanted = args.get(at + 1).ok_or("-B wants a name")?;
        let found = fvd_sim::hunt::ALL.iter().find(|known| known.name == wanted);
        fvd::seeded::set(Some(found.ok_or("no such bug")?.bug));
    }
    Ok(())
}

#[cfg(not(feature = "_seeded-bugs"))]
fn set_bug(_: &[String]) -> Result<(), String> {
    Ok(())
}

fn search(line: &str, args: &[String], length: usize) -> Result<bool, String> {
    let mut case: Case = line.parse::<Replay>()?.case;
    let limits = limits(args)?;
    let each_fault = args.windows(2).any(|pair| pair == ["-f", "each"]);
    let fault = if each_fault { None } else { fault(args)? };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits)?;
    let start = Instant::now();
    let mut found = None;
    if length == 0 {
        found = explorer.run(&case, &limits).err();
    } else {
        let steps = match args.iter().position(|arg| arg == "-a") {
            Some(at) => parse_ops(args.get(at + 1).ok_or("-a wants steps")?)?,
            None => alphabet(&case.setup),
        };
        if case.sessions.is_empty() {
            case.sessions.push(Vec::new());
        }
        let _ = sequences(&steps, length, &mut |steps| {
            case.sessions[0] = steps.to_vec();
            found = match fault {
                None if each_fault => explorer.run_each_fault(&case, &limits).map(|_| ()),
                Some((store, kind)) => explorer.run_failing(&case, store, kind, &limits),
                None => explorer.run(&case, &limits),
            }
            .err();
            if found.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }
    report(&explorer, start);
    if let Some(found) = &found {
        println!("{found}");
    }
    Ok(found.is_none())
}

#[cfg(feature = "_seeded-bugs")]
fn hunt(wanted: &str) -> Result<bool, String> {
    let mut missed = Vec::new();
    for known in fvd_sim::hunt::ALL {
        let name = known.name;
        if !wanted.is_empty() && wanted != name {
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
    for (name, why) in fvd_sim::hunt::EQUIVALENT {
        println!("{name}: not looked for: {why}");
    }
    println!("missed: {missed:?}");
    Ok(missed.is_empty())
}

#[cfg(not(feature = "_seeded-bugs"))]
fn hunt(_: &str) -> Result<bool, String> {
    Err("built without the feature _seeded-bugs".into())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(why) = set_bug(&args) {
        eprintln!("{why}");
        return ExitCode::from(2);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["replay", line, ..] => replay(line),
        ["run", line, ..] => search(line, &args, 0),
        ["search", line, ..] => number(&args, "-l", 3).and_then(|l| search(line, &args, l)),
        ["hunt"] => hunt(""),
        ["hunt", name] => hunt(name),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
