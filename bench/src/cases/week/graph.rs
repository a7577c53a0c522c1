//! The graph of a week: three panels over the hours, as SVG.

use std::fmt::Write as _;

use super::{DAYS, Sample};
use crate::figures::count;
use crate::setup::mebibytes;

const WIDTH: f64 = 860.0;
const PANEL_HEIGHT: f64 = 150.0;
const PANEL_GAP: f64 = 50.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 60.0;

/// Values by the hour, where there are any.
type Values = fn(&Sample) -> Option<f64>;

struct Line {
    name: &'static str,
    color: &'static str,
    of: Values,
}

struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "memory, MiB (whole process, the modelled streams included)",
        lines: &[Line {
            name: "resident",
            color: "#1f77b4",
            of: |sample| Some(mebibytes(sample.resident_bytes)),
        }],
    },
    Panel {
        title: "streams and objects, MiB (archive kept for a day)",
        lines: &[
            Line {
                name: "all",
                color: "#333333",
                of: |sample| Some(mebibytes(sample.kept_bytes())),
            },
            Line {
                name: "archive",
                color: "#9467bd",
                of: |sample| Some(mebibytes(sample.archive_bytes)),
            },
            Line {
                name: "journal",
                color: "#2ca02c",
                of: |sample| Some(mebibytes(sample.journal_bytes)),
            },
            Line {
                name: "commands",
                color: "#ff7f0e",
                of: |sample| Some(mebibytes(sample.commands_bytes)),
            },
            Line {
                name: "two snapshots",
                color: "#d62728",
                of: |sample| Some(mebibytes(sample.snapshots_bytes)),
            },
        ],
    },
    Panel {
        title: "what is never purged, MiB (a line that bends would be a fault)",
        lines: &[
            Line {
                name: "audit log",
                color: "#8c564b",
                of: |sample| Some(mebibytes(sample.audit_bytes)),
            },
            Line {
                name: "checkpoints",
                color: "#e377c2",
                of: |sample| Some(mebibytes(sample.checkpoints_bytes)),
            },
        ],
    },
    Panel {
        title: "takeover, ms of processor time: the newest snapshot and the journal behind it",
        lines: &[Line { name: "recovery", color: "#17becf", of: |sample| sample.recovery_ms }],
    },
];

/// Draws `samples` below `title`, which is plain text.
pub fn svg(title: &str, samples: &[Sample]) -> String {
    let panels = count(u64::try_from(PANELS.len()).unwrap_or(1));
    let height = TOP + panels * (PANEL_HEIGHT + PANEL_GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    let mut top = TOP;
    for panel in &PANELS {
        // Writing to a string cannot fail.
        let _ = panel.draw(&mut svg, samples, top);
        top += PANEL_HEIGHT + PANEL_GAP;
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self, svg: &mut String, samples: &[Sample], top: f64) -> std::fmt::Result {
        let values = self.lines.iter().flat_map(|line| samples.iter().filter_map(line.of));
        let most = rounded_up(values.fold(0.0, f64::max));
        let bottom = top + PANEL_HEIGHT;
        let right = WIDTH - RIGHT;
        let x = |hour: u64| LEFT + (right - LEFT) * count(hour) / count(DAYS * 24);
        let y = |value: f64| bottom - PANEL_HEIGHT * value / most;
        writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 8.0, self.title)?;
        for part in 0..=4 {
            let value = most * count(part) / 4.0;
            let at = y(value);
            writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
                LEFT - 6.0,
                at + 4.0,
            )?;
        }
        for day in 0..=DAYS {
            let at = x(day * 24);
            writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">day {day}</text>",
                bottom + 16.0
            )?;
        }
        for (number, line) in (0_u64..).zip(self.lines) {
            let points = samples.iter().filter_map(|sample| {
                (line.of)(sample).map(|value| format!("{:.1},{:.1}", x(sample.hour), y(value)))
            });
            let points = points.collect::<Vec<_>>().join(" ");
            let (name, color) = (line.name, line.color);
            writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"{color}\">{name}</text>",
                right + 10.0,
                top + 12.0 + 16.0 * count(number),
            )?;
        }
        Ok(())
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn rounded_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-3).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_points_within_the_picture() {
        let sample = |hour| Sample {
            hour,
            resident_bytes: 90 << 20,
            journal_bytes: 7 << 20,
            recovery_ms: Some(12.5),
            ..Sample::default()
        };
        let drawn = svg("a week", &[sample(1), sample(168)]);

        let lines = PANELS.iter().map(|panel| panel.lines.len()).sum::<usize>();
        assert_eq!(drawn.matches("<polyline").count(), lines);
        for points in drawn.split("points=\"").skip(1) {
            let points = points.split('"').next().unwrap_or_default();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((LEFT..=WIDTH - RIGHT).contains(&x) && y >= TOP, "{point}");
            }
        }
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.7, 1.0, 3.2, 41.0, 100.0].map(rounded_up), [1.0, 1.0, 5.0, 50.0, 100.0]);
    }
}
