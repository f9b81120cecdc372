//! All tables, round by round: whichever had the fewest rounds is next, until the time is up.

use std::time::Instant;

use super::arm::Arm;
use super::fragments;
use super::local;
use super::nbd;
use super::plan::{Plan, What};
use super::results::{ArmOf, Heading, Report, Table};
use super::rounds::{self, Limits, Rounds, Turn};
use super::{Bench, latency};
use crate::failure::Failure;

/// One kind of measurement, with what it keeps between two of them.
pub(super) trait Measure {
    /// Measures `arm`. More is better; there is a value for each table that it fills.
    ///
    /// # Errors
    /// The arm can not do it.
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<Vec<f64>, Failure>;

    /// Puts what was measured where it is told.
    fn tell(&mut self, tables: Vec<Table>, report: &mut Report) {
        report.tables.extend(tables);
    }
}

/// A plan that is carried out.
struct Course<'p> {
    plan: &'p Plan,
    captions: Vec<(String, String)>,
    arms: Vec<Arm>,
    skipped: Vec<(Arm, String)>,
    rounds: Rounds,
    /// `None`: the reference can not be measured here, so nothing can.
    measure: Option<Box<dyn Measure>>,
}

/// Carries out all plans.
pub(super) fn run(
    bench: &Bench<'_>,
    plans: &[Plan],
    limits: Limits,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut courses = Vec::new();
    for plan in plans {
        courses.push(Course::new(bench, plan)?);
    }
    let end = Instant::now() + limits.time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let open = courses.iter().map(|course| {
            let is_open = course.measure.is_some();
            is_open.then_some(&course.rounds)
        });
        let Some(next) = rounds::next(open, limits.rounds, left) else {
            break;
        };
        if let Some(course) = courses.get_mut(next) {
            course.round(bench)?;
        }
    }
    for course in courses {
        course.tell(report);
    }
    Ok(())
}

impl<'p> Course<'p> {
    fn new(bench: &Bench<'_>, plan: &'p Plan) -> Result<Course<'p>, Failure> {
        let no_reference = plan.missing(bench.args, &plan.reference);
        let (mut arms, mut skipped) = (Vec::new(), Vec::new());
        for arm in plan.arms.iter().filter(|arm| bench.wants(arm.name)) {
            let why = no_reference.clone();
            match why.or_else(|| plan.missing(bench.args, arm)) {
                None => arms.push(*arm),
                Some(why) => skipped.push((*arm, why)),
            }
        }
        let is_judged = |arm: &Arm| {
            let mut bars = plan.bars.iter();
            bars.any(|bar| bar.arm == arm.name || bar.of == arm.name)
        };
        let judged = arms.iter().map(is_judged).collect();
        let captions = plan.captions();
        let measure: Option<Box<dyn Measure>> = match (plan.what, &no_reference) {
            (_, Some(_)) => None,
            (What::Nbd(disk, client), _) => Some(Box::new(nbd::Session::new(disk, client))),
            (What::Local(load), _) => Some(Box::new(local::Session::new(load)?)),
            (What::Files(load), _) => Some(Box::new(load)),
            (What::Latency, _) => Some(Box::new(latency::Session)),
            (What::Fragments, _) => Some(Box::new(fragments::Session::default())),
        };
        Ok(Course {
            plan,
            rounds: Rounds::new(judged, captions.len()),
            captions,
            arms,
            skipped,
            measure,
        })
    }

    /// # Errors
    /// Somebody wants it to end.
    fn round(&mut self, bench: &Bench<'_>) -> Result<(), Failure> {
        let Some(measure) = &mut self.measure else {
            return Ok(());
        };
        let (plan, arms) = (self.plan, &self.arms);
        self.rounds.round(|turn, round| {
            let arm = match turn {
                Turn::Reference => &plan.reference,
                Turn::Arm(index) => arms.get(index).unwrap_or(&plan.reference),
            };
            bench.begin(plan.title, arm.name, round)?;
            Ok(measure.measure(bench, arm, round))
        })
    }

    fn tell(self, report: &mut Report) {
        let arm_of = |arm: &Arm| ArmOf {
            name: arm.name,
            beside: self.plan.beside(arm),
            // What is measured for comparison with itself competes with nobody.
            is_rival: latency::under_load(arm).is_none(),
        };
        let arms: Vec<ArmOf<'_>> = self.arms.iter().map(arm_of).collect();
        let seconds = self.rounds.spent().as_secs_f64();
        let mut tables = Vec::new();
        for ((name, title), samples) in self.captions.iter().zip(self.rounds.into_samples()) {
            let heading = Heading {
                name,
                title,
                reference: self.plan.reference.name,
                beside: self.plan.beside_title(),
                bars: self.plan.bars,
            };
            let mut table = Table::of(heading, samples, &arms);
            table.seconds = seconds;
            for (arm, why) in &self.skipped {
                table.skip(arm.name, why.clone());
            }
            tables.push(table);
        }
        match self.measure {
            Some(mut measure) => measure.tell(tables, report),
            None => report.tables.extend(tables),
        }
    }
}
