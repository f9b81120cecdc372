//! The results as tables for people.

use core::fmt::Write;

use super::arm::TABLE;
use super::results::{
    CountTable, Counted, FragmentTable, Machine, Outcome, Report, Row, Table, Verdict,
};
use crate::size;

/// The arm that the summary is about.
const OWN: &str = TABLE.name;

/// The whole report.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(out: &mut String, report: &Report) -> core::fmt::Result {
    if report.quick {
        writeln!(out, "**A smoke test: these ratios mean nothing.**\n")?;
    }
    write_machine(out, &report.machine)?;
    writeln!(out, "- measured in {} s\n", report.seconds)?;
    write_summary(out, report)?;
    for table in &report.tables {
        write_table(out, table)?;
    }
    if let Some(fragments) = &report.fragments {
        write_fragments(out, fragments)?;
    }
    for table in &report.counts {
        write_counts(out, table)?;
    }
    Ok(())
}

fn write_machine(out: &mut String, machine: &Machine) -> core::fmt::Result {
    writeln!(out, "- {}", machine.date)?;
    writeln!(
        out,
        "- {} x {}, {} of memory, Linux {}",
        machine.processors,
        machine.processor,
        size::show(machine.memory_bytes),
        machine.kernel,
    )?;
    writeln!(
        out,
        "- images on {}; front end on {}",
        machine.disk, machine.memory_disk
    )?;
    writeln!(out, "- {}", machine.versions.join("; "))
}

/// What a reader wants to know first: what was promised and not kept, and who is better.
fn write_summary(out: &mut String, report: &Report) -> core::fmt::Result {
    let verdicts = || {
        report
            .tables
            .iter()
            .flat_map(|table| &table.rows)
            .flat_map(|row| &row.verdicts)
    };
    let met = verdicts()
        .filter(|verdict| verdict.met == Some(true))
        .count();
    let open = verdicts().filter(|verdict| verdict.met.is_none()).count();
    writeln!(
        out,
        "### Summary\n\nBars met: {met} of {}.\n",
        verdicts().count()
    )?;
    if open != 0 {
        writeln!(
            out,
            "{open} bars are undecided: their medians reach them, but the intervals are too wide, or there were too few rounds.\n"
        )?;
    }
    writeln!(out, "Missed:\n")?;
    for table in &report.tables {
        for row in &table.rows {
            for verdict in row
                .verdicts
                .iter()
                .filter(|verdict| verdict.met == Some(false))
            {
                writeln!(
                    out,
                    "- `{}`: `{}` {}, bar {}",
                    table.name,
                    row.arm,
                    verdict.ratio,
                    goal(verdict, &table.reference)
                )?;
            }
        }
    }
    writeln!(
        out,
        "\nAhead of `{OWN}`, by the ratio of the two in each round:\n"
    )?;
    for table in &report.tables {
        for (arm, ratio) in table.ahead_of(OWN) {
            writeln!(out, "- `{}`: `{arm}` {ratio}", table.name)?;
        }
    }
    writeln!(out)
}

fn write_table(out: &mut String, table: &Table) -> core::fmt::Result {
    writeln!(out, "### `{}`: {}\n", table.name, table.title)?;
    let rounds = match table.rounds {
        1 => "1 round".to_string(),
        rounds => format!("{rounds} rounds"),
    };
    let again = table
        .again
        .map_or_else(|| "none".into(), |again| again.to_string());
    writeln!(
        out,
        "Ratio to `{}`, {rounds}; A/A {again}.\n",
        table.reference
    )?;
    if let Some(why) = &table.ended {
        writeln!(out, "Ended early: `{}` failed: {why}\n", table.reference)?;
    }
    let beside = table.rows.iter().any(|row| row.beside.is_some());
    if beside {
        writeln!(
            out,
            "| arm | ratio | {} | bar |\n| --- | --- | --- | --- |",
            table.beside
        )?;
    } else {
        writeln!(out, "| arm | ratio | bar |\n| --- | --- | --- |")?;
    }
    for row in &table.rows {
        write!(out, "| {} | {} |", row.arm, outcome(&row.outcome))?;
        if beside {
            let ratio = row
                .beside
                .map_or_else(String::new, |ratio| ratio.to_string());
            write!(out, " {ratio} |")?;
        }
        writeln!(out, " {} |", bars(row, &table.reference))?;
    }
    writeln!(out)
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Measured { ratio, .. } => format!(
            "**{:.2}** ({:.2}-{:.2})",
            ratio.median, ratio.low, ratio.high
        ),
        Outcome::Skipped(why) => format!("SKIP: {why}"),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}

fn bars(row: &Row, reference: &str) -> String {
    let bars = row.verdicts.iter().map(|verdict| bar(verdict, reference));
    bars.collect::<Vec<_>>().join("; ")
}

fn bar(verdict: &Verdict, reference: &str) -> String {
    let result = match verdict.met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "undecided",
    };
    let goal = goal(verdict, reference);
    if verdict.of == reference {
        format!("{goal}: {result}")
    } else {
        format!("{goal}: {result}, {}", verdict.ratio)
    }
}

fn goal(verdict: &Verdict, reference: &str) -> String {
    let goal = match verdict.bar {
        Some(bar) => format!("{bar:.2}"),
        None => "inside A/A".into(),
    };
    if verdict.of == reference {
        goal
    } else {
        format!("{goal} of {}", verdict.of)
    }
}

fn write_fragments(out: &mut String, fragments: &FragmentTable) -> core::fmt::Result {
    write_table(out, &fragments.reads)?;
    let bytes = size::show(fragments.written_bytes);
    writeln!(
        out,
        "After {bytes} of random writes of 4 KiB to a new disk:\n"
    )?;
    writeln!(
        out,
        "| arm | extents of the image | space it takes |\n| --- | ---: | ---: |"
    )?;
    for row in &fragments.rows {
        let extents = row
            .extents
            .map_or_else(|| "unknown".into(), |extents| extents.to_string());
        writeln!(
            out,
            "| {} | {extents} | {} |",
            row.arm,
            size::show(row.allocated_bytes)
        )?;
    }
    writeln!(out)
}

fn write_counts(out: &mut String, table: &CountTable) -> core::fmt::Result {
    writeln!(out, "### `{}`: {}\n", table.name, table.title)?;
    writeln!(
        out,
        "| arm | writes | bytes written | reads | bytes read | syncs | fallocates |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for row in &table.rows {
        match &row.counted {
            Ok(counted) => writeln!(out, "| {} | {} |", row.arm, counted_cells(counted))?,
            Err(why) => writeln!(out, "| {} | {why} | | | | | |", row.arm)?,
        }
    }
    writeln!(out)
}

fn counted_cells(counted: &Counted) -> String {
    format!(
        "{:.2} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2}",
        counted.writes,
        counted.written_bytes,
        counted.reads,
        counted.read_bytes,
        counted.syncs,
        counted.fallocates,
    )
}
