//! The charts of a run as SVG: grouped bars, with a whisker from the lowest to the highest repetition.
//!
//! `plotters` draws them; what is drawn, and where its letters go, stands here. A chart without figures does not exist.

use std::collections::BTreeSet;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    BLACK, Cartesian2d, Color, DrawingArea, DrawingAreaErrorKind, FontStyle, IntoDrawingArea, IntoFont, IntoLogRange,
    IntoTextStyle, PathElement, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::BenchError;
use crate::figure::{Experiment, Figure, Key, Quantity, Run, Sessions};

use super::budget::peak_under_load;
use super::section;
use super::wording;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (900, 440);
/// The page's own background, so that a dark page does not swallow the letters.
const PAPER: RGBColor = RGBColor(252, 252, 250);
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(105, 105, 105);
const GRID: RGBColor = RGBColor(222, 222, 218);
/// From here on the largest median makes the smallest one invisible on a linear scale.
const LINEAR_UP_TO: f64 = 25.0;
/// Bars narrower than this, in pixels, have no room for their number.
const ROOM_FOR_NUMBER: f64 = 27.0;
/// Height of a number with the space around it, in pixels.
const LINE: i32 = 20;
/// The gap between two groups, in bars.
const GAP: f64 = 0.9;

/// Fixed colours of subjects, after Okabe and Ito: they stay apart for the colour-blind.
const COLOURS: [(&str, RGBColor); 6] = [
    ("relay", RGBColor(0, 114, 178)),
    ("relay-direct", RGBColor(86, 180, 233)),
    ("postfix-plain", RGBColor(240, 190, 60)),
    ("postfix-xoauth2", RGBColor(213, 94, 0)),
    ("emailproxy", RGBColor(0, 158, 115)),
    ("naive", RGBColor(204, 121, 167)),
];
/// For subjects that the program does not know yet.
const OTHER_COLOUR: RGBColor = RGBColor(130, 130, 130);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A chart before it is drawn.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    /// Its name, that of its file without the ending.
    pub(super) name: &'static str,
    /// Where on the page it stands.
    pub(super) experiment: Experiment,
    /// What it shows.
    pub(super) title: &'static str,
    /// The unit of the bars.
    unit: &'static str,
    /// What parts the groups.
    axis: &'static str,
    subjects: Vec<&'a str>,
    groups: Vec<Group<'a>>,
}

/// Bars that stand together, one for each subject.
#[derive(Clone, Debug)]
struct Group<'a> {
    label: String,
    figures: Vec<Option<&'a Figure>>,
    /// What the conditions allow at best.
    ideal: Option<f64>,
}

/// The charts that the run has figures for.
pub(super) fn charts(run: &Run) -> Vec<Chart<'_>> {
    let clients = "clients at a time";
    let all = [
        by_connections(run, Experiment::Acceptance, Quantity::Rate).chart(
            "acceptance",
            "Acceptance of 10 KiB messages, connections kept",
            "messages a second",
            clients,
        ),
        by_connections(run, Experiment::Acceptance, Quantity::P99).chart(
            "latency",
            "99th percentile of the latency of acceptance, 10 KiB, connections kept",
            "ms",
            clients,
        ),
        by_size(run).chart("drain", "Drain of a full queue", "messages a second", "size of each message"),
        by_connections(run, Experiment::Through, Quantity::Rate).chart(
            "through",
            "From the client to upstream, 10 KiB messages, connections kept",
            "messages a second",
            clients,
        ),
        cpu(run).chart("cpu", "CPU of the subject for each 10 KiB message, 10 clients", "ms", "experiment"),
        by_connections(run, Experiment::Distance, Quantity::Rate).chart(
            "distance",
            "Drain to an upstream 30 ms away that takes 100 ms for each message",
            "messages a second",
            "connections upstream",
        ),
        memory(run).chart("memory", "Resident memory", "MiB", "state"),
    ];
    all.into_iter().flatten().collect()
}

/// A chart in the making: groups of figures, with those who made them.
struct Draft<'a> {
    experiment: Experiment,
    subjects: Vec<&'a str>,
    groups: Vec<Group<'a>>,
}

impl<'a> Draft<'a> {
    fn new(run: &'a Run, experiment: Experiment) -> Self {
        Self { experiment, subjects: section::subjects(run), groups: Vec::new() }
    }

