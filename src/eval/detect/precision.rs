//! Average precision of found objects, and how it is told.

use serde::Serialize;

use crate::detection::Averages;
use crate::eval::classes::Remarks;
use crate::eval::marks::Dropped;

/// Outcome of an evaluation of found objects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Precision {
    /// Of boxes.
    pub boxes: Averages,
    /// Of masks; `None` where objects have none.
    pub masks: Option<Averages>,
    /// Pictures that were judged.
    pub images: usize,
    /// Objects in them, crowds left out.
    pub objects: usize,
    /// Crowds.
    pub crowds: usize,
    /// What was found.
    pub found: usize,
    /// Samples that could not be judged, by reason, with the first of each.
    pub dropped: Dropped,
    /// What was left out.
    #[serde(flatten)]
    pub remarks: Remarks,
}

impl Precision {
    /// Lines for a terminal.
    pub(super) fn table(&self) -> Vec<String> {
        let none = Averages::default();
        let masks = self.masks.as_ref().unwrap_or(&none);
        let row = |name: &str, of: fn(&Averages) -> Option<f64>| {
            let cell = |averages: &Averages| of(averages).map_or_else(|| "     -".to_owned(), |share| format!("{share:.4}"));
            format!("{name:<24} {}   {}", cell(&self.boxes), cell(masks))
        };
        let mut lines = vec![
            format!("{:<24} boxes    masks   ({} images, {} objects)", "", self.images, self.objects),
            row("average precision", |of| of.precision),
            row("at an overlap of 0.5", |of| of.precision_50),
            row("at an overlap of 0.75", |of| of.precision_75),
            row("up to 32 × 32 pixels", |of| of.precision_small),
            row("up to 96 × 96 pixels", |of| of.precision_medium),
            row("larger", |of| of.precision_large),
            row("recall of 100", |of| of.recall_100),
        ];
        for class in &self.boxes.classes {
            let of_masks = masks.classes.iter().find(|other| other.name == class.name);
            let of_masks = of_masks.map_or_else(|| "     -".to_owned(), |of| format!("{:.4}", of.precision));
            lines.push(format!(
                "  {:<22} {:.4}   {of_masks}   ({} objects)",
                class.name, class.precision, class.objects
            ));
        }
        lines.extend(self.dropped.lines());
        lines
    }
}
