//! The budgets of the design, and what a run says of each.
//!
//! They are shown and never asserted: a machine that is busy would make a test of them lie.

use crate::figure::{Experiment, Figure, Key, Quantity, Run, Sessions};

use super::table::{Side, Table};
use super::wording::{self, Conditions};

const RELAY: &str = "relay";
const DIRECT: &str = crate::subject::DIRECT;
const XOAUTH2: &[&str] = &["postfix-xoauth2"];
/// The better of them counts where a budget names no plugin.
const ANY_POSTFIX: &[&str] = &["postfix-plain", "postfix-xoauth2"];
/// A message of "10 KB".
const SMALL: &[usize] = &[10 << 10, 10_000];
/// A message of "100 MB".
const LARGE: &[usize] = &[100_000_000, 100 << 20];
/// The unit of a ratio.
const TIMES: &str = "×";
/// From MiB to MB.
const MB: f64 = 1.048_576;
const NO_FIGURE: &str = "no figure of the relay";
const NO_FIGURE_DIRECT: &str = "no figure of relay-direct";
const NO_DIRECT: &str = "direct mode is not built";
const NO_CONTAINER: &str = "no container engine in the run";

/// A promise of the design.
struct Budget {
    what: &'static str,
    bound: Bound,
    measure: Measure,
}

/// What the measured value may be.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// How the value follows from figures.
enum Measure {
    /// A figure of the relay over that of the best of these peers under the same conditions.
    Ratio(Cell, &'static [&'static str]),
    /// A figure of the relay, in this unit, with the factor that leads there.
    Value(Cell, &'static str, f64),
    /// A figure of the relay's direct mode, in this unit.
    Direct(Cell, &'static str),
    /// The highest of the relay's peaks of memory under load.
    Peak,
    /// Not to be had: its unit, and why.
    Not(&'static str, &'static str),
}

/// Which figure is meant.
#[derive(Clone, Copy)]
struct Cell {
    experiment: Experiment,
    quantity: Quantity,
    connections: Condition,
    octets: Option<&'static [usize]>,
    queued: Condition,
    round_trip: Condition,
}

/// What a condition of a key must be. A key without the condition is one with none of it.
#[derive(Clone, Copy)]
enum Condition {
    Any,
    Exactly(usize),
}

impl Condition {
    fn holds(self, of_key: Option<usize>) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(number) => of_key.unwrap_or(0) == number,
        }
    }
}

impl Cell {
    const fn new(experiment: Experiment, quantity: Quantity) -> Self {
        Self {
            experiment,
            quantity,
            connections: Condition::Any,
            octets: None,
            queued: Condition::Exactly(0),
            round_trip: Condition::Exactly(0),
        }
    }

    const fn connections(self, number: usize) -> Self {
        Self { connections: Condition::Exactly(number), ..self }
    }

    const fn octets(self, sizes: &'static [usize]) -> Self {
        Self { octets: Some(sizes), ..self }
    }

    const fn queued(self, number: usize) -> Self {
        Self { queued: Condition::Exactly(number), ..self }
    }

    /// The figure of a subject, connections kept where it has a choice.
    fn of<'a>(&self, run: &'a Run, subject: &str) -> Option<&'a Figure> {
        run.figures
            .iter()
            .find(|figure| figure.key.subject == subject && self.is(&figure.key) && !figure.values.is_empty())
    }

    fn is(&self, key: &Key) -> bool {
        let octets = |sizes: &[usize]| key.octets.is_some_and(|octets| sizes.contains(&octets));
        key.experiment == self.experiment
            && key.quantity == self.quantity
            && self.connections.holds(key.connections)
            && self.queued.holds(key.queued)
            && self.round_trip.holds(key.round_trip)
            && self.octets.is_none_or(octets)
            && key.sessions != Some(Sessions::Single)
    }
}

/// What a run says of a budget.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// The median keeps it.
    Met(Measured),
    /// The median does not.
    Missed(Measured),
    /// The run cannot tell.
    NotMeasured(String),
}

/// A value with the noise of the figures it comes from.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    value: f64,
    noise: f64,
    unit: &'static str,
    /// Where it was seen, if that is not plain from the budget.
    of: String,
}

