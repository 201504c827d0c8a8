//! How experiments, quantities, conditions and numbers are said. What is measured stands in `figure`.

use crate::figure::{Experiment, Figure, Key, Machine, Quantity, Sessions};

/// What stands where a figure does not exist.
pub(super) const DASH: &str = "–";

/// The conditions of a figure: what it may differ in from its neighbours, but for the subject and the quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conditions {
    /// As in [`Key`].
    pub(super) connections: Option<usize>,
    /// As in [`Key`].
    pub(super) octets: Option<usize>,
    /// As in [`Key`].
    pub(super) sessions: Option<Sessions>,
    /// As in [`Key`].
    pub(super) queued: Option<usize>,
    /// As in [`Key`].
    pub(super) round_trip: Option<usize>,
}

impl Conditions {
    /// Those of a key.
    pub(super) fn of(key: &Key) -> Self {
        Self {
            connections: key.connections,
            octets: key.octets,
            sessions: key.sessions,
            queued: key.queued,
            round_trip: key.round_trip,
        }
    }

    /// In words, such as "10 clients, 10 KiB, kept"; empty without conditions.
    pub(super) fn words(self, experiment: Experiment) -> String {
        let mut words = Vec::new();
        words.extend(self.connections.map(|number| format!("{} {}", count(number), connections(experiment))));
        words.extend(self.octets.map(size));
        words.extend(self.sessions.map(|sessions| session(sessions).to_owned()));
        words.extend(self.queued.map(|number| format!("{} queued", count(number))));
        words.extend(self.round_trip.map(|time| format!("{} away", milliseconds(time))));
        words.join(", ")
    }
}

/// What the connections of an experiment are.
pub(super) fn connections(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Distance => "upstream",
        Experiment::Idle => "idle sessions",
        _ => "clients",
    }
}

/// How clients use their connections.
pub(super) fn session(sessions: Sessions) -> &'static str {
    match sessions {
        Sessions::Kept => "kept",
        Sessions::Single => "single",
    }
}

/// The heading of an experiment.
pub(super) fn title(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Acceptance => "Acceptance",
        Experiment::Drain => "Drain",
        Experiment::Through => "Through",
        Experiment::Latency => "Latency",
        Experiment::Distance => "Distance",
        Experiment::Large => "Large messages",
        Experiment::Idle => "Idle",
        Experiment::Start => "Start",
        Experiment::Limits => "Limits of the machine",
        Experiment::Program => "Program",
    }
}

/// A quantity, without its unit.
pub(super) fn quantity(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Rate => "rate",
        Quantity::P50 => "p50",
        Quantity::P90 => "p90",
        Quantity::P99 => "p99",
        Quantity::P999 => "p99.9",
        Quantity::Added => "added to raw's p50",
        Quantity::Cpu => "CPU for each message",
        Quantity::RestCpu => "CPU of load and upstream for each message",
        Quantity::Calls => "system calls",
        Quantity::Syncs => "syncs",
        Quantity::Resident => "resident memory",
        Quantity::PeakResident => "highest resident memory",
        Quantity::Growth => "growth of the highest resident memory",
        Quantity::Accepted => "until accepted",
        Quantity::Delivered => "until delivered",
        Quantity::Listening => "until the first greeting",
        Quantity::Wakes => "context switches",
        Quantity::Size => "size of the program's file",
    }
}

/// A quantity with its unit, such as "rate, /s".
pub(super) fn quantity_with_unit(of: Quantity) -> String {
    match of.unit() {
        "" => quantity(of).to_owned(),
        unit => format!("{}, {unit}", quantity(of)),
    }
}

/// The machine in one line.
pub(super) fn machine(machine: &Machine) -> String {
    format!(
        "{}, {} of its processors, {} MiB of memory, {}, queues on {}",
        machine.processor,
        count(machine.processors),
        thousands(&machine.memory_mib.to_string()),
        machine.kernel,
        machine.file_system
    )
}

/// A count as a number to reckon with.
pub(super) fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A count with its thousands separated.
pub(super) fn count(count: usize) -> String {
    thousands(&count.to_string())
}

/// Milliseconds.
pub(super) fn milliseconds(time: usize) -> String {
    format!("{} ms", count(time))
}

/// A value in three digits that count, or all of those before the point.
pub(super) fn number(value: f64) -> String {
    digits(value, 99.95)
}

