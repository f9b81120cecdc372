//! The ratios as a picture: a dot with its interval for each arm, the A/A band, the bars.

use core::fmt::Write;

use super::estimate::Estimate;
use super::results::{Outcome, Report, Row, Table};

const WIDTH: f64 = 920.0;
/// Where the scale begins and ends.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 820.0;
const ROW: f64 = 20.0;
const HEADING: f64 = 46.0;
/// The largest ratio that the scale has; what is beyond it stands at its end.
const RATIO_MAX: f64 = 1.5;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px;fill:#666}\
.own{fill:#0b62a8;stroke:#0b62a8}.peer{fill:#8a6d3b;stroke:#8a6d3b}.interval{stroke-width:2}\
.again{fill:#ddd}.one{stroke:#999}.grid{stroke:#eee}.bar{stroke:#c0262d;stroke-width:2}";

/// An SVG document.
pub(super) fn draw(report: &Report) -> String {
    let fragments = report.fragments.iter().map(|fragments| &fragments.reads);
    let tables: Vec<&Table> = report.tables.iter().chain(fragments).collect();
    let height: f64 = tables.iter().map(|table| height_of(table)).sum::<f64>() + 30.0;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_document(&mut out, &tables, height);
    out
}

fn write_document(out: &mut String, tables: &[&Table], height: f64) -> core::fmt::Result {
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text class=\"small\" x=\"10\" y=\"18\">Ratio to the reference, median and its 95 % interval; \
         grey: the reference against itself (A/A); red: bar of that row</text>"
    )?;
    let mut top = 30.0;
    for table in tables {
        write_table(out, table, top)?;
        top += height_of(table);
    }
    writeln!(out, "</svg>")
}

fn height_of(table: &Table) -> f64 {
    HEADING + ROW * table.rows.len() as f64
}

fn write_table(out: &mut String, table: &Table, top: f64) -> core::fmt::Result {
    let (first, bottom) = (top + HEADING - 16.0, top + height_of(table) - 12.0);
    writeln!(
        out,
        "<text class=\"title\" x=\"10\" y=\"{}\">{}</text>\
         <text class=\"small\" x=\"{RIGHT}\" y=\"{}\">1 = {}</text>",
        top + 16.0,
        escape(&table.title),
        top + 16.0,
        escape(&table.reference),
    )?;
    if let Some(again) = &table.again {
        let (low, high) = (place(again.low.min(1.0)), place(again.high.max(1.0)));
        let (width, height) = (high - low, bottom - first);
        writeln!(
            out,
            "<rect class=\"again\" x=\"{low:.1}\" y=\"{first}\" width=\"{width:.1}\" height=\"{height}\"/>"
        )?;
    }
    for tenth in (0..=15).step_by(5) {
        let ratio = f64::from(tenth) / 10.0;
        let class = if tenth == 10 { "one" } else { "grid" };
        let x = place(ratio);
        writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{first}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{}\">{ratio}</text>",
            x - 6.0,
            bottom + 10.0,
        )?;
    }
    for (index, row) in table.rows.iter().enumerate() {
        write_row(
            out,
            row,
            &table.reference,
            first + ROW * (index as f64 + 0.5),
        )?;
    }
    Ok(())
}

fn write_row(out: &mut String, row: &Row, reference: &str, y: f64) -> core::fmt::Result {
    let text_y = y + 4.0;
    writeln!(
        out,
        "<text x=\"20\" y=\"{text_y}\">{}</text>",
        escape(&row.arm)
    )?;
    let bars = row
        .verdicts
        .iter()
        .filter(|verdict| verdict.of == reference);
    for bar in bars.filter_map(|verdict| verdict.bar) {
        let (x, above, below) = (place(bar), y - ROW / 2.0, y + ROW / 2.0);
        writeln!(
            out,
            "<line class=\"bar\" x1=\"{x:.1}\" y1=\"{above}\" x2=\"{x:.1}\" y2=\"{below}\"/>"
        )?;
    }
    match &row.outcome {
        Outcome::Measured { ratio, .. } => write_ratio(out, row, ratio, y),
        Outcome::Skipped(_) => write_word(out, "skipped", text_y),
        Outcome::Failed(_) => write_word(out, "failed", text_y),
    }
}

fn write_ratio(out: &mut String, row: &Row, ratio: &Estimate, y: f64) -> core::fmt::Result {
    let own = row.arm.starts_with("fvd") || row.arm.starts_with("raw");
    let class = if own { "own" } else { "peer" };
    let (low, middle, high) = (place(ratio.low), place(ratio.median), place(ratio.high));
    writeln!(
        out,
        "<line class=\"{class} interval\" x1=\"{low:.1}\" y1=\"{y}\" x2=\"{high:.1}\" y2=\"{y}\"/>\
         <circle class=\"{class}\" cx=\"{middle:.1}\" cy=\"{y}\" r=\"4\"/>\
         <text x=\"{}\" y=\"{}\">{:.2}</text>",
        RIGHT + 40.0,
        y + 4.0,
        ratio.median,
    )
}

fn write_word(out: &mut String, word: &str, y: f64) -> core::fmt::Result {
    writeln!(
        out,
        "<text class=\"small\" x=\"{LEFT}\" y=\"{y}\">{word}</text>"
    )
}

/// Where a ratio stands on the scale.
fn place(ratio: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * ratio.clamp(0.0, RATIO_MAX) / RATIO_MAX
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
