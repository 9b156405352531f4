//! What detection reports while it learns, and how it learns nothing.

use crate::objective::{Baseline, Better, CollapseRule, Number, Role, Unit};

const fn number(name: &'static str, help: &'static str, role: Role, unit: Unit, better: Better) -> Number {
    Number {
        name,
        help,
        role,
        unit,
        better,
        baseline: None,
    }
}

/// The numbers of a step.
pub(super) const NUMBERS: &[Number] = &[
    number(
        "objectness",
        "Cross-entropy of whether sampled anchors stand for objects, in nats.",
        Role::Term,
        Unit::Nats,
        Better::Lower,
    ),
    number(
        "proposal_boxes",
        "Smooth L1 distance of proposed boxes from those of objects, summed over anchors that stand for objects, a sampled anchor.",
        Role::Term,
        Unit::Plain,
        Better::Lower,
    ),
    number(
        "region_classes",
        "Cross-entropy of the classes of sampled regions, background among them, in nats.",
        Role::Term,
        Unit::Nats,
        Better::Lower,
    ),
    number(
        "region_boxes",
        "Smooth L1 distance of the boxes of regions from those of objects, summed over regions that stand for objects, a sampled region.",
        Role::Term,
        Unit::Plain,
        Better::Lower,
    ),
    number(
        "masks",
        "Cross-entropy of the cells of masks of regions that stand for objects, in nats.",
        Role::Term,
        Unit::Nats,
        Better::Lower,
    ),
    Number {
        name: "region_accuracy",
        help: "Share of the sampled regions whose class is the likeliest one, 0 to 1.",
        role: Role::Measure,
        unit: Unit::Share,
        better: Better::Higher,
        baseline: Some(Baseline {
            number: "background_regions",
            who: "a model that takes every region for background",
        }),
    },
    number(
        "background_regions",
        "Share of the sampled regions that stand for background, 0 to 1.",
        Role::Measure,
        Unit::Share,
        Better::Neither,
    ),
    number(
        "object_anchors",
        "Sampled anchors that stand for objects, a picture.",
        Role::Measure,
        Unit::Plain,
        Better::Neither,
    ),
    number(
        "object_regions",
        "Sampled regions that stand for objects, a picture.",
        Role::Measure,
        Unit::Plain,
        Better::Neither,
    ),
    number(
        "objects",
        "Marked objects in the views, a picture; crowds left out.",
        Role::Measure,
        Unit::Plain,
        Better::Neither,
    ),
    number(
        "unknown_class_objects",
        "Share of the objects whose class lies beyond those that are learnt, 0 to 1: they are not learnt from.",
        Role::Measure,
        Unit::Share,
        Better::Lower,
    ),
    number(
        "objects_without_mask",
        "Share of the objects without a mask, 0 to 1: they teach classes and boxes alone.",
        Role::Measure,
        Unit::Share,
        Better::Neither,
    ),
];

/// The ways in which detection may learn nothing.
pub(super) const COLLAPSE: &[CollapseRule] = &[
    CollapseRule {
        name: "objects_of_unknown_classes",
        help: "more than a hundredth of the objects are of classes beyond those that are learnt: they are not learnt from",
        remedy: "set objective.classes to the number of classes, or leave it out where a manifest names them (`splitmask pack --coco`)",
        holds: |at| at.mean("unknown_class_objects").is_some_and(|share| share > 0.01),
    },
    CollapseRule {
        name: "no_objects_marked",
        help: "less than one marked object in twenty pictures: there is hardly anything to find",
        remedy: "look at the data (`splitmask inspect URL --contact-sheet sheet.png`); with objective.scale far below 1 objects are too small to be kept",
        holds: |at| at.mean("objects").is_some_and(|objects| objects < 0.05),
    },
];
