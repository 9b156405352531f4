//! `curves.svg`: losses against the marginal token entropy, and accuracies, over steps.

use plotters::prelude::*;

/// One value of one curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Optimizer step.
    pub step: u64,
    /// Name of the curve.
    pub curve: String,
    /// Its value.
    pub value: f64,
}

const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
    RGBColor(127, 127, 127),
];

/// Draws curves as SVG: losses in the upper panel, shares (0..1) in the lower one.
///
/// # Errors
/// The plotting library's message.
pub fn curves(title: &str, losses: &[Point], shares: &[Point]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 720)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        let (upper, lower) = root.split_vertically(430);
        panel(&upper, title, ("step", "loss"), &losses.iter().collect::<Vec<_>>())?;
        panel(&lower, "accuracy", ("step", "share"), &shares.iter().collect::<Vec<_>>())?;
        root.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// Draws one panel of curves as SVG; `axes` names what runs along x and the unit of y.
///
/// # Errors
/// The plotting library's message.
pub fn plot(title: &str, axes: (&str, &str), points: &[Point]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 360)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        panel(&root, title, axes, &points.iter().collect::<Vec<_>>())?;
        root.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    axes: (&str, &str),
    points: &[&Point],
) -> Result<(), String> {
    let last = points.iter().map(|p| p.step).max().unwrap_or(1).max(1);
    let finite = || points.iter().map(|p| p.value).filter(|v| v.is_finite());
    let top = finite().fold(0.0f64, f64::max).max(1e-3) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(0..last, 0.0..top)
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .light_line_style(RGBColor(240, 240, 240))
        .draw()
        .map_err(|e| e.to_string())?;
    let mut names: Vec<&str> = points.iter().map(|p| p.curve.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for (i, name) in names.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let line = points
            .iter()
            .filter(|p| p.curve == *name && p.value.is_finite())
            .map(|p| (p.step, p.value));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))
            .map_err(|e| e.to_string())?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    if !names.is_empty() {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_in_the_legend() {
        let point = |step, curve: &str, value| Point {
            step,
            curve: curve.into(),
            value,
        };
        let svg = curves(
            "run",
            &[point(1, "inpaint", 6.0), point(2, "inpaint", 5.0), point(2, "match", f64::NAN)],
            &[point(2, "match accuracy", 0.5)],
        )
        .unwrap();
        for name in ["inpaint", "match accuracy", "match"] {
            assert!(
                svg.contains(&format!("\n{name}\n")) || svg.contains(&format!(">{name}<")),
                "{name} is missing from {svg}"
            );
        }
    }

    #[test]
    fn no_points_still_draw() {
        assert!(curves("run", &[], &[]).unwrap().starts_with("<svg"));
    }
}
