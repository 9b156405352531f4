//! Which of many boxes are learnt from: a fixed number, of which no more than a share are objects (arXiv 1506.01497 §3.1.3).

use rand::seq::index;
use splitmask_pipeline::seed::{Purpose, rng};

use super::matching::Match;

/// Who chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// Nobody: all that is not unclear is taken. For tests.
    All,
    /// Chance, by the seed of a step: the choice for a picture depends on that, on its row in the batch and on what it is for, so that it is the same on
    /// every device and any number of ranks.
    Drawn {
        /// Of the step.
        seed: u64,
    },
}

/// How many are taken of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Boxes of a picture.
    pub boxes: usize,
    /// Share of them that may be objects; what there is fewer is made up of background.
    pub objects: f64,
}

/// What is taken, ascending: numbers of candidates that stand for objects, and of those that stand for background.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sampled {
    /// Stand for objects.
    pub objects: Vec<usize>,
    /// Stand for background.
    pub background: Vec<usize>,
}

impl Sampling {
    /// Takes from the candidates of the picture in `row` of the batch; `stage` tells apart what is sampled in one step.
    #[must_use]
    pub fn take(self, matches: &[Match], quota: Quota, row: u64, stage: u64) -> Sampled {
        let of = |wanted: fn(&Match) -> bool| -> Vec<usize> {
            let numbered = matches.iter().enumerate().filter(|(_, found)| wanted(found));
            numbered.map(|(number, _)| number).collect()
        };
        let objects = of(|found| matches!(found, Match::Object(_)));
        let background = of(|found| *found == Match::Background);
        let Self::Drawn { seed } = self else {
            return Sampled { objects, background };
        };
        let mut draws = rng(seed, Purpose::Sampling, row, stage);
        let mut draw = |from: Vec<usize>, number: usize| -> Vec<usize> {
            if from.len() <= number {
                return from;
            }
            let mut taken: Vec<usize> = index::sample(&mut draws, from.len(), number).iter().map(|at| from[at]).collect();
            taken.sort_unstable();
            taken
        };
        let objects = draw(objects, (quota.boxes as f64 * quota.objects) as usize);
        let background = draw(background, quota.boxes - objects.len());
        Sampled { objects, background }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_keeps_to_the_quota_and_depends_on_seed_row_and_stage_alone() {
        let matches: Vec<Match> = (0..1000)
            .map(|n| match n % 10 {
                0 => Match::Object(n),
                1 => Match::Unclear,
                _ => Match::Background,
            })
            .collect();
        let quota = Quota { boxes: 64, objects: 0.25 };
        let take = |seed, row, stage| Sampling::Drawn { seed }.take(&matches, quota, row, stage);
        let first = take(7, 3, 0);
        assert_eq!((first.objects.len(), first.background.len()), (16, 48));
        assert!(first.objects.iter().all(|n| matches!(matches[*n], Match::Object(_))));
        assert!(first.background.iter().all(|n| matches[*n] == Match::Background));
        assert_eq!(first, take(7, 3, 0));
        for other in [take(8, 3, 0), take(7, 4, 0), take(7, 3, 1)] {
            assert_ne!(first, other);
        }
        // Few objects are made up for by background, and what is scarce is taken whole.
        let few = Sampling::Drawn { seed: 1 }.take(&matches[..60], quota, 0, 0);
        assert_eq!((few.objects.len(), few.background.len()), (6, 48));
        assert_eq!(Sampling::All.take(&matches, quota, 0, 0).objects.len(), 100);
        // Every one is as likely as any other.
        let mut taken = [0; 1000];
        for seed in 0..2000 {
            take(seed, 0, 0).background.into_iter().for_each(|n| taken[n] += 1);
        }
        let expected = 2000.0 * 48.0 / 800.0;
        let apart: f64 = matches
            .iter()
            .zip(taken)
            .filter(|(found, _)| **found == Match::Background)
            .map(|(_, times)| (f64::from(times) - expected).powi(2) / expected)
            .sum();
        // Chi squared of 799 degrees of freedom, somewhat less spread as nothing is taken twice: mean 799, deviation 40.
        assert!((650.0..950.0).contains(&apart), "{apart}");
    }
}
