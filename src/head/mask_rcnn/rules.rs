//! Thresholds and numbers that may change during a run; torchvision's defaults.

use super::sampling::Quota;

/// How regions are proposed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProposalRules {
    /// From this overlap on an anchor stands for an object.
    pub object: f64,
    /// Below this one it stands for background.
    pub background: f64,
    /// Anchors of a picture that are learnt from.
    pub quota: Quota,
    /// Best anchors of a level that are looked at, in training and else.
    pub before: [u32; 2],
    /// Proposals of a picture, in training and else.
    pub after: [u32; 2],
    /// Of two proposals of a level that overlap more, the better one stays.
    pub overlap: f64,
    /// Proposals of a smaller probability are left out.
    pub score: f64,
}

impl ProposalRules {
    /// Anchors of a level that are looked at, and proposals of a picture.
    pub(super) fn most(&self, train: bool) -> (i64, usize) {
        let stage = usize::from(!train);
        (self.before[stage].into(), self.after[stage] as usize)
    }
}

impl Default for ProposalRules {
    fn default() -> Self {
        Self {
            object: 0.7,
            background: 0.3,
            quota: Quota { boxes: 256, objects: 0.5 },
            before: [2000, 1000],
            after: [2000, 1000],
            overlap: 0.7,
            score: 0.0,
        }
    }
}

/// How regions are learnt and what is kept of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionRules {
    /// From this overlap on a region stands for an object; below, for background.
    pub object: f64,
    /// Regions of a picture that are learnt from.
    pub quota: Quota,
    /// What is found with a probability up to this is left out.
    pub score: f64,
    /// Of two found objects of a class that overlap more, the better one stays.
    pub overlap: f64,
    /// Found objects of a picture.
    pub most: u32,
}

impl Default for RegionRules {
    fn default() -> Self {
        Self {
            object: 0.5,
            quota: Quota { boxes: 512, objects: 0.25 },
            score: 0.05,
            overlap: 0.5,
            most: 100,
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rules {
    /// How regions are proposed.
    pub proposals: ProposalRules,
    /// How they are learnt and kept.
    pub regions: RegionRules,
}
