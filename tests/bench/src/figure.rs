//! The figures of a run: what was measured, of whom, under which conditions, once for each repetition.
//!
//! Plain data, kept as JSON. It neither measures nor shows: `experiment` makes figures, `report` shows them.

use serde::{Deserialize, Serialize};

/// One run of the benchmark, as its JSON file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When it began, RFC 3339 in UTC.
    pub(crate) begun: String,
    /// How long it took, in seconds.
    pub(crate) seconds: u64,
    /// The command that made it.
    pub(crate) command: String,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Who was measured.
    pub(crate) subjects: Vec<Description>,
    /// The experiments that the benchmark knew. A file from before it told them has those that it had then.
    #[serde(default = "Experiment::untold")]
    pub(crate) experiments: Vec<Experiment>,
    /// What was measured.
    pub(crate) figures: Vec<Figure>,
    /// What a reader must know: peers left out and why, cells that failed, mail lost or doubled.
    pub(crate) remarks: Vec<String>,
}

impl Run {
    /// Whether the benchmark that made it could measure this.
    pub(crate) fn knew(&self, experiment: Experiment) -> bool {
        self.experiments.contains(&experiment)
    }
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) processor: String,
    /// How many of it may be used.
    pub(crate) processors: usize,
    /// Memory, in MiB.
    pub(crate) memory_mib: u64,
    /// Kernel name and release.
    pub(crate) kernel: String,
    /// Type of the file system that the queues were on.
    pub(crate) file_system: String,
}

/// A subject that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Its name in figures.
    pub(crate) name: String,
    /// Product and version.
    pub(crate) product: String,
    /// How it was set up, in a sentence.
    pub(crate) setup: String,
}

/// A quantity that was measured once for each repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is.
    #[serde(flatten)]
    pub(crate) key: Key,
    /// A value for each repetition, in [`Quantity::unit`]; of [`RAW`] one for each subject that it took turns with, too.
    pub(crate) values: Vec<f64>,
}

/// Who stands beside the subjects in [`Experiment::Latency`]: the load, straight into the upstream.
pub(crate) const RAW: &str = "raw";

/// What makes a figure another than its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    /// What was done.
    pub(crate) experiment: Experiment,
    /// To whom; with [`Experiment::Limits`] what of the machine.
    pub(crate) subject: String,
    /// Clients at a time; with [`Experiment::Distance`] connections upstream; with [`Experiment::Idle`] idle sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<usize>,
    /// Size of each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) octets: Option<usize>,
    /// How clients use their connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<Sessions>,
    /// Messages that were in the queue already, with [`Experiment::Start`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queued: Option<usize>,
    /// Milliseconds to upstream and back, with [`Experiment::Latency`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) round_trip: Option<usize>,
    /// What was measured.
    pub(crate) quantity: Quantity,
}

impl Key {
    /// A key without conditions.
    pub(crate) fn new(experiment: Experiment, subject: &str, quantity: Quantity) -> Self {
        Self {
            experiment,
            subject: subject.to_owned(),
            connections: None,
            octets: None,
            sessions: None,
            queued: None,
            round_trip: None,
            quantity,
        }
    }
}

/// How clients use their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sessions {
    /// Many messages on each connection, opened before the measurement.
    Kept,
    /// A connection for each message.
    Single,
}

/// What was done to a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Experiment {
    /// Messages are taken while nothing is sent on.
    Acceptance,
    /// A full queue is sent on while nothing is taken.
    Drain,
    /// Both together: from the first client's MAIL to the last message upstream.
    Through,
    /// One message after the other, by turns through a subject without a queue and straight into the upstream.
    Latency,
    /// A full queue is sent on to an upstream 30 ms away that takes 100 ms for each final reply.
    Distance,
    /// One large message.
    Large,
    /// Nothing happens: fresh, and with idle sessions.
    Idle,
    /// From the start of the process to the first greeting.
    Start,
    /// What the machine itself can do.
    Limits,
    /// The program as a file.
    Program,
}

impl Experiment {
    /// All of them, in the order in which they are told.
    pub(crate) const ALL: [Self; 10] = [
        Self::Acceptance,
        Self::Drain,
        Self::Through,
        Self::Latency,
        Self::Distance,
        Self::Large,
        Self::Idle,
        Self::Start,
        Self::Limits,
        Self::Program,
    ];

    /// What there was before a run's file told it.
    fn untold() -> Vec<Self> {
        Self::ALL.into_iter().filter(|experiment| *experiment != Self::Latency).collect()
    }

