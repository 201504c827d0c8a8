//! Two runs, figure by figure: do they agree within the noise that they state?
//!
//! It judges no subject: which of two is faster is not its matter, only whether a figure came out again.

use std::collections::BTreeMap;
use std::fmt;

use crate::figure::{Experiment, Figure, Key, Run};

use super::table::{Side, Style, Table};
use super::wording::{self, Conditions};

/// The least noise that a figure is taken to have: few repetitions can fall together by chance.
const LEAST_NOISE: f64 = 0.05;

/// Two runs compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    titles: [String; 2],
    machines_differ: bool,
    /// How many figures agree, and how many both runs have.
    counts: Vec<(Experiment, usize, usize)>,
    differing: Vec<(Figure, Figure)>,
    /// What only the first run has, and what only the second.
    alone: [Vec<Key>; 2],
}

impl Comparison {
    /// Compares what both runs have, and notes what only one of them has.
    pub(crate) fn of(first: &Run, second: &Run) -> Self {
        let (ours, theirs) = (figures(first), figures(second));
        let both: Vec<_> = ours.iter().filter_map(|(key, figure)| Some((*figure, *theirs.get(key)?))).collect();
        let only = |one: &BTreeMap<&Key, &Figure>, other: &BTreeMap<&Key, &Figure>| {
            one.keys().filter(|key| !other.contains_key(*key)).map(|key| (*key).clone()).collect()
        };
        Self {
            titles: [first.begun.clone(), second.begun.clone()],
            machines_differ: first.machine != second.machine,
            counts: counts(&both),
            differing: both.iter().filter(|(a, b)| !agree(a, b)).map(|(a, b)| ((*a).clone(), (*b).clone())).collect(),
            alone: [only(&ours, &theirs), only(&theirs, &ours)],
        }
    }

    fn differences(&self) -> Table {
        let [first, second] = &self.titles;
        let mut table = Table::new(format!("Those that do not: {first} (first) and {second} (second)"));
        table.column("figure", Side::Left);
        for name in ["first", "second", "second / first"] {
            table.column(name, Side::Right);
        }
        for (first, second) in &self.differing {
            let medians = (first.median().unwrap_or_default(), second.median().unwrap_or_default());
            let ratio =
                if medians.0 == 0.0 { wording::DASH.to_owned() } else { wording::number(medians.1 / medians.0) };
            table.row(vec![words(&first.key), wording::spread(Some(first)), wording::spread(Some(second)), ratio]);
        }
        table
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.machines_differ {
            writeln!(
                formatter,
                "The runs were made on different machines; only ratios within one run tell anything.\n"
            )?;
        }
        if !self.counts.is_empty() {
            let percent = LEAST_NOISE * 100.0;
            writeln!(formatter, "The noise of a figure is taken as {percent:.0} % at least.")?;
        }
        for (experiment, agreeing, total) in &self.counts {
            writeln!(formatter, "{}: {agreeing} of {total} agree within the noise they state", experiment.name())?;
        }
        if self.counts.is_empty() {
            writeln!(formatter, "The runs have no figure in common.")?;
        }
        if !self.differing.is_empty() {
            write!(formatter, "\n{}", self.differences().show(Style::Text))?;
        }
        for (which, keys) in ["first", "second"].into_iter().zip(&self.alone) {
            if !keys.is_empty() {
                writeln!(formatter, "\nOnly the {which} run has:")?;
            }
            for key in keys {
                writeln!(formatter, "- {}", words(key))?;
            }
        }
        Ok(())
    }
}

/// Those that have values, in a fixed order.
fn figures(run: &Run) -> BTreeMap<&Key, &Figure> {
    let measured = run.figures.iter().filter(|figure| !figure.values.is_empty());
    measured.map(|figure| (&figure.key, figure)).collect()
}

fn counts(both: &[(&Figure, &Figure)]) -> Vec<(Experiment, usize, usize)> {
    let count = |experiment| {
        let of_it: Vec<_> = both.iter().filter(|(figure, _)| figure.key.experiment == experiment).collect();
        (experiment, of_it.iter().filter(|(first, second)| agree(first, second)).count(), of_it.len())
    };
    Experiment::ALL.into_iter().map(count).filter(|(_, _, total)| *total > 0).collect()
}