/// A value in two digits that count, or all of those before the point.
pub(super) fn brief(value: f64) -> String {
    digits(value, 9.95)
}

/// A value for a narrow place, such as "850", "7.9k" or "22k".
pub(super) fn tick(value: f64) -> String {
    let (value, thousands) = match value {
        _ if value >= 999_500.0 => (value / 1_000_000.0, "M"),
        _ if value >= 999.5 => (value / 1_000.0, "k"),
        _ => (value, ""),
    };
    let digits = brief(value);
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{thousands}")
}

/// Decimals are added until the digits, read as a whole number, reach `enough`.
fn digits(value: f64, enough: f64) -> String {
    if !value.is_finite() {
        return DASH.to_owned();
    }
    let (mut decimals, mut whole) = (0, value.abs());
    while whole > 0.0 && whole < enough && decimals < 6 {
        whole *= 10.0;
        decimals += 1;
    }
    thousands(&format!("{value:.decimals$}"))
}

/// A decimal number with commas between the thousands.
fn thousands(number: &str) -> String {
    let (sign, unsigned) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(whole, rest)| (whole, Some(rest)));
    let mut text = sign.to_owned();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A size in the largest unit that divides it.
pub(super) fn size(octets: usize) -> String {
    let units = [(1 << 20, "MiB"), (1_000_000, "MB"), (1 << 10, "KiB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| octets >= *unit && octets.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", count(octets / unit)),
        None => format!("{} B", count(octets)),
    }
}

/// "± 12 %".
pub(super) fn percent(noise: f64) -> String {
    format!("± {} %", thousands(&format!("{:.0}", noise * 100.0)))
}

/// The median with the noise, "7,969 ± 12 %"; without the noise where one repetition tells none, a dash without values.
pub(super) fn spread(figure: Option<&Figure>) -> String {
    match figure.and_then(|figure| Some((figure, figure.median()?))) {
        None => DASH.to_owned(),
        Some((figure, median)) if figure.values.len() < 2 => number(median),
        Some((figure, median)) => format!("{} {}", number(median), percent(figure.noise())),
    }
}

/// A duration of a whole run.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, number_, brief_) in [
            (0.0, "0", "0"),
            (7969.4, "7,969", "7,969"),
            (1_234_567.0, "1,234,567", "1,234,567"),
            (99.96, "100", "100"),
            (37.25, "37.2", "37"),
            (9.967, "9.97", "10"),
            (7.969, "7.97", "8.0"),
            (0.31, "0.310", "0.31"),
            (0.0312, "0.0312", "0.031"),
            (0.000_000_1, "0.000000", "0.000000"),
            (-1234.0, "-1,234", "-1,234"),
            (f64::NAN, "–", "–"),
        ] {
            assert_eq!((number(value), brief(value)), (number_.to_owned(), brief_.to_owned()), "{value}");
        }
    }

    #[test]
    fn ticks() {
        for (value, said) in [
            (0.0, "0"),
            (0.1, "0.1"),
            (9.0, "9"),
            (2.93, "2.9"),
            (100.0, "100"),
            (850.0, "850"),
            (999.7, "1k"),
            (7_949.0, "7.9k"),
            (22_000.0, "22k"),
            (1e6, "1M"),
        ] {
            assert_eq!(tick(value), said);
        }
    }

    #[test]
    fn sizes() {
        for (octets, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1024, "1 KiB"),
            (10_240, "10 KiB"),
            (10_000, "10 kB"),
            (1 << 20, "1 MiB"),
            (100_000_000, "100 MB"),
            (1_234_567, "1,234,567 B"),
        ] {
            assert_eq!(size(octets), said);
        }
    }

    #[test]
    fn medians_with_their_noise() {
        let figure = |values: &[f64]| Figure {
            key: Key::new(Experiment::Drain, "relay", Quantity::Rate),
            values: values.to_vec(),
        };
        assert_eq!(spread(Some(&figure(&[7000.0, 8000.0, 9000.0]))), "8,000 ± 12 %");
        assert_eq!(spread(Some(&figure(&[8000.0]))), "8,000");
        assert_eq!(spread(Some(&figure(&[]))), DASH);
        assert_eq!(spread(None), DASH);
    }

    #[test]
    fn durations() {
        for (seconds, said) in [(7, "7 s"), (61, "1 min"), (4_000, "1 h 6 min")] {
            assert_eq!(duration(seconds), said);
        }
    }
}