    fn group(&mut self, label: String, ideal: Option<f64>, figure: impl Fn(&str) -> Option<&'a Figure>) {
        let measured = |figure: &&Figure| !figure.values.is_empty();
        let figures: Vec<_> = self.subjects.iter().map(|subject| figure(subject).filter(measured)).collect();
        if figures.iter().any(Option::is_some) {
            self.groups.push(Group { label, figures, ideal });
        }
    }

    /// Leaves out subjects without a bar; none without groups.
    fn chart(
        mut self,
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        axis: &'static str,
    ) -> Option<Chart<'a>> {
        let has_bar = |place: usize| self.groups.iter().any(|group| group.figures[place].is_some());
        let kept: Vec<_> = (0..self.subjects.len()).filter(|place| has_bar(*place)).collect();
        self.subjects = kept.iter().map(|place| self.subjects[*place]).collect();
        for group in &mut self.groups {
            group.figures = kept.iter().map(|place| group.figures[*place]).collect();
        }
        let Self { experiment, subjects, groups } = self;
        (!groups.is_empty()).then_some(Chart { name, experiment, title, unit, axis, subjects, groups })
    }
}

/// 10 KiB on kept connections, a group for each number of connections.
fn by_connections(run: &Run, experiment: Experiment, quantity: Quantity) -> Draft<'_> {
    let of_chart = |key: &Key| {
        key.experiment == experiment
            && key.quantity == quantity
            && key.sessions != Some(Sessions::Single)
            && key.octets == Some(10 << 10)
    };
    let numbers = run.figures.iter().filter(|figure| of_chart(&figure.key));
    let numbers: BTreeSet<_> = numbers.filter_map(|figure| figure.key.connections).collect();
    let mut groups = Draft::new(run, experiment);
    for number in numbers {
        let ideal = (experiment == Experiment::Distance).then(|| section::ideal_rate(number));
        groups.group(wording::count(number), ideal, |subject| {
            find(run, subject, |key| of_chart(key) && key.connections == Some(number))
        });
    }
    groups
}

/// The drain, a group for each size.
fn by_size(run: &Run) -> Draft<'_> {
    let of_chart = |key: &Key| {
        key.experiment == Experiment::Drain && key.quantity == Quantity::Rate && key.sessions != Some(Sessions::Single)
    };
    let sizes = run.figures.iter().filter(|figure| of_chart(&figure.key));
    let sizes: BTreeSet<_> = sizes.filter_map(|figure| figure.key.octets).collect();
    let mut groups = Draft::new(run, Experiment::Drain);
    for size in sizes {
        groups.group(wording::size(size), None, |subject| {
            find(run, subject, |key| of_chart(key) && key.octets == Some(size))
        });
    }
    groups
}

/// CPU for a message, a group for each experiment.
fn cpu(run: &Run) -> Draft<'_> {
    let mut groups = Draft::new(run, Experiment::Through);
    for experiment in [Experiment::Acceptance, Experiment::Drain, Experiment::Through] {
        groups.group(wording::title(experiment).to_lowercase(), None, |subject| {
            find(run, subject, |key| {
                key.experiment == experiment
                    && key.quantity == Quantity::Cpu
                    && key.sessions != Some(Sessions::Single)
                    && key.octets == Some(10 << 10)
                    && key.connections.is_none_or(|clients| clients == 10)
            })
        });
    }
    groups
}

/// Memory: fresh, with idle sessions, and the highest under load.
fn memory(run: &Run) -> Draft<'_> {
    let idle = |key: &Key| key.experiment == Experiment::Idle && key.quantity == Quantity::Resident;
    let figures = run.figures.iter().filter(|figure| idle(&figure.key));
    let numbers: BTreeSet<_> = figures.map(|figure| figure.key.connections.unwrap_or(0)).collect();
    let mut groups = Draft::new(run, Experiment::Idle);
    for number in numbers {
        let label = if number == 0 { "fresh".to_owned() } else { format!("{} idle sessions", wording::count(number)) };
        groups.group(label, None, |subject| {
            find(run, subject, |key| idle(key) && key.connections.unwrap_or(0) == number)
        });
    }
    groups.group("highest under load".to_owned(), None, |subject| peak_under_load(run, subject));
    groups
}

fn find<'a>(run: &'a Run, subject: &str, is: impl Fn(&Key) -> bool) -> Option<&'a Figure> {
    run.figures.iter().find(|figure| figure.key.subject == subject && is(&figure.key))
}

/// The scale of the bars.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// From zero to here.
    Linear(f64),
    /// Whole decades, from here to there.
    Logarithmic(f64, f64),
}

