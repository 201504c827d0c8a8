//! An experiment as tables: which figures stand together, what is a row and what a column.
//!
//! It takes figures as they are and reckons nothing but the ideal rate that follows from a distance.

use std::collections::BTreeSet;

use crate::figure::{Experiment, Figure, Quantity, RAW, Run};

use super::table::{Side, Style, Table};
use super::wording::{self, Conditions};

/// What a message costs on one connection in [`Experiment::Distance`], in seconds: MAIL, RCPT and DATA in one flight
/// of 30 ms, the body in another, and 100 ms until upstream's final reply.
const MESSAGE_AT_A_DISTANCE: f64 = 0.160;

/// Every quantity in the order in which it is told, and what a table of it shows.
const QUANTITIES: [(Quantity, &str); 18] = [
    (Quantity::Rate, "Messages a second"),
    (Quantity::P50, "Latency of acceptance, median, in ms"),
    (Quantity::P90, "Latency of acceptance, 90th percentile, in ms"),
    (Quantity::P99, "Latency of acceptance, 99th percentile, in ms"),
    (Quantity::P999, "Latency of acceptance, 99.9th percentile, in ms"),
    (Quantity::Added, "Added to the median of the upstream itself, in ms"),
    (Quantity::Cpu, "CPU of the subject for each message, in ms"),
    (Quantity::RestCpu, "CPU of load and upstream for each message, in ms"),
    (Quantity::Calls, "System calls for each message"),
    (Quantity::Syncs, "Syncs for each message"),
    (Quantity::Resident, "Resident memory, in MiB"),
    (Quantity::PeakResident, "Highest resident memory, in MiB"),
    (Quantity::Growth, "Growth of the highest resident memory, in MiB"),
    (Quantity::Accepted, "Until accepted, in s"),
    (Quantity::Delivered, "Until delivered, in s"),
    (Quantity::Listening, "Until the first greeting, in ms"),
    (Quantity::Wakes, "Context switches a second"),
    (Quantity::Size, "Size of the program's file, in MiB"),
];

/// An experiment as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Which.
    pub(super) experiment: Experiment,
    /// Its figures.
    pub(super) tables: Vec<Table>,
    /// Subjects of the run that have no figure in it.
    pub(super) absent: Vec<String>,
}

impl Section {
    /// The tables, and who has no figures, with an empty line between them.
    pub(super) fn show(&self, style: Style) -> String {
        let mut parts: Vec<_> = self.tables.iter().map(|table| table.show(style)).collect();
        if !self.absent.is_empty() {
            parts.push(format!("No figures here: {}.\n", self.absent.join(", ")));
        }
        parts.join("\n")
    }
}

/// The experiments that have figures.
pub(super) fn sections(run: &Run) -> Vec<Section> {
    Experiment::ALL.into_iter().filter_map(|experiment| section(run, experiment)).collect()
}