impl Measured {
    fn words(&self) -> String {
        let noise = if self.noise > 0.0 { format!(" {}", wording::percent(self.noise)) } else { String::new() };
        format!("{} {}{noise}", wording::number(self.value), self.unit)
    }
}

impl Bound {
    fn keeps(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    /// Whether the noise reaches over the bound.
    fn is_near(self, measured: &Measured) -> bool {
        let Measured { value, noise, .. } = *measured;
        self.keeps(value * (1.0 + noise)) != self.keeps(value / (1.0 + noise))
    }

    fn words(self, unit: &str) -> String {
        let (sign, bound) = match self {
            Self::AtLeast(bound) => ("≥", bound),
            Self::AtMost(bound) => ("≤", bound),
        };
        format!("{sign} {bound} {unit}")
    }
}

impl Budget {
    fn judge(&self, run: &Run) -> Verdict {
        let measured = match &self.measure {
            Measure::Not(_, why) => Err((*why).to_owned()),
            Measure::Ratio(cell, peers) => ratio(run, cell, peers),
            Measure::Value(cell, unit, factor) => value(run, cell, unit, *factor),
            Measure::Direct(cell, unit) => direct(run, cell, unit),
            Measure::Peak => peak(run),
        };
        match measured {
            Err(why) => Verdict::NotMeasured(why),
            Ok(measured) if self.bound.keeps(measured.value) => Verdict::Met(measured),
            Ok(measured) => Verdict::Missed(measured),
        }
    }

    fn unit(&self) -> &'static str {
        match &self.measure {
            Measure::Ratio(..) => TIMES,
            Measure::Value(_, unit, _) | Measure::Direct(_, unit) | Measure::Not(unit, _) => unit,
            Measure::Peak => "MiB",
        }
    }

    fn row(&self, run: &Run) -> Vec<String> {
        let (measured, verdict, note) = match self.judge(run) {
            Verdict::NotMeasured(why) => (wording::DASH.to_owned(), "not measured", why),
            Verdict::Met(measured) => (measured.words(), "met", self.note(&measured)),
            Verdict::Missed(measured) => (measured.words(), "missed", self.note(&measured)),
        };
        vec![self.what.to_owned(), self.bound.words(self.unit()), measured, verdict.to_owned(), note]
    }

    /// Where the value was seen, and whether its noise reaches over the bound.
    fn note(&self, measured: &Measured) -> String {
        let doubt = if self.bound.is_near(measured) { "within the noise" } else { "" };
        let parts = [measured.of.as_str(), doubt].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }
}

/// Every budget with what the run says of it.
pub(super) fn table(run: &Run) -> Table {
    let mut table = Table::new("");
    for (name, side) in [
        ("budget", Side::Left),
        ("bound", Side::Left),
        ("measured", Side::Right),
        ("verdict", Side::Left),
        ("note", Side::Left),
    ] {
        table.column(name, side);
    }
    for budget in budgets() {
        table.row(budget.row(run));
    }
    table
}

/// The highest peak of memory that a subject had under load, large messages aside.
pub(super) fn peak_under_load<'a>(run: &'a Run, subject: &str) -> Option<&'a Figure> {
    let under_load = |figure: &&Figure| {
        let load = [Experiment::Acceptance, Experiment::Drain, Experiment::Through, Experiment::Distance];
        figure.key.subject == subject
            && figure.key.quantity == Quantity::PeakResident
            && load.contains(&figure.key.experiment)
    };
    let median = |figure: &Figure| figure.median().unwrap_or(f64::NEG_INFINITY);
    let peaks = run.figures.iter().filter(under_load).filter(|figure| !figure.values.is_empty());
    peaks.max_by(|one, other| median(one).total_cmp(&median(other)))
}

fn ratio(run: &Run, cell: &Cell, peers: &[&str]) -> Result<Measured, String> {
    let ours = cell.of(run, RELAY).ok_or(NO_FIGURE)?;
    let same = |figure: &&Figure| {
        let key = Key { subject: RELAY.to_owned(), ..figure.key.clone() };
        peers.contains(&figure.key.subject.as_str()) && key == ours.key && figure.median().is_some_and(|it| it > 0.0)
    };
    let median = |figure: &Figure| figure.median().unwrap_or_default();
    let best = |one: &&Figure, other: &&Figure| {
        let order = median(one).total_cmp(&median(other));
        if cell.quantity.more_is_better() { order } else { order.reverse() }
    };
    let theirs = run.figures.iter().filter(same).max_by(best);
    let theirs = theirs.ok_or_else(|| format!("no figure of {}", peers.join(" or ")))?;
    Ok(Measured {
        value: median(ours) / median(theirs),
        noise: (1.0 + ours.noise()) * (1.0 + theirs.noise()) - 1.0,
        unit: TIMES,
        of: format!("over {}", theirs.key.subject),
    })
}