/// Whether the ranges overlap, or the medians are no further apart than the noise of both explains.
fn agree(first: &Figure, second: &Figure) -> bool {
    let (Some(ours), Some(theirs)) = (first.range(), second.range()) else { return false };
    if ours.0 <= theirs.1 && theirs.0 <= ours.1 {
        return true;
    }
    let (Some(one), Some(other)) = (first.median(), second.median()) else { return false };
    if (one < 0.0) != (other < 0.0) {
        return false;
    }
    let (one, other) = (one.abs(), other.abs());
    let (less, more) = (one.min(other), one.max(other));
    let room = (1.0 + first.noise().max(LEAST_NOISE)) * (1.0 + second.noise().max(LEAST_NOISE));
    less > 0.0 && more / less <= room
}

fn words(key: &Key) -> String {
    let conditions = Conditions::of(key).words(key.experiment);
    let quantity = wording::quantity_with_unit(key.quantity);
    let parts = [key.experiment.name(), &key.subject, &conditions];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}: {quantity}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::figure::Quantity;

    fn figure(values: &[f64]) -> Figure {
        Figure { key: Key::new(Experiment::Drain, "relay", Quantity::Rate), values: values.to_vec() }
    }

    #[test]
    fn figures_agree_within_their_ranges_or_their_noise() {
        for (first, second, wanted) in [
            (&[100.0][..], &[100.0][..], true),
            (&[100.0], &[110.0], true),
            (&[100.0], &[111.0], false),
            (&[111.0], &[100.0], false),
            (&[50.0, 100.0, 150.0], &[150.0, 300.0, 310.0], true),
            (&[90.0, 100.0, 110.0], &[111.0, 115.0, 116.0], true),
            (&[80.0, 100.0, 120.0], &[121.0, 125.0, 126.0], true),
            (&[80.0, 100.0, 120.0], &[127.0, 130.0, 131.0], false),
            (&[0.0, 0.0], &[0.0, 0.0], true),
            (&[0.0], &[1.0], false),
            (&[0.0, 0.0, 2.0], &[1.0], true),
            (&[-100.0], &[-110.0], true),
            (&[-100.0], &[-111.0], false),
            (&[-100.0], &[100.0], false),
        ] {
            assert_eq!(agree(&figure(first), &figure(second)), wanted, "{first:?} {second:?}");
        }
    }

    #[test]
    fn a_run_agrees_with_itself() {
        let run = sample::run();
        let comparison = Comparison::of(&run, &run);
        let total: usize = comparison.counts.iter().map(|(_, _, total)| total).sum();
        assert_eq!(total, run.figures.len());
        let text = comparison.to_string();
        assert_eq!(text.lines().count(), 1 + Experiment::ALL.len(), "{text}");
        assert!(text.contains("limits: 2 of 2 agree within the noise they state"), "{text}");
    }

    #[test]
    fn what_differs_and_what_only_one_has_is_told() {
        let key =
            |subject: &str| Key { octets: Some(10 << 10), ..Key::new(Experiment::Drain, subject, Quantity::Rate) };
        let mut first = sample::run_of(vec![
            sample::figure(key("relay"), 2_000.0),
            sample::figure(key("naive"), 40.0),
            Figure { key: key("emailproxy"), values: vec![] },
        ]);
        let mut second =
            sample::run_of(vec![sample::figure(key("relay"), 3_000.0), sample::figure(key("emailproxy"), 16.0)]);
        second.machine.processors = 8;
        first.begun = "A".to_owned();
        second.begun = "B".to_owned();
        let wanted = "\
The runs were made on different machines; only ratios within one run tell anything.

The noise of a figure is taken as 5 % at least.
drain: 0 of 1 agree within the noise they state

Those that do not: A (first) and B (second)
figure                             first       second  second / first
-----------------------------  ---------  -----------  --------------
drain, relay, 10 KiB: rate, /s  2,000 ± 6 %  3,000 ± 6 %            1.50

Only the first run has:
- drain, naive, 10 KiB: rate, /s

Only the second run has:
- drain, emailproxy, 10 KiB: rate, /s
";
        let spaceless = |text: &str| text.replace([' ', '-'], "");
        assert_eq!(spaceless(&Comparison::of(&first, &second).to_string()), spaceless(wanted));
    }

    #[test]
    fn runs_without_a_common_figure_say_so() {
        let text = Comparison::of(&sample::run(), &sample::run_of(vec![])).to_string();
        assert!(
            text.starts_with("The runs have no figure in common.\n\nOnly the first run has:\n- acceptance"),
            "{text}"
        );
    }
}