impl Chart<'_> {
    /// The name of its file.
    pub(super) fn file(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// The chart drawn.
    pub(super) fn svg(&self) -> Result<String, BenchError> {
        let mut svg = String::new();
        let drawn = self.draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area());
        drawn.map_err(|error| BenchError::Impossible(format!("the chart {} cannot be drawn: {error}", self.name)))?;
        Ok(svg)
    }

    fn draw(&self, root: &Area<'_>) -> Drawn {
        root.fill(&PAPER)?;
        self.heading(root)?;
        let plot = root.margin(90, 8, 8, 18);
        match self.scale() {
            Scale::Linear(highest) => self.plot(root, &plot, 0.0..highest, 0.0)?,
            Scale::Logarithmic(lowest, highest) => self.plot(root, &plot, (lowest..highest).log_scale(), lowest)?,
        }
        root.present()
    }

    /// Title, unit and legend.
    fn heading(&self, root: &Area<'_>) -> Drawn {
        let title = ("sans-serif", 20).into_font().style(FontStyle::Bold).color(&INK);
        root.draw(&Text::new(self.title.to_owned(), (20, 14), title))?;
        let scale = if matches!(self.scale(), Scale::Linear(_)) { "" } else { ", on a logarithmic scale" };
        let note = format!("{}{scale}; bar: median, whisker: lowest to highest repetition", self.unit);
        root.draw(&Text::new(note, (20, 41), letters(14, PALE)))?;
        let mut left = 20;
        for subject in &self.subjects {
            root.draw(&Rectangle::new([(left, 66), (left + 13, 79)], colour(subject).filled()))?;
            root.draw(&Text::new((*subject).to_owned(), (left + 19, 65), letters(15, INK)))?;
            left += 46 + 7 * i32::try_from(subject.chars().count()).unwrap_or_default();
        }
        if self.groups.iter().any(|group| group.ideal.is_some()) {
            root.draw(&PathElement::new([(left, 72), (left + 16, 72)], BLACK.stroke_width(3)))?;
            root.draw(&Text::new("what the distance allows".to_owned(), (left + 22, 65), letters(15, INK)))?;
        }
        Ok(())
    }

    fn plot<Y>(&self, root: &Area<'_>, area: &Area<'_>, range: Y, floor: f64) -> Drawn
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .x_label_area_size(46)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..wording::real(self.groups.len()) * self.stride(), range)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|value| wording::tick(*value))
            .label_style(letters(14, PALE))
            .bold_line_style(GRID)
            .light_line_style(PAPER)
            .axis_style(PALE)
            .draw()?;
        for (place, group) in self.groups.iter().enumerate() {
            self.bars(&mut chart, wording::real(place) * self.stride() + GAP / 2.0, group, floor)?;
        }
        self.axis(root, &chart, floor)
    }

    fn bars<Y>(&self, chart: &mut Context<'_, '_, Y>, left: f64, group: &Group<'_>, floor: f64) -> Drawn
    where
        Y: Ranged<ValueType = f64>,
    {
        for (place, (subject, figure)) in self.subjects.iter().zip(&group.figures).enumerate() {
            let middle = left + wording::real(place) + 0.5;
            let Some(bar) = figure.and_then(|figure| Bar::new(figure, floor)) else {
                write(chart, wording::DASH, (middle, floor))?;
                continue;
            };
            bar.draw(chart, middle, colour(subject))?;
            if self.has_room_for_numbers() {
                let top = (middle, bar.number_stands_on(chart, group.ideal));
                write(chart, &wording::tick(bar.median), top)?;
            }
        }
        if let Some(ideal) = group.ideal {
            let line = [(left - 0.15, ideal), (left + wording::real(self.subjects.len()) + 0.15, ideal)];
            chart.draw_series([PathElement::new(line, BLACK.stroke_width(3))])?;
        }
        Ok(())
    }

    /// What parts the groups, under the bars.
    fn axis<Y>(&self, root: &Area<'_>, chart: &Context<'_, '_, Y>, floor: f64) -> Drawn
    where
        Y: Ranged<ValueType = f64>,
    {
        let below = |middle: f64, distance: i32| {
            let (left, bottom) = chart.backend_coord(&(middle, floor));
            (left, bottom + distance)
        };
        let centre = Pos::new(HPos::Center, VPos::Top);
        for (place, group) in self.groups.iter().enumerate() {
            let middle = (wording::real(place) + 0.5) * self.stride();
            root.draw(&Text::new(group.label.clone(), below(middle, 7), letters(15, INK).pos(centre)))?;
        }
        let middle = wording::real(self.groups.len()) * self.stride() / 2.0;
        root.draw(&Text::new(self.axis.to_owned(), below(middle, 27), letters(14, PALE).pos(centre)))
    }

    /// From a group's begin to the next one's, in bars.
    fn stride(&self) -> f64 {
        wording::real(self.subjects.len()) + GAP
    }

    fn has_room_for_numbers(&self) -> bool {
        f64::from(SIZE.0 - 100) / (wording::real(self.groups.len()) * self.stride()) >= ROOM_FOR_NUMBER
    }

    fn scale(&self) -> Scale {
        let figures = self.groups.iter().flat_map(|group| group.figures.iter().flatten());
        let bounds: Vec<_> = figures.filter_map(|figure| figure.range()).collect();
        let ideals = self.groups.iter().filter_map(|group| group.ideal);
        let highest = bounds.iter().map(|(_, highest)| *highest).chain(ideals).fold(0.0, f64::max);
        let positive = bounds.iter().map(|(lowest, _)| *lowest).filter(|lowest| *lowest > 0.0);
        let lowest = positive.fold(f64::INFINITY, f64::min);
        if highest <= 0.0 || highest / lowest <= LINEAR_UP_TO {
            return Scale::Linear(if highest > 0.0 { highest * 1.12 } else { 1.0 });
        }
        // A hair beyond the decades, so that rounding does not cost the first or the last tick.
        let (below, above) = (0.9999, 1.0001);
        Scale::Logarithmic(
            10_f64.powf((lowest * 0.8).log10().floor()) * below,
            10_f64.powf((highest * 1.25).log10().ceil()) * above,
        )
    }
}

/// A figure as a bar that stands on the floor of the plot.
struct Bar {
    floor: f64,
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Bar {
    /// None without values. What a logarithmic plot has no place for lies on its floor.
    fn new(figure: &Figure, floor: f64) -> Option<Self> {
        let (median, (lowest, highest)) = (figure.median()?, figure.range()?);
        Some(Self { floor, median, lowest: lowest.max(floor), highest: highest.max(floor) })
    }

    fn draw<Y>(&self, chart: &mut Context<'_, '_, Y>, middle: f64, colour: RGBColor) -> Drawn
    where
        Y: Ranged<ValueType = f64>,
    {
        let corners = [(middle - 0.42, self.median.max(self.floor)), (middle + 0.42, self.floor)];
        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
        let strokes = [
            [(middle, self.lowest), (middle, self.highest)],
            [(middle - 0.14, self.lowest), (middle + 0.14, self.lowest)],
            [(middle - 0.14, self.highest), (middle + 0.14, self.highest)],
        ];
        chart.draw_series(strokes.map(|stroke| PathElement::new(stroke, INK.stroke_width(1))))?;
        Ok(())
    }

    /// The end of the whisker, or the line of the ideal where that would strike the number through.
    fn number_stands_on<Y>(&self, chart: &Context<'_, '_, Y>, ideal: Option<f64>) -> f64
    where
        Y: Ranged<ValueType = f64>,
    {
        let height = |value: f64| chart.backend_coord(&(0.0, value)).1;
        let strikes = |ideal: &f64| (0..LINE).contains(&(height(self.highest) - height(*ideal)));
        ideal.filter(strikes).unwrap_or(self.highest)
    }
}

type Context<'c, 'a, Y> = ChartContext<'c, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>;

/// A number on top of what stands there.
fn write<Y>(chart: &mut Context<'_, '_, Y>, what: &str, (middle, top): (f64, f64)) -> Drawn
where
    Y: Ranged<ValueType = f64>,
{
    let (left, bottom) = chart.backend_coord(&(middle, top));
    let style = letters(13, INK).pos(Pos::new(HPos::Center, VPos::Bottom));
    let area = chart.plotting_area().strip_coord_spec();
    let (zero_left, zero_top) = area.get_base_pixel();
    area.draw(&Text::new(what.to_owned(), (left - zero_left, bottom - zero_top - 3), style))
}

fn letters(size: u32, colour: RGBColor) -> plotters::style::TextStyle<'static> {
    ("sans-serif", size).with_color(colour).into_text_style(&SIZE)
}

fn colour(subject: &str) -> RGBColor {
    COLOURS.iter().find(|(name, _)| *name == subject).map_or(OTHER_COLOUR, |(_, colour)| *colour)
}