fn value(run: &Run, cell: &Cell, unit: &'static str, factor: f64) -> Result<Measured, String> {
    let figure = cell.of(run, RELAY).ok_or(NO_FIGURE)?;
    let median = figure.median().unwrap_or_default();
    Ok(Measured { value: median * factor, noise: figure.noise(), unit, of: String::new() })
}

/// A run from before direct mode could be measured is one of a relay that had none.
fn direct(run: &Run, cell: &Cell, unit: &'static str) -> Result<Measured, String> {
    let reason = if run.knew(Experiment::Latency) { NO_FIGURE_DIRECT } else { NO_DIRECT };
    let figure = cell.of(run, DIRECT).ok_or(reason)?;
    Ok(Measured { value: figure.median().unwrap_or_default(), noise: figure.noise(), unit, of: String::new() })
}

fn peak(run: &Run) -> Result<Measured, String> {
    let figure = peak_under_load(run, RELAY).ok_or(NO_FIGURE)?;
    let experiment = figure.key.experiment;
    let words = Conditions::of(&figure.key).words(experiment);
    let of = if words.is_empty() { experiment.name().to_owned() } else { format!("{}, {words}", experiment.name()) };
    Ok(Measured { value: figure.median().unwrap_or_default(), noise: figure.noise(), unit: "MiB", of })
}

/// The budgets, in the order of the design.
fn budgets() -> Vec<Budget> {
    let mut budgets = speed();
    budgets.extend(memory());
    budgets.extend(rest());
    budgets
}

fn speed() -> Vec<Budget> {
    use Bound::{AtLeast, AtMost};
    let accept = |quantity, clients| Cell::new(Experiment::Acceptance, quantity).connections(clients).octets(SMALL);
    let through = |quantity, clients| Cell::new(Experiment::Through, quantity).connections(clients).octets(SMALL);
    let drain = Cell::new(Experiment::Drain, Quantity::Rate).octets(SMALL);
    let budget = |what, bound, cell, peers| Budget { what, bound, measure: Measure::Ratio(cell, peers) };
    vec![
        budget("acceptance, 10 KB, 10 clients: rate", AtLeast(15.0), accept(Quantity::Rate, 10), ANY_POSTFIX),
        budget("acceptance, 10 KB, 100 clients: rate", AtLeast(15.0), accept(Quantity::Rate, 100), ANY_POSTFIX),
        budget("acceptance, 10 KB, 10 clients: p99", AtMost(0.2), accept(Quantity::P99, 10), ANY_POSTFIX),
        budget("acceptance, 10 KB, 100 clients: p99", AtMost(0.1), accept(Quantity::P99, 100), ANY_POSTFIX),
        budget("drain, 10 KB: rate", AtLeast(10.0), drain, XOAUTH2),
        budget("through, 10 KB, 10 clients: rate", AtLeast(10.0), through(Quantity::Rate, 10), XOAUTH2),
        budget("through, 10 KB, 100 clients: rate", AtLeast(10.0), through(Quantity::Rate, 100), XOAUTH2),
        budget("through, 10 KB, 10 clients: CPU", AtMost(0.1), through(Quantity::Cpu, 10), ANY_POSTFIX),
        budget("through, 10 KB, 100 clients: CPU", AtMost(0.1), through(Quantity::Cpu, 100), ANY_POSTFIX),
    ]
}

