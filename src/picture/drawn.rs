//! The pictures that a run draws besides its curves.

use crate::objective::{ClassesOf, Kind};

/// Those of every objective's encoder: (name, what its columns show from left to right, separated by " · ").
const OF_ENCODER: &[(&str, &str)] = &[
    (
        "features",
        "image · features of its patches, as colours by their first three principal components",
    ),
    (
        "attention",
        "image · where the class token looks in the last block · where the patches look, on average",
    ),
    (
        "neighbours",
        "image · the most similar images of the set, nearest first: green frame = same class, red = another, grey = no label",
    ),
];

/// Those of an objective that learns classes.
const OF_CLASSES: &[(&str, &str)] = &[(
    "confusion",
    "rows: what images of the validation set are, columns in the same order: what they were taken for; green = right, red = wrong, darker = a larger share of the row",
)];

fn of_classes(kind: &Kind) -> &'static [(&'static str, &'static str)] {
    let learns = (kind.variants)()
        .iter()
        .any(|plan| plan.classes().is_some() && plan.classes_of() == ClassesOf::Images);
    if learns { OF_CLASSES } else { &[] }
}

/// Names and captions of all of a run's PNG files, those of its objective first.
pub fn drawn(kind: &Kind) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    kind.sheets.iter().chain(OF_ENCODER).chain(of_classes(kind)).copied()
}

/// What the columns of such a picture show.
#[must_use]
pub fn caption(kind: &Kind, picture: &str) -> &'static str {
    drawn(kind).find(|(name, _)| *name == picture).map_or("", |(_, caption)| caption)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::objective::OBJECTIVES;

    #[test]
    fn no_objective_draws_over_a_picture_of_the_encoder() {
        for kind in OBJECTIVES {
            let names: BTreeSet<_> = drawn(kind).map(|(name, _)| name).collect();
            assert_eq!(
                names.len(),
                kind.sheets.len() + OF_ENCODER.len() + of_classes(kind).len(),
                "{}",
                kind.name
            );
        }
    }
}
