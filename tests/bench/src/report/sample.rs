//! A run as a real one could be, for tests only: six subjects, all experiments, figures that do not exist.
//!
//! Its values are invented, near those that a machine of two cores gave, and vary by a fixed pattern.

use crate::figure::{Description, Experiment, Figure, Key, Machine, Quantity, RAW, Run, Sessions};

/// Shares of the median that the repetitions of every figure have.
const PATTERN: [f64; 3] = [0.96, 1.0, 1.07];

/// A subject's speed: messages a second at 10 connections, CPU of a message in ms, memory in MiB, and whether it queues.
struct Shape {
    name: &'static str,
    rate: f64,
    cpu: f64,
    memory: f64,
    has_queue: bool,
}

const SHAPES: [Shape; 6] = [
    Shape { name: "relay", rate: 6800.0, cpu: 0.21, memory: 9.5, has_queue: true },
    Shape { name: "relay-direct", rate: 7100.0, cpu: 0.19, memory: 9.5, has_queue: false },
    Shape { name: "postfix-plain", rate: 318.0, cpu: 4.6, memory: 36.0, has_queue: true },
    Shape { name: "postfix-xoauth2", rate: 303.0, cpu: 5.0, memory: 37.0, has_queue: true },
    Shape { name: "emailproxy", rate: 16.0, cpu: 48.0, memory: 61.0, has_queue: false },
    Shape { name: "naive", rate: 44.0, cpu: 9.0, memory: 24.0, has_queue: false },
];

/// The whole of it.
pub(super) fn run() -> Run {
    let mut figures = Vec::new();
    for shape in &SHAPES {
        figures.extend(matrix(shape));
        figures.extend(alone(shape));
    }
    figures.push(figure(Key::new(Experiment::Limits, "fsync of 10 KiB", Quantity::Rate), 1_900.0));
    figures.push(figure(Key::new(Experiment::Limits, "source to sink", Quantity::Rate), 22_000.0));
    figures.extend(latency());
    figures.push(figure(Key::new(Experiment::Program, "relay", Quantity::Size), 11.4));
    Run {
        begun: "2026-11-21T14:00:00Z".to_owned(),
        seconds: 4_012,
        command: "cargo run --release -p bench -- run".to_owned(),
        machine: Machine {
            processor: "Example CPU at 2.80 GHz".to_owned(),
            processors: 2,
            memory_mib: 7_944,
            kernel: "Linux 6.12.0".to_owned(),
            file_system: "ext4".to_owned(),
        },
        subjects: SHAPES.iter().map(|shape| description(shape.name)).collect(),
        experiments: Experiment::ALL.to_vec(),
        figures,
        remarks: vec!["emailproxy: no figure at 100 clients, it refused 41 connections".to_owned()],
    }
}

/// A run with one figure.
pub(super) fn run_of(figures: Vec<Figure>) -> Run {
    Run { figures, subjects: vec![], remarks: vec![], ..run() }
}

/// A figure around this median.
pub(super) fn figure(key: Key, median: f64) -> Figure {
    Figure { key, values: PATTERN.iter().map(|share| share * median).collect() }
}

fn description(name: &str) -> Description {
    Description {
        name: name.to_owned(),
        product: format!("{name} 1.0"),
        setup: "as its documentation tells, with pacing off and 20 connections upstream".to_owned(),
    }
}

/// Acceptance, drain and through.
fn matrix(shape: &Shape) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (octets, slower) in [(10 << 10, 1.0), (100 << 10, 2.4), (1 << 20, 11.0)] {
        for (connections, faster) in [(1, 0.3), (10, 1.0), (100, 1.3)] {
            for (sessions, share) in [(Sessions::Kept, 1.0), (Sessions::Single, 0.7)] {
                if shape.name == "emailproxy" && connections == 100 {
                    continue;
                }
                let key = |experiment, quantity| Key {
                    connections: Some(connections),
                    octets: Some(octets),
                    sessions: Some(sessions),
                    ..Key::new(experiment, shape.name, quantity)
                };
                let rate = shape.rate * faster * share / slower;
                if shape.has_queue {
                    figures.extend(accepted(shape, rate, slower, |quantity| key(Experiment::Acceptance, quantity)));
                }
                figures.extend(accepted(shape, rate * 0.6, slower, |quantity| key(Experiment::Through, quantity)));
            }
        }
        if shape.has_queue {
            let key = |quantity| Key { octets: Some(octets), ..Key::new(Experiment::Drain, shape.name, quantity) };
            figures.push(figure(key(Quantity::Rate), shape.rate * 0.8 / slower));
            figures.push(figure(key(Quantity::Cpu), shape.cpu * 0.7 * slower));
            figures.push(figure(key(Quantity::PeakResident), shape.memory * 3.0));
        }
    }
    figures
}