fn memory() -> Vec<Budget> {
    use Bound::AtMost;
    let idle = |sessions| Cell::new(Experiment::Idle, Quantity::Resident).connections(sessions);
    let large = |quantity| Cell::new(Experiment::Large, quantity).octets(LARGE);
    let mib = |cell| Measure::Value(cell, "MiB", 1.0);
    let budget = |what, bound, measure| Budget { what, bound, measure };
    let longer = |quantity| Measure::Ratio(large(quantity), ANY_POSTFIX);
    vec![
        budget("memory, freshly started", AtMost(12.0), mib(idle(0))),
        budget("memory, 10,000 idle sessions", AtMost(100.0), mib(idle(10_000))),
        budget("memory, highest under load", AtMost(64.0), Measure::Peak),
        budget("memory, growth by a 100 MB message", AtMost(16.0), mib(large(Quantity::Growth))),
        budget("the same in direct mode", AtMost(16.0), Measure::Direct(large(Quantity::Growth), "MiB")),
        budget("100 MB message: time until accepted", AtMost(1.0), longer(Quantity::Accepted)),
        budget("100 MB message: time until delivered", AtMost(1.0), longer(Quantity::Delivered)),
    ]
}

fn rest() -> Vec<Budget> {
    use Bound::AtMost;
    let start = Cell::new(Experiment::Start, Quantity::Listening);
    let wakes = Cell::new(Experiment::Idle, Quantity::Wakes).connections(0);
    let program = Cell::new(Experiment::Program, Quantity::Size);
    let added = Cell::new(Experiment::Latency, Quantity::Added).octets(SMALL);
    let budget = |what, bound, measure| Budget { what, bound, measure };
    vec![
        budget("until listening after start", AtMost(50.0), Measure::Value(start, "ms", 1.0)),
        budget("the same with 100,000 queued", AtMost(50.0), Measure::Value(start.queued(100_000), "ms", 1.0)),
        budget("direct mode: added to upstream's median", AtMost(1.0), Measure::Direct(added, "ms")),
        budget("release binary", AtMost(20.0), Measure::Value(program, "MB", MB)),
        budget("container image", AtMost(30.0), Measure::Not("MB", NO_CONTAINER)),
        budget("wakes of an idle daemon", AtMost(1.0), Measure::Value(wakes, "/s", 1.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::table::Style;
    use super::*;

    const RATE: Cell = Cell::new(Experiment::Through, Quantity::Rate).connections(10).octets(SMALL);

    fn key(subject: &str, quantity: Quantity) -> Key {
        Key {
            connections: Some(10),
            octets: Some(10 << 10),
            sessions: Some(Sessions::Kept),
            ..Key::new(Experiment::Through, subject, quantity)
        }
    }

    fn run(figures: &[(&str, Quantity, &[f64])]) -> Run {
        let figure = |(subject, quantity, values): &(&str, Quantity, &[f64])| Figure {
            key: key(subject, *quantity),
            values: values.to_vec(),
        };
        sample::run_of(figures.iter().map(figure).collect())
    }

    fn verdict(bound: Bound, measure: Measure, run: &Run) -> String {
        Budget { what: "it", bound, measure }.row(run)[2..].join(", ")
    }

    #[test]
    fn a_ratio_is_judged_by_the_medians_and_carries_the_noise_of_both() {
        for (relay, postfix, wanted) in [
            (&[3000.0][..], &[300.0][..], "10.0 ×, met, over postfix-xoauth2"),
            (&[2990.0], &[300.0], "9.97 ×, missed, over postfix-xoauth2"),
            (&[3600.0, 4000.0, 4400.0], &[190.0, 200.0, 210.0], "20.0 × ± 16 %, met, over postfix-xoauth2"),
            (
                &[2000.0, 2200.0, 2400.0],
                &[190.0, 200.0, 210.0],
                "11.0 × ± 15 %, met, over postfix-xoauth2; within the noise",
            ),
            (&[2600.0, 2700.0, 2800.0], &[300.0], "9.00 × ± 4 %, missed, over postfix-xoauth2"),
            (&[], &[300.0], "–, not measured, no figure of the relay"),
            (&[3000.0], &[], "–, not measured, no figure of postfix-xoauth2"),
            (&[3000.0], &[0.0], "–, not measured, no figure of postfix-xoauth2"),
        ] {
            let run = run(&[("relay", Quantity::Rate, relay), ("postfix-xoauth2", Quantity::Rate, postfix)]);
            assert_eq!(verdict(Bound::AtLeast(10.0), Measure::Ratio(RATE, XOAUTH2), &run), wanted, "{relay:?}");
        }
    }

    #[test]
    fn postfix_without_a_plugin_named_is_the_better_of_the_two() {
        let rates = run(&[
            ("relay", Quantity::Rate, &[100.0]),
            ("postfix-plain", Quantity::Rate, &[20.0]),
            ("postfix-xoauth2", Quantity::Rate, &[10.0]),
            ("naive", Quantity::Rate, &[99.0]),
        ]);
        let wanted = "5.00 ×, met, over postfix-plain";
        assert_eq!(verdict(Bound::AtLeast(5.0), Measure::Ratio(RATE, ANY_POSTFIX), &rates), wanted);
        let latencies = run(&[
            ("relay", Quantity::P99, &[1.0]),
            ("postfix-plain", Quantity::P99, &[20.0]),
            ("postfix-xoauth2", Quantity::P99, &[10.0]),
        ]);
        let cell = Cell { quantity: Quantity::P99, ..RATE };
        let wanted = "0.100 ×, met, over postfix-xoauth2";
        assert_eq!(verdict(Bound::AtMost(0.1), Measure::Ratio(cell, ANY_POSTFIX), &latencies), wanted);
    }

    #[test]
    fn figures_under_other_conditions_do_not_count() {
        let mut run = run(&[("relay", Quantity::Rate, &[100.0])]);
        for change in [
            |key: &mut Key| key.connections = Some(100),
            |key: &mut Key| key.octets = Some(1 << 20),
            |key: &mut Key| key.sessions = Some(Sessions::Single),
            |key: &mut Key| key.queued = Some(5),
            |key: &mut Key| key.round_trip = Some(30),
            |key: &mut Key| key.experiment = Experiment::Acceptance,
        ] {
            run.figures[0].key = key("relay", Quantity::Rate);
            assert!(RATE.of(&run, RELAY).is_some());
            change(&mut run.figures[0].key);
            assert!(RATE.of(&run, RELAY).is_none(), "{:?}", run.figures[0].key);
        }
    }

    #[test]
    fn the_peak_is_the_highest_under_load_and_says_where() {
        let mut run = run(&[("relay", Quantity::PeakResident, &[30.0]), ("relay", Quantity::PeakResident, &[70.0])]);
        run.figures[1].key.connections = Some(100);
        let wanted = "70.0 MiB, missed, through, 100 clients, 10 KiB, kept";
        assert_eq!(verdict(Bound::AtMost(64.0), Measure::Peak, &run), wanted);
        run.figures[1].key.experiment = Experiment::Large;
        let wanted = "30.0 MiB, met, through, 10 clients, 10 KiB, kept";
        assert_eq!(verdict(Bound::AtMost(64.0), Measure::Peak, &run), wanted);
    }

    #[test]
    fn a_run_without_figures_measures_no_budget() {
        let run = sample::run_of(vec![]);
        for budget in budgets() {
            assert!(matches!(budget.judge(&run), Verdict::NotMeasured(_)), "{}", budget.what);
        }
    }

    #[test]
    fn direct_mode_is_judged_by_its_own_figures_and_a_run_from_before_it_says_so() {
        let rows = |run: &Run| {
            let direct = budgets().into_iter().filter(|budget| matches!(budget.measure, Measure::Direct(..)));
            direct.map(|budget| budget.row(run)[2..].join(", ")).collect::<Vec<_>>()
        };
        let mut run = sample::run();
        assert_eq!(rows(&run), ["2.85 MiB ± 6 %, met, ", "0.400 ms ± 6 %, met, "]);
        for figure in run.figures.iter_mut().filter(|figure| figure.key.subject == DIRECT) {
            figure.key.subject = "relay-other".to_owned();
        }
        assert_eq!(rows(&run), ["–, not measured, no figure of relay-direct"; 2]);
        run.experiments.retain(|experiment| *experiment != Experiment::Latency);
        assert_eq!(rows(&run), ["–, not measured, direct mode is not built"; 2]);
    }

    #[test]
    fn a_whole_run_measures_all_budgets_but_that_of_the_image() {
        let text = table(&sample::run()).show(Style::Text);
        assert_eq!(text.matches("not measured").count(), 1, "{text}");
        assert!(text.contains("108 MiB ± 6 %") && text.contains("12.0 MB ± 6 %"), "{text}");
    }
}
