//! What segmentation reports while it learns, and how it learns nothing.

use crate::objective::{Baseline, Better, CollapseRule, Number, Role, Unit};

const BY_FREQUENCY: Baseline = Baseline {
    number: "frequency_guess",
    who: "a model that knows only how many pixels each class has",
};

/// The numbers of a step.
pub(super) const NUMBERS: &[Number] = &[
    Number {
        name: "segmentation",
        help: "Cross-entropy of the classes of labelled pixels in nats.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: Some(BY_FREQUENCY),
    },
    Number {
        name: "auxiliary",
        help: "The same cross-entropy of UperNet's auxiliary head, in nats.",
        role: Role::Term,
        unit: Unit::Nats,
        better: Better::Lower,
        baseline: Some(BY_FREQUENCY),
    },
    Number {
        name: "pixel_accuracy",
        help: "Share of the labelled pixels whose class is the likeliest one, 0 to 1.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Higher,
        baseline: Some(Baseline {
            number: "commonest_class",
            who: "a model that always says the commonest class of the set",
        }),
    },
    Number {
        name: "frequency_guess",
        help: "Cross-entropy of a guess by how many pixels each class has in the manifest (without one: all alike), in nats.",
        role: Role::Measure,
        unit: Unit::Nats,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "commonest_class",
        help: "Share of the labelled pixels that are of the set's commonest class, 0 to 1; missing without a manifest.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "unlabelled_pixels",
        help: "Share of the pixels about which the label maps say nothing, 0 to 1: they are left out of the loss.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Neither,
        baseline: None,
    },
    Number {
        name: "unknown_class_pixels",
        help: "Share of the pixels whose number in the label map lies beyond the classes, 0 to 1: they are left out of the loss.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Lower,
        baseline: None,
    },
];

/// The ways in which segmentation may learn nothing.
pub(super) const COLLAPSE: &[CollapseRule] = &[
    CollapseRule {
        name: "segmentation_by_frequency",
        help: "the segmentation loss is above 98 % of that of a guess by how many pixels each class has: nothing is seen in the images",
        remedy: "lower `optim.lr`, lengthen `optim.warmup_steps`; maps that do not belong to their images do it too (`splitmask inspect --contact-sheet`)",
        holds: |at| at.is_a_guess("segmentation", "frequency_guess"),
    },
    CollapseRule {
        name: "pixels_of_unknown_classes",
        help: "more than a hundredth of the pixels have numbers beyond the classes: they are not learnt from",
        remedy: "give all classes a name (`splitmask pack --map-classes`), or name the number that means nothing (`data.map_ignore`); `splitmask inspect` counts them",
        holds: |at| at.mean("unknown_class_pixels").is_some_and(|share| share > 0.01),
    },
    CollapseRule {
        name: "pixels_without_class",
        help: "more than nine tenths of the pixels have no class: little is learnt from",
        remedy: "look at the maps (`splitmask inspect --contact-sheet`): `data.map_ignore` may be the number of a class",
        holds: |at| at.mean("unlabelled_pixels").is_some_and(|share| share > 0.9),
    },
];