/// What every cell with clients gives.
fn accepted(shape: &Shape, rate: f64, slower: f64, key: impl Fn(Quantity) -> Key) -> Vec<Figure> {
    let clients = key(Quantity::Rate).connections.map_or(1.0, super::wording::real);
    let latency = clients * 1000.0 / rate;
    let values = [
        (Quantity::Rate, rate),
        (Quantity::P50, latency),
        (Quantity::P99, latency * 2.6),
        (Quantity::P999, latency * 4.1),
        (Quantity::Cpu, shape.cpu * slower),
        (Quantity::RestCpu, 0.05 * slower),
        (Quantity::Calls, shape.cpu * 180.0),
        (Quantity::Syncs, if shape.name == "relay" { 0.14 } else { 3.0 }),
        (Quantity::PeakResident, shape.memory * 4.6),
    ];
    values.into_iter().map(|(quantity, value)| figure(key(quantity), value)).collect()
}

/// What is measured outside the matrix.
fn alone(shape: &Shape) -> Vec<Figure> {
    let key = |experiment, quantity| Key::new(experiment, shape.name, quantity);
    let large = |quantity| Key { octets: Some(100_000_000), ..key(Experiment::Large, quantity) };
    let idle = |connections, quantity| Key { connections, ..key(Experiment::Idle, quantity) };
    let mut figures = vec![
        figure(idle(None, Quantity::Resident), shape.memory),
        figure(idle(None, Quantity::Wakes), if shape.name == "relay" { 0.4 } else { 1.9 }),
        figure(idle(Some(1_000), Quantity::Resident), shape.memory * 2.0),
        figure(key(Experiment::Start, Quantity::Listening), shape.memory * 2.0),
    ];
    if shape.name == "relay" {
        figures.push(figure(idle(Some(10_000), Quantity::Resident), 108.0));
    }
    if shape.has_queue || shape.name == "relay-direct" {
        figures.push(figure(large(Quantity::Growth), shape.memory * 0.3));
        figures.push(figure(large(Quantity::Accepted), 300.0 / shape.rate.sqrt()));
        figures.push(figure(large(Quantity::Delivered), 400.0 / shape.rate.sqrt()));
    }
    if shape.has_queue {
        for queued in [10_000, 100_000] {
            let key = Key { queued: Some(queued), ..key(Experiment::Start, Quantity::Listening) };
            figures.push(figure(key, shape.memory * 2.5));
        }
        for (connections, share) in [(5, 0.99), (20, 0.96), (50, 0.9)] {
            let key = Key {
                connections: Some(connections),
                octets: Some(10 << 10),
                ..key(Experiment::Distance, Quantity::Rate)
            };
            figures.push(figure(key, super::section::ideal_rate(connections) * share - 200.0 / shape.rate));
        }
    }
    figures
}

/// The relay's direct mode by turns with the upstream itself.
fn latency() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (round_trip, raw, added) in [(0, 0.3, 0.4), (30, 121.0, -29.0)] {
        let key = |name: &str, quantity| Key {
            octets: Some(10 << 10),
            round_trip: Some(round_trip),
            ..Key::new(Experiment::Latency, name, quantity)
        };
        for (name, median) in [(RAW, raw), ("relay-direct", raw + added)] {
            for (quantity, times) in [(Quantity::P50, 1.0), (Quantity::P90, 1.4), (Quantity::P99, 2.2)] {
                figures.push(figure(key(name, quantity), median * times));
            }
        }
        figures.push(figure(key("relay-direct", Quantity::Added), added));
    }
    figures
}
