//! A picture of the units in use over time.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::played::{Played, units_in_use};
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (1200, 480);
/// More would not be seen.
const COLUMNS: u64 = 1000;

/// Refuses a file that could not be drawn into, before anything else is done.
pub(super) fn check(file: &Path) -> Result<()> {
    let wrong = |rule: &str| {
        let file = file.display();
        Err(Error::Usage(format!("--plot: invalid file \"{file}\": {rule}")))
    };
    if file.extension().is_none_or(|extension| extension != "svg") {
        return wrong("must end in .svg, the only format");
    }
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match directory.is_dir() {
        true => Ok(()),
        false => wrong("its directory must exist"),
    }
}

/// Draws the units in use and the quota.
pub(super) fn draw(file: &Path, played: &[Played], quota: u64) -> Result<()> {
    let mut svg = String::new();
    picture(&mut svg, &units_in_use(played), quota)
        .map_err(|error| error.to_string().into())
        .and_then(|()| Ok(fs::write(file, svg)?))
        .map_err(|source| Error::Plot { file: PathBuf::from(file), source })
}

fn picture<'a>(
    svg: &'a mut String,
    in_use: &[(u64, u64)],
    quota: u64,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let first = in_use.first().map_or(0, |&(second, _)| second);
    let last = in_use.last().map_or(0, |&(second, _)| second).max(first + 1);
    let (unit, name) = unit(last - first);
    let at = |second: u64| (second - first) as f64 / unit;
    let columns = columns(in_use, first, last);
    let most = columns.iter().map(|&(_, units)| units).fold(quota, u64::max);

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(20)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..at(last), 0.0..most as f64 * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .x_desc(format!("{name} of the log"))
        .y_desc("units in use")
        .draw()?;
    let ends = columns.iter().skip(1).map(|&(second, _)| second).chain([last]);
    let steps = columns
        .iter()
        .zip(ends)
        .flat_map(|(&(start, units), end)| [(at(start), units as f64), (at(end), units as f64)]);
    chart.draw_series(AreaSeries::new(steps, 0.0, BLUE.mix(0.3)).border_style(BLUE))?;
    let quota = quota as f64;
    chart.draw_series(LineSeries::new([(0.0, quota), (at(last), quota)], &RED))?;
    area.present()
}

/// A unit of time, in seconds, that gives short numbers for this many seconds.
fn unit(seconds: u64) -> (f64, &'static str) {
    match seconds {
        0..=7_200 => (1.0, "seconds"),
        7_201..=345_600 => (3600.0, "hours"),
        _ => (86_400.0, "days"),
    }
}

/// The most units in use in each of at most so many columns of equal width, by their first second.
fn columns(in_use: &[(u64, u64)], first: u64, last: u64) -> Vec<(u64, u64)> {
    let width = (last - first).div_ceil(COLUMNS).max(1);
    let mut states = in_use.iter().copied().peekable();
    let mut units = 0;
    let column = |start: u64| {
        let mut most = units;
        while let Some((second, now)) = states.next_if(|&(second, _)| second < start + width) {
            // What stood before the first second of a column is not in it.
            most = if second == start { now } else { most.max(now) };
            units = now;
        }
        (start, most)
    };
    (first..last).step_by(usize::try_from(width).unwrap_or(usize::MAX)).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_show_the_most_units_of_their_time() {
        let in_use = [(10, 2), (12, 5), (13, 0)];
        assert_eq!(columns(&in_use, 10, 13), [(10, 2), (11, 2), (12, 5)]);
        let long = [(0, 1), (2500, 4), (2501, 2), (5000, 0)];
        let columns = columns(&long, 0, 5000);
        assert_eq!(
            (columns.len(), columns[499], columns[500], columns[501]),
            (1000, (2495, 1), (2500, 4), (2505, 2))
        );
    }

    #[test]
    fn other_formats_and_places_are_refused() {
        let problem = |file: &str| check(Path::new(file)).map_err(|error| error.to_string());
        assert_eq!(problem("use.svg"), Ok(()));
        for (file, rule) in [
            ("use.png", "must end in .svg, the only format"),
            ("svg", "must end in .svg, the only format"),
            ("/no/such/directory/use.svg", "its directory must exist"),
        ] {
            assert_eq!(problem(file), Err(format!("--plot: invalid file \"{file}\": {rule}")));
        }
    }
}