    /// Its name, as the JSON file and the command line have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Acceptance => "acceptance",
            Self::Drain => "drain",
            Self::Through => "through",
            Self::Latency => "latency",
            Self::Distance => "distance",
            Self::Large => "large",
            Self::Idle => "idle",
            Self::Start => "start",
            Self::Limits => "limits",
            Self::Program => "program",
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Quantity {
    /// Messages a second; with [`Experiment::Limits`] operations a second.
    Rate,
    /// Median latency of acceptance: from MAIL, or from the connection's begin, to the final reply.
    P50,
    /// Its 90th percentile.
    P90,
    /// Its 99th percentile.
    P99,
    /// Its 99.9th percentile.
    P999,
    /// By how much the median is above that of [`RAW`], by turns with it; negative where it is below.
    Added,
    /// CPU of the subject for each message, user and system.
    Cpu,
    /// CPU of load and upstream for each message.
    RestCpu,
    /// System calls of the subject for each message.
    Calls,
    /// fsync, fdatasync and their kin of the subject for each message.
    Syncs,
    /// Resident memory: of one process its resident set; of several the sum of their private parts.
    Resident,
    /// The highest of it.
    PeakResident,
    /// By how much one message moved the highest of it.
    Growth,
    /// Until the client had its final reply.
    Accepted,
    /// Until upstream had the message.
    Delivered,
    /// Until the first greeting.
    Listening,
    /// Voluntary context switches of an idle subject, a second.
    Wakes,
    /// Size of the file.
    Size,
}

impl Quantity {
    /// The unit of its values.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::Wakes => "/s",
            Self::P50
            | Self::P90
            | Self::P99
            | Self::P999
            | Self::Added
            | Self::Cpu
            | Self::RestCpu
            | Self::Listening => "ms",
            Self::Accepted | Self::Delivered => "s",
            Self::Calls | Self::Syncs => "",
            Self::Resident | Self::PeakResident | Self::Growth | Self::Size => "MiB",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::Rate)
    }
}

impl Figure {
    /// The median of its values; none without values.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            length if length % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }

    /// The lowest and the highest of its values; none without values.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let lowest = self.values.iter().copied().min_by(f64::total_cmp)?;
        let highest = self.values.iter().copied().max_by(f64::total_cmp)?;
        Some((lowest, highest))
    }

    /// Half of the range as a share of the median, whatever its sign: what "± 12 %" says. Zero where the median is.
    pub(crate) fn noise(&self) -> f64 {
        match (self.median(), self.range()) {
            (Some(median), Some((lowest, highest))) if median != 0.0 => (highest - lowest) / 2.0 / median.abs(),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64]) -> Figure {
        Figure { key: Key::new(Experiment::Drain, "relay", Quantity::Rate), values: values.to_vec() }
    }

    #[test]
    fn medians_and_noise() {
        for (values, median, noise) in [
            (&[][..], None, 0.0),
            (&[4.0], Some(4.0), 0.0),
            (&[3.0, 1.0], Some(2.0), 0.5),
            (&[9.0, 1.0, 2.0], Some(2.0), 2.0),
            (&[10.0, 8.0, 12.0, 10.0], Some(10.0), 0.2),
            (&[0.0, 0.0], Some(0.0), 0.0),
            (&[-8.0, -12.0, -10.0], Some(-10.0), 0.2),
        ] {
            let figure = figure(values);
            assert_eq!(figure.median(), median, "{values:?}");
            assert!((figure.noise() - noise).abs() < 1e-9, "{values:?}: {}", figure.noise());
        }
    }

    #[test]
    fn an_experiment_is_named_as_in_the_file() {
        for experiment in Experiment::ALL {
            assert_eq!(serde_json::to_value(experiment).unwrap(), experiment.name());
        }
    }

    #[test]
    fn a_run_survives_its_file() {
        let mut key = Key::new(Experiment::Acceptance, "relay", Quantity::P999);
        key.connections = Some(10);
        key.sessions = Some(Sessions::Single);
        let run = Run {
            begun: "2026-11-21T14:00:00Z".to_owned(),
            seconds: 1,
            command: "bench".to_owned(),
            machine: Machine {
                processor: "p".to_owned(),
                processors: 2,
                memory_mib: 1,
                kernel: "k".to_owned(),
                file_system: "ext4".to_owned(),
            },
            subjects: vec![],
            experiments: vec![Experiment::Latency],
            figures: vec![Figure { key, values: vec![1.5, 2.25] }],
            remarks: vec!["one".to_owned()],
        };
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), run);
        assert!(text.contains("\"connections\":10") && !text.contains("octets"), "{text}");
    }

    #[test]
    fn a_file_that_tells_no_experiments_has_those_of_before() {
        let text = r#"{"begun": "", "seconds": 1, "command": "", "subjects": [], "figures": [], "remarks": [], "machine":
            {"processor": "", "processors": 1, "memory_mib": 1, "kernel": "", "file_system": ""}}"#;
        let run: Run = serde_json::from_str(text).unwrap();
        for experiment in Experiment::ALL {
            assert_eq!(run.knew(experiment), experiment != Experiment::Latency, "{experiment:?}");
        }
    }
}
