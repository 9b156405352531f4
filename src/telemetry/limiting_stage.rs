//! Which stage of the pipeline limits, in words, and which key to turn: for `bench pipeline` and the page of a run.

use splitmask_pipeline::metrics::Stage;

/// Share of the trainer's time above which waiting for batches is worth a word; the alert DataStarved fires at 0.2.
const WAITS: f64 = 0.05;

/// What limits, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `consume` = the trainer itself, which is as it should be.
    pub stage: Stage,
    /// One sentence.
    pub what: String,
    /// What helps, with the keys.
    pub remedy: String,
}

/// The limit of a run whose trainer waits for batches for `waits` (0 to 1) of its time; the other arguments as for [`of_pipeline`].
pub fn of_run(waits: f64, times: impl Fn(Stage) -> [f64; 3], wall_s: f64, threads: usize) -> Limit {
    if waits < WAITS {
        return Limit {
            stage: Stage::Consume,
            what: format!(
                "Training limits, as it should: it waits for batches {:.1} % of the time.",
                100.0 * waits
            ),
            remedy: "Nothing in the pipeline to turn. `splitmask bench step` tells what train.batch and train.precision do to a step."
                .into(),
        };
    }
    let limit = of_pipeline(times, wall_s, threads);
    Limit {
        what: format!("Training waits for batches {:.0} % of the time. {}", 100.0 * waits, limit.what),
        ..limit
    }
}

/// The limit of a pipeline whose batches are taken as fast as they come. `times` answers the seconds that a stage worked, waited for input, waited for the
/// next stage, over all its threads; `wall_s` is the time in which it did so, `threads` how many decode, augment and tokenize.
pub fn of_pipeline(times: impl Fn(Stage) -> [f64; 3], wall_s: f64, threads: usize) -> Limit {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let worked = wall_s * threads as f64;
    let occupancy = [Stage::Decode, Stage::Augment, Stage::Tokenize]
        .map(|s| times(s)[0])
        .iter()
        .sum::<f64>()
        / worked;
    let starved = times(Stage::Decode)[1] / worked;
    let batch = times(Stage::Batch)[0] / wall_s;
    if batch > 0.8 {
        return Limit {
            stage: Stage::Batch,
            what: format!(
                "Copying into batches limits: its one thread is busy {:.0} % of the time.",
                100.0 * batch
            ),
            remedy: "Smaller views or fewer of them help; more workers do not.".into(),
        };
    }
    if starved > 0.25 && starved > 1.0 - occupancy - 0.1 {
        let fetches = times(Stage::Fetch)[0] > times(Stage::Read)[0];
        let (stage, remedy) = if fetches {
            (
                Stage::Fetch,
                "Raise pipeline.readers and pipeline.fetch_ahead (requests in flight), or keep a copy with pipeline.cache_dir.",
            )
        } else {
            (Stage::Read, "Raise pipeline.readers, and look at the disk.")
        };
        return Limit {
            stage,
            what: format!("Reading limits: workers wait for input {:.0} % of the time.", 100.0 * starved),
            remedy: remedy.into(),
        };
    }
    let stage = [Stage::Decode, Stage::Augment, Stage::Tokenize]
        .into_iter()
        .max_by(|a, b| times(*a)[0].total_cmp(&times(*b)[0]))
        .expect("three stages");
    let share = times(stage)[0] / (occupancy * worked).max(f64::MIN_POSITIVE);
    let remedy = match (threads < cores, stage) {
        (true, _) => format!("Raise pipeline.workers (there are {cores} cores)."),
        (false, Stage::Decode) => {
            "Every core decodes: `splitmask pack --longest-side` stores smaller images, the only gain without more cores.".into()
        }
        (false, Stage::Augment) => "Number and size of the views cost most, then what changes them: blur, colour jitter, RandAugment (keys of [augment] and [objective]).".into(),
        (false, _) => "Every core is busy: a codebook of fewer words is faster.".into(),
    };
    Limit {
        stage,
        what: format!(
            "The workers limit ({:.0} % busy), of their time {} takes {:.0} %.",
            100.0 * occupancy,
            stage.text(),
            100.0 * share
        ),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Busy, waiting for input, waiting for the next stage, of the stages that a case is about.
    fn limit(waits: f64, times: &[(Stage, [f64; 3])]) -> Limit {
        let of = |stage: Stage| times.iter().find(|(s, _)| s.text() == stage.text()).map_or([0.0; 3], |(_, t)| *t);
        of_run(waits, of, 10.0, 1)
    }

    #[test]
    fn what_limits_is_named_with_its_key() {
        let workers = (Stage::Decode, [7.0, 0.0, 0.0]);
        assert_eq!(limit(0.01, &[workers]).stage.text(), "consume");
        let cases: [(&[(Stage, [f64; 3])], &str, &str); 4] = [
            (&[workers, (Stage::Batch, [9.0, 0.0, 0.0])], "batch", "Smaller views"),
            (
                &[(Stage::Decode, [1.0, 9.0, 0.0]), (Stage::Read, [5.0, 0.0, 0.0])],
                "read",
                "pipeline.readers",
            ),
            (
                &[(Stage::Decode, [1.0, 9.0, 0.0]), (Stage::Fetch, [5.0, 0.0, 0.0])],
                "fetch",
                "pipeline.fetch_ahead",
            ),
            (&[workers, (Stage::Augment, [2.0, 0.0, 0.0])], "decode", ""),
        ];
        for (times, stage, key) in cases {
            let limit = limit(0.5, times);
            assert_eq!(limit.stage.text(), stage, "{limit:?}");
            assert!(
                limit.remedy.contains(key) && limit.what.starts_with("Training waits for batches 50 %"),
                "{limit:?}"
            );
        }
    }
}
