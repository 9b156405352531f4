//! Ranges of the numbers, and what they are to the network.

use super::DetectConfig;
use crate::head::mask_rcnn::{ProposalRules, Quota, RegionRules, Rules};
use crate::setting::Findings;

impl DetectConfig {
    /// Everything but what depends on the model.
    pub(super) fn check_numbers(&self, found: &mut Findings) {
        found.need(
            self.classes <= 32_767,
            "objective.classes",
            self.classes,
            "0 (those of the manifest), or 1 to 32767",
        );
        for (key, width) in [
            ("objective.channels", self.channels),
            ("objective.box_width", self.box_width),
            ("objective.mask_width", self.mask_width),
        ] {
            found.need((1..=8192).contains(&width), key, width, "1 to 8192");
        }
        found.need(
            (1..=16).contains(&self.mask_depth),
            "objective.mask_depth",
            self.mask_depth,
            "1 to 16 convolutions",
        );
        for (key, side, most) in [
            ("objective.anchor", self.anchor, 64.0),
            ("objective.canonical", self.canonical, 8192.0),
        ] {
            found.need(side > 0.0 && side <= most, key, side, format!("above 0, at most {most}"));
        }
        for (key, share) in [
            ("objective.anchor_background", self.anchor_background),
            ("objective.proposal_overlap", self.proposal_overlap),
            ("objective.found_overlap", self.found_overlap),
        ] {
            found.need((0.0..=1.0).contains(&share), key, share, "0 to 1");
        }
        // At 0 there is no background, or nothing else to learn.
        for (key, share) in [
            ("objective.anchor_object", self.anchor_object),
            ("objective.anchor_share", self.anchor_share),
            ("objective.region_object", self.region_object),
            ("objective.region_share", self.region_share),
        ] {
            found.need(share > 0.0 && share <= 1.0, key, share, "above 0, at most 1");
        }
        found.need(
            (0.0..1.0).contains(&self.least_probability),
            "objective.least_probability",
            self.least_probability,
            "0 to below 1, which no object reaches",
        );
        found.need(
            self.anchor_background <= self.anchor_object,
            "objective.anchor_background",
            self.anchor_background,
            format!("at most objective.anchor_object = {}", self.anchor_object),
        );
        for (key, number) in [
            ("objective.anchors", self.anchors),
            ("objective.candidates", self.candidates),
            ("objective.eval_candidates", self.eval_candidates),
            ("objective.proposals", self.proposals),
            ("objective.eval_proposals", self.eval_proposals),
            ("objective.regions", self.regions),
            ("objective.found", self.found),
        ] {
            found.need((1..=100_000).contains(&number), key, number, "1 to 100000");
        }
        for (key, weight) in self.weights() {
            found.weight(&format!("objective.{key}"), weight);
        }
    }

    /// Weights of the losses with their keys, in the order of [`crate::head::mask_rcnn::MaskRcnnLosses::terms`].
    pub(super) fn weights(&self) -> [(&'static str, f64); 5] {
        [
            ("objectness_weight", self.objectness_weight),
            ("proposal_weight", self.proposal_weight),
            ("class_weight", self.class_weight),
            ("box_weight", self.box_weight),
            ("mask_weight", self.mask_weight),
        ]
    }

    /// What the network goes by.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            proposals: ProposalRules {
                object: self.anchor_object,
                background: self.anchor_background,
                quota: Quota {
                    boxes: self.anchors as usize,
                    objects: self.anchor_share,
                },
                before: [self.candidates, self.eval_candidates],
                after: [self.proposals, self.eval_proposals],
                overlap: self.proposal_overlap,
                score: 0.0,
            },
            regions: RegionRules {
                object: self.region_object,
                quota: Quota {
                    boxes: self.regions as usize,
                    objects: self.region_share,
                },
                score: self.least_probability,
                overlap: self.found_overlap,
                most: self.found,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_torchvisions() {
        assert_eq!(DetectConfig::default().rules(), Rules::default());
    }
}
