//! A run as people read it: tables for a terminal, a page with charts, a comparison with another run.
//!
//! Pure: figures in, text out. It measures nothing and writes no file.

use crate::error::BenchError;
use crate::figure::Run;

mod budget;
mod chart;
mod compare;
mod page;
#[cfg(test)]
mod sample;
mod section;
mod table;
mod wording;

pub(crate) use compare::Comparison;

use table::Style;

/// The whole run as aligned tables for a terminal.
pub(crate) fn text(run: &Run) -> String {
    let mut parts = vec![format!(
        "Benchmark of {}, {}\nby `{}`\non {}\n",
        run.begun,
        wording::duration(run.seconds),
        run.command,
        wording::machine(&run.machine)
    )];
    let subjects = run.subjects.iter();
    parts.push(lines(subjects.map(|one| format!("{}: {}, {}", one.name, one.product, one.setup))));
    for section in section::sections(run) {
        parts.push(heading(wording::title(section.experiment)));
        parts.push(section.show(Style::Text));
    }
    parts.extend([heading("Budgets"), budget::table(run).show(Style::Text)]);
    if !run.remarks.is_empty() {
        parts.push(heading("Remarks"));
        parts.push(lines(run.remarks.iter().map(|remark| format!("- {remark}"))));
    }
    parts.join("\n")
}

/// `docs/performance.md`, made from the run.
pub(crate) fn page(run: &Run) -> String {
    page::page(run)
}

/// The charts of the page: the file's name in `docs/performance/`, and the SVG.
pub(crate) fn charts(run: &Run) -> Result<Vec<(String, String)>, BenchError> {
    chart::charts(run).iter().map(|chart| Ok((chart.file(), chart.svg()?))).collect()
}

/// Two runs, figure by figure.
pub(crate) fn comparison(first: &Run, second: &Run) -> Comparison {
    Comparison::of(first, second)
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

fn heading(title: &str) -> String {
    format!("{title}\n{}\n", "=".repeat(title.chars().count()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::figure::Experiment;

    #[test]
    fn the_text_fits_a_terminal_of_120_columns() {
        let text = text(&sample::run());
        for line in text.lines().filter(|line| line.contains("  ")) {
            assert!(line.chars().count() <= 120, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn every_figure_is_in_the_text() {
        let mut run = sample::run();
        let mut mark = 100_000.0;
        for figure in &mut run.figures {
            figure.values = vec![mark];
            mark += 1.0;
        }
        let text = text(&run);
        let (tables, _) = text.split_once("\nBudgets\n").unwrap();
        let words: BTreeSet<_> = tables.split_whitespace().collect();
        for figure in &run.figures {
            assert!(words.contains(wording::number(figure.values[0]).as_str()), "{:?}", figure.key);
        }
    }

    #[test]
    fn every_experiment_has_its_heading_and_missing_figures_are_dashes() {
        let text = text(&sample::run());
        for experiment in Experiment::ALL {
            let title = wording::title(experiment);
            assert!(text.contains(&format!("\n{title}\n=")), "{title}");
        }
        assert!(text.contains("No figures here: relay-direct, emailproxy, naive.") && text.contains(" –"), "{text}");
        assert!(text.contains("it refused 41 connections"));
    }

    #[test]
    fn charts_are_small_well_formed_and_the_same_each_time() {
        let run = sample::run();
        let charts = charts(&run).unwrap();
        let names: BTreeSet<_> = charts.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = ["acceptance", "cpu", "distance", "drain", "latency", "memory", "through"];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), wanted.map(|name| format!("{name}.svg")));
        for (name, svg) in &charts {
            assert!(svg.len() < 30_000, "{name}: {} octets", svg.len());
            well_formed(svg).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        assert_eq!(super::charts(&run).unwrap(), charts);
    }

    #[test]
    fn a_run_without_figures_has_no_charts_and_odd_values_spoil_none() {
        assert_eq!(charts(&sample::run_of(vec![])).unwrap(), vec![]);
        let mut run = sample::run();
        run.subjects[1].name = "<peer> & \"co\"".to_owned();
        for (place, figure) in run.figures.iter_mut().enumerate() {
            if figure.key.subject == "postfix-plain" {
                figure.key.subject = "<peer> & \"co\"".to_owned();
            }
            figure.values = [vec![], vec![0.0], vec![0.0, 1e9], vec![1.0]][place % 4].clone();
        }
        for (name, svg) in charts(&run).unwrap() {
            well_formed(&svg).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }

    /// As much of XML as the charts use: elements nest and end, and text and attributes have no bare mark.
    fn well_formed(svg: &str) -> Result<(), String> {
        let mut open = Vec::new();
        for piece in svg.trim().strip_prefix('<').ok_or("no element")?.split('<') {
            let (tag, text) = piece.split_once('>').ok_or(format!("no end of {piece:?}"))?;
            if text.contains('>')
                || text
                    .replace("&amp;", "")
                    .replace("&lt;", "")
                    .replace("&gt;", "")
                    .replace("&quot;", "")
                    .replace("&apos;", "")
                    .contains('&')
            {
                return Err(format!("a bare mark in {text:?}"));
            }
            if tag.matches('"').count() % 2 == 1 {
                return Err(format!("an open quote in {tag:?}"));
            }
            let name = tag.trim_matches('/').split(' ').next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name) => return Err(format!("{name} ends unopened")),
                (false, false) => open.push(name),
                _ => {}
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?} do not end")) }
    }
}
