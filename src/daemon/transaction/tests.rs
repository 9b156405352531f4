use std::collections::{BTreeMap, VecDeque};

use super::*;
use Action as A;
use Event as E;

const ENDS: [End; 5] = [End::Stopped, End::Finished, End::Away, End::Disk, End::Failed];

fn events() -> Vec<Event> {
    let mut all = vec![
        E::Begin,
        E::Refused,
        E::Unchanged,
        E::TookOver,
        E::Declined,
        E::Saved,
        E::Unsaved,
        E::Ready,
        E::Retry,
        E::Drain,
    ];
    all.extend([Class::Live, Class::Rebuild, Class::Restart, Class::Frozen].map(E::Valid));
    all.extend(ENDS.map(E::Ended));
    all
}

/// Whether the event can happen at all: nobody answers who is not there.
fn possible(at: Transaction, event: Event) -> bool {
    match event {
        E::TookOver | E::Declined | E::Saved | E::Unsaved => at.trainer == Trainer::Training,
        E::Ready | E::Ended(_) => at.trainer != Trainer::Gone,
        _ => true,
    }
}

/// A run with its trainer, idle.
fn running() -> Transaction {
    let mut run = Transaction::FIRST;
    assert_eq!(run.on(E::Ready), []);
    run
}

/// Every state that a run can get into, with the shortest way to it.
fn reachable() -> BTreeMap<Transaction, Vec<Event>> {
    let mut ways = BTreeMap::from([(Transaction::FIRST, vec![])]);
    let mut next = VecDeque::from([Transaction::FIRST]);
    while let Some(at) = next.pop_front() {
        for event in events().into_iter().filter(|e| possible(at, *e)) {
            let mut then = at;
            if then.on(event).contains(&A::End) {
                continue;
            }
            if !ways.contains_key(&then) {
                let way = ways[&at].iter().copied().chain([event]).collect();
                ways.insert(then, way);
                next.push_back(then);
            }
        }
    }
    ways
}

/// Each (state, event) that is possible: before, after, what to do, and the way to it.
fn every_step(mut check: impl FnMut(Transaction, Transaction, Event, &[Action], &str)) {
    let states = reachable();
    assert!(states.len() > 12, "{states:#?}");
    for (at, way) in states {
        for event in events().into_iter().filter(|e| possible(at, *e)) {
            let mut then = at;
            let actions = then.on(event);
            check(at, then, event, &actions, &format!("{way:?}, then {event:?} → {actions:?}"));
        }
    }
}

#[test]
fn a_reload_is_answered_exactly_once_and_when_it_is_over() {
    every_step(|at, then, event, actions, way| {
        let answers = actions.iter().filter(|a| matches!(a, A::Commit | A::GiveUp | A::Same)).count();
        let over = !at.is_idle() && then.is_idle();
        assert_eq!(answers, usize::from(over), "{way}");
        assert_eq!(at.is_idle() && !then.is_idle(), actions.contains(&A::Read), "{way}");
        assert!(!actions.contains(&A::Read) || event == E::Begin, "{way}");
    });
}

#[test]
fn there_is_never_more_than_one_trainer_and_never_none_without_a_reason() {
    every_step(|at, then, event, actions, way| {
        let starts = actions.iter().filter(|a| matches!(a, A::StartNew | A::StartOld)).count();
        let gone = matches!(event, E::Ended(_));
        assert!(starts == 0 || at.waits() || gone, "two trainers: {way}");
        assert!(starts <= 1, "{way}");
        assert_eq!(then.waits(), starts == 0 && (at.waits() || gone), "{way}");
        if gone {
            assert!(
                starts == 1 || actions.contains(&A::Await) || actions.contains(&A::End),
                "left alone: {way}"
            );
        }
        let asks = actions.iter().any(|a| matches!(a, A::Ask(_) | A::Save | A::Stop));
        assert!(!asks || then.trainer == Trainer::Training, "nobody is there to be asked: {way}");
    });
}