/// Subjects in the order of the run, then those that only figures know. What [`Experiment::Limits`] measures is none, nor is
/// [`RAW`].
pub(super) fn subjects(run: &Run) -> Vec<&str> {
    let described = run.subjects.iter().map(|subject| subject.name.as_str());
    let of_subject = |figure: &&Figure| figure.key.experiment != Experiment::Limits && figure.key.subject != RAW;
    let measured = run.figures.iter().filter(of_subject);
    let mut names = Vec::new();
    for name in described.chain(measured.map(|figure| figure.key.subject.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The rate that upstream's distance allows on so many connections, in messages a second.
pub(super) fn ideal_rate(connections: usize) -> f64 {
    wording::real(connections) / MESSAGE_AT_A_DISTANCE
}

fn section(run: &Run, experiment: Experiment) -> Option<Section> {
    let figures: Vec<_> = run.figures.iter().filter(|figure| figure.key.experiment == experiment).collect();
    if figures.is_empty() {
        return None;
    }
    if experiment == Experiment::Limits {
        return Some(Section { experiment, tables: vec![limits(&figures)], absent: vec![] });
    }
    let has_figures = |name: &&str| figures.iter().any(|figure| figure.key.subject == *name);
    let (present, absent): (Vec<_>, Vec<_>) = subjects(run).into_iter().partition(has_figures);
    let present = Some(RAW).filter(has_figures).into_iter().chain(present).collect();
    let view = View { experiment, figures, subjects: present };
    let tables = match experiment {
        Experiment::Acceptance | Experiment::Drain | Experiment::Through | Experiment::Distance => view.matrix(),
        _ => vec![view.list()],
    };
    Some(Section { experiment, tables, absent: absent.into_iter().map(str::to_owned).collect() })
}

/// What the machine itself can do: a row for each figure.
fn limits(figures: &[&Figure]) -> Table {
    let mut table = Table::new("");
    table.column("what", Side::Left);
    table.column("figure", Side::Right);
    for figure in figures {
        let words = Conditions::of(&figure.key).words(Experiment::Limits);
        let what =
            if words.is_empty() { figure.key.subject.clone() } else { format!("{}, {words}", figure.key.subject) };
        let unit = figure.key.quantity;
        table.row(vec![format!("{what}: {}", wording::quantity_with_unit(unit)), wording::spread(Some(figure))]);
    }
    table
}

/// How a row tells one of its conditions.
type Tell = fn(Conditions) -> Option<String>;

/// The figures of one experiment, with the subjects that become columns.
struct View<'a> {
    experiment: Experiment,
    figures: Vec<&'a Figure>,
    subjects: Vec<&'a str>,
}

impl View<'_> {
    /// A table for each quantity, a row for each condition.
    fn matrix(&self) -> Vec<Table> {
        let tables = QUANTITIES.iter().map(|(quantity, caption)| self.table(*quantity, caption));
        tables.filter(|table| !table.is_empty()).collect()
    }

    fn table(&self, quantity: Quantity, caption: &str) -> Table {
        let mut table = Table::new(caption);
        let rows = self.conditions(|of| of == quantity);
        let ideal = self.experiment == Experiment::Distance && quantity == Quantity::Rate;
        self.condition_columns(&mut table, &rows);
        self.subject_columns(&mut table);
        if ideal {
            table.column("ideal", Side::Right);
        }
        for row in &rows {
            let mut cells = self.condition_cells(&rows, *row);
            cells.extend(self.subjects.iter().map(|subject| self.cell(subject, quantity, *row)));
            if ideal {
                cells.push(row.connections.map_or(wording::DASH.to_owned(), |n| wording::number(ideal_rate(n))));
            }
            table.row(cells);
        }
        table
    }

    /// One table, a row for each quantity under each condition.
    fn list(&self) -> Table {
        let all = self.conditions(|_| true);
        let mut table = Table::new("");
        table.column("what", Side::Left);
        self.condition_columns(&mut table, &all);
        self.subject_columns(&mut table);
        for (quantity, _) in QUANTITIES {
            for row in self.conditions(|of| of == quantity) {
                let mut cells = vec![wording::quantity_with_unit(quantity)];
                cells.extend(self.condition_cells(&all, row));
                cells.extend(self.subjects.iter().map(|subject| self.cell(subject, quantity, row)));
                table.row(cells);
            }
        }
        table
    }

    fn conditions(&self, of: impl Fn(Quantity) -> bool) -> Vec<Conditions> {
        let figures = self.figures.iter().filter(|figure| of(figure.key.quantity));
        figures.map(|figure| Conditions::of(&figure.key)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn condition_columns(&self, table: &mut Table, rows: &[Conditions]) {
        for (name, _) in self.condition_names(rows) {
            table.column(name, Side::Right);
        }
    }

    fn subject_columns(&self, table: &mut Table) {
        for subject in &self.subjects {
            table.column(*subject, Side::Right);
        }
    }

    fn condition_cells(&self, rows: &[Conditions], row: Conditions) -> Vec<String> {
        let cell = |(_, cell): (_, Tell)| cell(row).unwrap_or(wording::DASH.to_owned());
        self.condition_names(rows).into_iter().map(cell).collect()
    }

    /// The conditions that any of the rows has: their names, and how a row tells them.
    fn condition_names(&self, rows: &[Conditions]) -> Vec<(&'static str, Tell)> {
        let all: [(_, Tell); 5] = [
            ("round trip", |row| row.round_trip.map(wording::milliseconds)),
            (wording::connections(self.experiment), |row| row.connections.map(wording::count)),
            ("size", |row| row.octets.map(wording::size)),
            ("sessions", |row| row.sessions.map(|sessions| wording::session(sessions).to_owned())),
            ("queued", |row| row.queued.map(wording::count)),
        ];
        all.into_iter().filter(|(_, cell)| rows.iter().any(|row| cell(*row).is_some())).collect()
    }

    fn cell(&self, subject: &str, quantity: Quantity, row: Conditions) -> String {
        let same = |figure: &&&Figure| {
            figure.key.subject == subject && figure.key.quantity == quantity && Conditions::of(&figure.key) == row
        };
        wording::spread(self.figures.iter().find(same).copied())
    }
}
