//! The table of all figures, for the terminal and for `RESULTS.md`.

use std::fmt::Write as _;
use std::process::Command;

use crate::others::Ticks;
use crate::server::Server;
use crate::{Scale, cores};

/// A group of rows that are measured together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// How it is measured, for whoever doubts or repeats it.
    pub(crate) how: &'static str,
    pub(crate) run: fn(Scale, &mut Report),
}

/// What a measured value must keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// For information.
    None,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::Exactly(bound) => value == bound,
            Self::None => true,
        }
    }
}

#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    bound: String,
    verdict: &'static str,
}

/// All rows so far.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<String>,
    /// Whether the sizes are those that the bounds are meant for.
    judges: bool,
    started: Ticks,
    figures: Vec<(Figure, Vec<Row>)>,
}

impl Report {
    pub(crate) fn new(scale: Scale) -> Self {
        let (machine, started) = (machine(), Ticks::now());
        Self { machine, judges: !scale.quick, started, figures: Vec::new() }
    }

    pub(crate) fn begin(&mut self, figure: Figure) {
        self.figures.push((figure, Vec::new()));
    }

    /// Adds a row; `note` says what the value was computed from.
    pub(crate) fn row(&mut self, what: impl Into<String>, value: f64, bound: Bound, note: &str) {
        let what = what.into();
        let verdict = match bound {
            Bound::None => "",
            _ if !self.judges => "not judged",
            bound if bound.holds(value) => "ok",
            _ => "MISSED",
        };
        let bound = match bound {
            Bound::AtMost(bound) => format!("≤ {}", short(bound)),
            Bound::AtLeast(bound) => format!("≥ {}", short(bound)),
            Bound::Exactly(bound) => format!("= {}", short(bound)),
            Bound::None => String::new(),
        };
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        let measured = format!("{}{note}", short(value));
        eprintln!("  {what}: {measured} {bound} {verdict}");
        if let Some((_, rows)) = self.figures.last_mut() {
            rows.push(Row { what, measured, bound, verdict });
        }
    }

    pub(crate) fn missed(&self) -> usize {
        let rows = self.figures.iter().flat_map(|(_, rows)| rows);
        rows.filter(|row| row.verdict == "MISSED").count()
    }

    /// How far the figures can be trusted.
    pub(crate) fn disturbance(&self) -> String {
        let others = 100.0 * Ticks::now().others_since(self.started);
        format!("other processes took {others:.0} % of the machine meanwhile")
    }

    pub(crate) fn table(&self) -> String {
        let head = ["figure", "measured", "bound", ""].map(str::to_owned);
        let mut lines = vec![head];
        for (figure, rows) in &self.figures {
            lines.push([
                format!("**{}**", figure.name),
                String::new(),
                String::new(),
                String::new(),
            ]);
            lines.extend(rows.iter().map(|row| {
                let Row { what, measured, bound, verdict } = row;
                [what.clone(), measured.clone(), bound.clone(), (*verdict).to_owned()]
            }));
        }
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..4).map(width).collect();
        let mut table = String::new();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(table, "| {cell:width$} ");
            }
            table.push_str("|\n");
            if number == 0 {
                let rules = widths.iter().map(|width| format!("| {} ", "-".repeat(*width.max(&3))));
                table.extend(rules);
                table.push_str("|\n");
            }
        }
        table
    }

    /// Keeps the table as `RESULTS.md`.
    pub(crate) fn write(&self) {
        let mut text = "# What a claim costs\n\nWritten by `make bench`. Bounds are ratios of \
                        figures taken within one run; durations hold for this machine alone.\n\n"
            .to_owned();
        for line in &self.machine {
            let _ = writeln!(text, "* {line}");
        }
        let _ = writeln!(text, "* {}", self.disturbance());
        let _ = write!(text, "\n{}\n", self.table());
        text.push_str("## How it is measured\n");
        for (Figure { name, how, .. }, _) in &self.figures {
            let _ = write!(text, "\n**{name}**: {how}\n");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md");
        std::fs::write(path, text).expect("benches/RESULTS.md can be written");
    }
}

/// Three significant digits, and no exponent.
fn short(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 => format!("{value}"),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The middle of the values, which a busy machine disturbs less than their mean.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value that this share of the values is below.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * share) as usize]
}

/// Where the figures were taken, a line each.
fn machine() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models = cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let models: Vec<_> = models.map(|(_, model)| model).collect();
    let model = models.first().copied().unwrap_or("unknown processor");
    let info: redis::InfoDict = redis::cmd("INFO")
        .arg("server")
        .query(&mut Server::start().raw())
        .expect("the server describes itself");
    let version = |key: &str| info.get::<String>(key);
    let server = match version("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", version("redis_version").unwrap_or_default()),
    };
    vec![
        format!("{model}, {} cores; {}", models.len(), cores::description()),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("{server}, without persistence, on a unix socket unless a figure says otherwise"),
        output("rustc", &["--version"]),
        output("date", &["-u", "+%F"]),
    ]
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
}