#[test]
fn what_drains_starts_nothing_and_ends_with_its_trainer() {
    every_step(|at, then, event, actions, way| {
        if then.draining {
            assert!(
                !actions
                    .iter()
                    .any(|a| matches!(a, A::StartNew | A::StartOld | A::Await | A::Read | A::Ask(_) | A::Save)),
                "{way}"
            );
        }
        if at.draining && matches!(event, E::Ended(_)) {
            assert!(actions.contains(&A::End), "{way}");
        }
        if event == E::Drain && !at.draining {
            assert!(
                actions.contains(&A::Stop) || actions.contains(&A::End) || at.stage == Stage::Stopping,
                "nobody is told: {way}"
            );
        }
        assert!(
            actions.iter().filter(|a| **a == A::End).count() <= 1 && then.is_idle() || !actions.contains(&A::End),
            "{way}"
        );
    });
}

#[test]
fn only_what_the_trainer_accepted_comes_into_force() {
    every_step(|at, _, event, actions, way| {
        if actions.contains(&A::Commit) {
            let accepted = matches!(
                (at.stage, event),
                (Stage::Asked, E::TookOver)
                    | (Stage::Starting { .. }, E::Ready | E::Ended(End::Finished))
                    | (Stage::Starting { waited: true }, E::Ended(End::Away))
            );
            assert!(accepted, "{way}");
        }
    });
}

#[test]
fn a_failed_reload_ends_no_run_that_could_go_on() {
    // What a refusal, a disk or a bucket can do at each stage, with a trainer that goes on or is replaced.
    let go_on: [(&[Event], &[Action]); 8] = [
        (&[E::Begin, E::Refused], &[A::GiveUp]),
        (&[E::Begin, E::Valid(Class::Rebuild), E::Declined], &[A::GiveUp]),
        (&[E::Begin, E::Valid(Class::Restart), E::Unsaved], &[A::GiveUp]),
        (&[E::Begin, E::Valid(Class::Restart), E::Saved, E::Ended(End::Disk)], &[A::StartOld]),
        (
            &[
                E::Begin,
                E::Valid(Class::Restart),
                E::Saved,
                E::Ended(End::Stopped),
                E::Ended(End::Failed),
            ],
            &[A::StartOld],
        ),
        (
            &[
                E::Begin,
                E::Valid(Class::Restart),
                E::Saved,
                E::Ended(End::Stopped),
                E::Ended(End::Away),
            ],
            &[A::StartOld],
        ),
        (
            &[
                E::Begin,
                E::Valid(Class::Restart),
                E::Saved,
                E::Ended(End::Stopped),
                E::Ended(End::Away),
                E::Ended(End::Away),
            ],
            &[A::GiveUp, A::Await],
        ),
        (
            &[E::Ended(End::Away), E::Begin, E::Valid(Class::Live), E::Ended(End::Failed)],
            &[A::GiveUp, A::Await],
        ),
    ];
    for (way, last) in go_on {
        let mut run = running();
        let mut actions = vec![];
        for event in way {
            actions = run.on(*event);
        }
        assert_eq!(actions, last, "{way:?}");
        assert!(!actions.contains(&A::End));
    }
}

#[test]
fn late_answers_do_nothing() {
    for event in [
        E::TookOver,
        E::Declined,
        E::Saved,
        E::Unsaved,
        E::Ready,
        E::Refused,
        E::Unchanged,
        E::Retry,
    ] {
        let mut run = running();
        assert_eq!(run.on(event), [], "{event:?}");
        assert_eq!(run, running());
    }
}

#[test]
fn a_run_that_waits_for_its_bucket_takes_a_new_config_and_looks_at_once() {
    let mut run = Transaction::FIRST;
    assert_eq!(run.on(E::Begin), [], "it may still turn out to be there");
    assert_eq!(run.on(E::Ended(End::Away)), [A::Await]);
    assert_eq!(run.on(E::Begin), [A::Read]);
    assert_eq!(run.on(E::Retry), [], "the file is being read");
    assert_eq!(run.on(E::Valid(Class::Live)), [A::StartNew]);
    assert_eq!(run.on(E::Ended(End::Away)), [A::Commit, A::Await]);
    assert_eq!(
        (run.on(E::Begin), run.on(E::Unchanged)),
        (vec![A::Read], vec![A::Same, A::StartOld])
    );
    assert_eq!(run.on(E::Ended(End::Away)), [A::Await]);
    assert_eq!(run.on(E::Retry), [A::StartOld]);
    assert_eq!(run.on(E::Drain), [A::End], "it has trained nothing that could be lost");
}
