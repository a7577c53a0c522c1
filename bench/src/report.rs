//! What is printed: a table for people, or a line of JSON per measurement.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::figures::Figures;

/// Collects measurements and prints them.
#[derive(Debug)]
pub struct Report {
    json: bool,
    measured: Vec<Figures>,
    missed: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(json: bool) -> Self {
        Self { json, measured: Vec::new(), missed: Vec::new() }
    }

    /// Takes a measurement and what it missed; as JSON it is printed at once.
    pub fn add(&mut self, figures: Figures, missed: Vec<String>) {
        self.missed.extend(missed);
        let figures = figures.rounded();
        if self.json {
            for note in &figures.notes {
                eprintln!("{}: {note}", figures.case);
            }
            match serde_json::to_string(&figures) {
                Ok(line) => println!("{line}"),
                Err(error) => eprintln!("{}: {error}", figures.case),
            }
        }
        self.measured.push(figures);
    }

    /// Prints the table, names the floors that were missed, and says whether none was.
    pub fn finish(&self) -> bool {
        if !self.json {
            self.print();
        }
        let has_passed = self.missed.is_empty();
        if !has_passed {
            eprintln!("missed: {}", self.missed.join("; "));
        }
        has_passed
    }

    fn print(&self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "case",
            "n",
            "seconds",
            "per s",
            "p50 ms",
            "p99 ms",
            "raw per s",
            "ratio",
            "engine CPU µs",
            "broker CPU µs",
            "RSS MiB",
            "workers",
            "servers",
        ]);
        for figures in &self.measured {
            let number = |value: Option<f64>, digits: usize| {
                let text = value.map_or_else(String::new, |value| format!("{value:.digits$}"));
                Cell::new(text).set_alignment(CellAlignment::Right)
            };
            table.add_row([
                Cell::new(figures.case),
                Cell::new(figures.n).set_alignment(CellAlignment::Right),
                number(Some(figures.seconds), 3),
                number(figures.per_s, 0),
                number(figures.p50_ms, 2),
                number(figures.p99_ms, 2),
                number(figures.raw_per_s, 0),
                number(figures.ratio, 3),
                number(figures.cpu_us_engine, 1),
                number(figures.cpu_us_broker, 1),
                number(figures.rss_mib, 1),
                Cell::new(figures.workers).set_alignment(CellAlignment::Right),
                Cell::new(figures.servers).set_alignment(CellAlignment::Right),
            ]);
        }
        println!("{table}");
        for figures in &self.measured {
            for note in &figures.notes {
                println!("{}: {note}", figures.case);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_floor_counts_although_a_later_case_kept_its_own() {
        let mut report = Report::new(true);
        report.add(Figures::default(), vec!["runs: too slow".to_owned()]);
        report.add(Figures::default(), Vec::new());

        assert!(!report.finish());
        assert!(Report::new(true).finish());
    }
}
