//! One table, shown aligned for a terminal or as Markdown. It knows nothing of figures.

/// How a table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Aligned columns for a terminal.
    Text,
    /// For a page.
    Markdown,
}

/// On which side the cells of a column end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// What it shows, in a line; empty where the heading above says so.
    pub(super) caption: String,
    columns: Vec<(String, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(caption: impl Into<String>) -> Self {
        Self { caption: caption.into(), columns: Vec::new(), rows: Vec::new() }
    }

    /// Adds a column behind the others; all columns come before the first row.
    pub(super) fn column(&mut self, name: impl Into<String>, side: Side) {
        self.columns.push((name.into(), side));
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table with its caption, ending in a line end.
    pub(super) fn show(&self, style: Style) -> String {
        let caption = match (style, self.caption.as_str()) {
            (_, "") => String::new(),
            (Style::Text, caption) => format!("{caption}\n"),
            (Style::Markdown, caption) => format!("{caption}:\n\n"),
        };
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let widths = self.widths();
        let mut text = caption + &self.line(&names, style, &widths) + &self.rule(style, &widths);
        for row in &self.rows {
            text.push_str(&self.line(row, style, &widths));
        }
        text
    }

    fn line(&self, cells: &[String], style: Style, widths: &[usize]) -> String {
        match style {
            Style::Markdown => {
                let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
                format!("| {} |\n", cells.join(" | "))
            }
            Style::Text => {
                let places = self.columns.iter().zip(widths);
                let cells = cells.iter().zip(places).map(|(cell, ((_, side), width))| match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                });
                format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
            }
        }
    }

    fn rule(&self, style: Style, widths: &[usize]) -> String {
        let rule = self.columns.iter().zip(widths).map(|((_, side), width)| match (style, side) {
            (Style::Markdown, Side::Left) => "---".to_owned(),
            (Style::Markdown, Side::Right) => "---:".to_owned(),
            (Style::Text, _) => "-".repeat(*width),
        });
        let rule: Vec<_> = rule.collect();
        match style {
            Style::Markdown => format!("| {} |\n", rule.join(" | ")),
            Style::Text => format!("{}\n", rule.join("  ")),
        }
    }

    /// The characters of the longest cell of each column.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> = self.columns.iter().map(|(name, _)| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Rates");
        table.column("size", Side::Left);
        table.column("relay", Side::Right);
        table.row(vec!["1 KiB".to_owned(), "7,969 ± 12 %".to_owned()]);
        table.row(vec!["a|b".to_owned(), "–".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_for_a_terminal() {
        let wanted = "Rates\nsize          relay\n-----  ------------\n1 KiB  7,969 ± 12 %\na|b               –\n";
        assert_eq!(table().show(Style::Text), wanted);
    }

    #[test]
    fn a_bar_in_a_cell_does_not_part_it_in_markdown() {
        let wanted = "Rates:\n\n| size | relay |\n| --- | ---: |\n| 1 KiB | 7,969 ± 12 % |\n| a\\|b | – |\n";
        assert_eq!(table().show(Style::Markdown), wanted);
    }
}
