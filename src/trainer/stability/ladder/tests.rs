use super::*;
use crate::checkpoint::Rollback;

const NAN: (f64, f64) = (f64::NAN, f64::NAN);

fn see(ladder: &mut Ladder, steps: impl IntoIterator<Item = (f64, f64)>) -> Vec<u64> {
    for (loss, norm) in steps {
        ladder.observe(&Tensor::from(loss), &Tensor::from(norm));
    }
    ladder.read(200).unwrap()
}

fn good(n: usize) -> impl Iterator<Item = (f64, f64)> {
    (0..n).map(|i| (5.0 + 0.1 * ((i * 7919) % 13) as f64, 1.0 + 0.01 * (i % 5) as f64))
}

#[test]
fn four_in_a_row_are_borne_and_five_are_not() {
    let config = StabilityConfig::default();
    let mut ladder = Ladder::default();
    assert_eq!(see(&mut ladder, good(6).chain([NAN; 4])), [7, 8, 9, 10]);
    assert_eq!(ladder.judge(&config).instability, None);
    assert_eq!(see(&mut ladder, [NAN]), [11]);
    let instability = ladder.judge(&config).instability.unwrap();
    assert_eq!(instability.first_bad, 7);
    assert!(instability.reason.contains("5 steps in a row"), "{}", instability.reason);
    assert!(ladder.ends_badly());
    assert_eq!(ladder.last_bad(), Some(11));
}

#[test]
fn an_infinite_norm_alone_counts() {
    let mut ladder = Ladder::default();
    assert_eq!(see(&mut ladder, [(1.0, f64::INFINITY), (1.0, 2.0)]), [1]);
    assert!(!ladder.ends_badly());
}

#[test]
fn ten_of_two_hundred_are_too_many_and_of_more_they_are_not() {
    let config = StabilityConfig::default();
    let scattered = |gap: usize| (0..10).flat_map(move |_| good(gap).chain([NAN]));
    let mut ladder = Ladder::default();
    see(&mut ladder, scattered(18));
    let instability = ladder.judge(&config).instability.unwrap();
    assert_eq!(instability.first_bad, 19);
    let mut ladder = Ladder::default();
    see(&mut ladder, scattered(29));
    assert_eq!(ladder.judge(&config).instability, None);
}

#[test]
fn a_resume_between_two_looks_changes_no_verdict() {
    let config = StabilityConfig::default();
    for cut in 0..12 {
        let steps: Vec<_> = good(6).chain([NAN; 6]).collect();
        let mut ladder = Ladder::default();
        see(&mut ladder, steps[..cut].iter().copied());
        let text = serde_json::to_string(&ladder.save()).unwrap();
        let mut ladder = Ladder::restore(serde_json::from_str(&text).unwrap());
        see(&mut ladder, steps[cut..].iter().copied());
        let instability = ladder.judge(&config).instability.unwrap();
        assert_eq!(instability.first_bad, 7, "cut at {cut}");
    }
}

#[test]
fn a_spike_needs_both_loss_and_norm() {
    let mut config = StabilityConfig::default();
    for (loss, norm, want) in [(50.0, 20.0, true), (50.0, 2.0, false), (5.5, 20.0, false)] {
        let mut ladder = Ladder::default();
        see(&mut ladder, good(150).chain([(loss, norm)]));
        let finding = ladder.judge(&config);
        assert_eq!(finding.spikes.len(), usize::from(want), "{loss} {norm}");
        assert_eq!(finding.instability, None, "only a warning by default");
    }
    config.spike_action = SpikeAction::Rollback;
    let mut ladder = Ladder::default();
    see(&mut ladder, good(150).chain([(50.0, 20.0)]));
    assert_eq!(ladder.judge(&config).instability.unwrap().first_bad, 151);
}

#[test]
fn no_spike_in_fifty_thousand_clean_steps() {
    use rand::{Rng, SeedableRng};
    let config = StabilityConfig::default();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut ladder = Ladder::default();
    let mut spikes = 0;
    for step in 0..50_000u32 {
        // A falling loss with normal noise; a norm with a heavy tail.
        let noise: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let loss = 2.0 + 6.0 * (-f64::from(step) / 8000.0).exp() + 0.15 * noise;
        ladder.observe(&Tensor::from(loss), &Tensor::from(1.0 / (1.0 - 0.95 * rng.random::<f64>())));
        if step % 10 == 9 {
            ladder.read(config.window).unwrap();
            spikes += ladder.judge(&config).spikes.len();
        }
    }
    assert_eq!(spikes, 0);
}

#[test]
fn the_third_rollback_in_a_thousand_steps_is_the_last() {
    let config = StabilityConfig::default();
    let rollback = |consumed| Rollback {
        consumed,
        from_step: 0,
        to_step: 0,
        first_bad_step: 0,
        reason: String::new(),
        skipped_from: Default::default(),
        skipped_to: Default::default(),
    };
    let at = |consumed: u64, earlier: &[u64]| {
        let rollbacks = earlier.iter().map(|&c| rollback(c)).collect();
        Ladder::restore(Stability {
            consumed,
            rollbacks,
            ..Stability::default()
        })
        .at_the_limit(&config)
    };
    assert!(!at(100, &[]));
    assert!(!at(200, &[100]));
    assert!(at(300, &[100, 200]));
    assert!(!at(1150, &[100, 200]), "the first is over a thousand steps ago");
}
