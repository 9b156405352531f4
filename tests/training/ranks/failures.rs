//! What happens to all ranks where one fails.

use super::company::{Company, close, progress, steps};
use super::{EACH, trace};
use crate::ground::Ground;

#[test]
fn what_is_not_finite_on_one_rank_is_skipped_by_all() {
    let ground = Ground::new();
    let want = trace(&ground, "one", 1, &["debug.inject=\"nan@5\""]);
    let have = trace(&ground, "two", 2, &["debug.inject=\"nan@5#1\""]);
    assert!(have[4]["total"].is_null() && want[4]["total"].is_null());
    close(&want, &have, 1e-5);
}

#[test]
fn a_rollback_is_made_by_all() {
    let ground = Ground::new();
    let sets = |inject: &str| {
        let own = [
            "optim.total_steps=40",
            EACH,
            "checkpoint.every_steps=5",
            "stability.check_every_steps=5",
            "stability.nonfinite_run=3",
        ];
        let own = own.map(str::to_owned);
        own.into_iter().chain([format!("debug.inject=\"{inject}\"")]).collect::<Vec<_>>()
    };
    Company::start_each(&ground, "one", 1, &|_| sets("nan@18-22")).finish();
    Company::start_each(&ground, "two", 2, &|_| sets("nan@18-22#1")).finish();
    let told = |run: &str| ground.trace(run).iter().filter(|line| line.get("rollback").is_some()).count();
    assert_eq!((told("one"), told("two")), (1, 1));
    close(&steps(ground.trace("one")), &steps(ground.trace("two")), 1e-4);
    assert_eq!(progress(&ground, "one")["word_counts"], progress(&ground, "two")["word_counts"]);
}

/// A rank that fails by itself tells the others why, and what it tells is what they log.
#[test]
fn a_rank_that_fails_leaves_its_words_with_the_others() {
    let ground = Ground::new();
    let mut company = Company::start(&ground, "run", 2, &["debug.inject=\"oom@5#1\"", EACH]);
    let (code, log) = company.end_of(1);
    assert!(
        code == Some(74) && log.contains("out of memory in a step of 8 images"),
        "{code:?} {log}"
    );
    let (code, log) = company.end_of(0);
    assert!(
        code == Some(75) && log.contains("rank 1 on host") && log.contains("out of memory"),
        "{code:?} {log}"
    );
}

/// Whoever is killed, the others leave with its name, and the same command goes on to the very end of an undisturbed run.
#[test]
fn a_killed_rank_ends_all_and_a_new_start_goes_on_bit_for_bit() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=120", "log.every_steps=4", "checkpoint.every_steps=15"];
    Company::start(&ground, "undisturbed", 2, &sets).finish();
    for (victim, step) in [(1, 20), (0, 50)] {
        let mut company = Company::start(&ground, "killed", 2, &sets);
        company.until_step(step);
        company.rank(victim).signal("KILL");
        let (code, log) = company.end_of(1 - victim);
        assert_eq!(code, Some(75), "{log}");
        let named = match victim {
            1 => "no word from rank 1",
            _ => "the store of rank 0",
        };
        assert!(log.contains(named), "{log}");
    }
    Company::start(&ground, "killed", 2, &sets).finish();
    let (want, have) = (ground.trace("undisturbed"), ground.trace("killed"));
    assert_eq!(want.len(), have.len());
    for (want, have) in want.iter().zip(&have) {
        assert_eq!(want, have, "the resumed run differs at step {}", want["step"]);
    }
}
