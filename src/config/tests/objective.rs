//! What an objective's plan asks of the rest, and defaults that make room.

use std::sync::Arc;

use super::*;
use crate::config::explain::warnings;
use crate::eval::pool::Pool;

#[test]
fn what_is_accepted_can_be_drawn() {
    use splitmask_pipeline::decode::Limits;
    use splitmask_pipeline::sample::{SampleMaker, ViewMode};
    let values = [
        "[0.0, 0.5]",
        "[0.009, 0.5]",
        "[0.01, 100]",
        "[0.01, 101]",
        "[0.5, 0.1]",
        "[0.1, 1]",
        "[1, 10]",
        "[1, 10.5]",
    ];
    let mut accepted = 0;
    for key in ["crop.area", "crop.aspect", "colour.blur_sigma"] {
        for value in values {
            let text = format!("[data]\ntrain = \"t\"\n[objective]\ninpaint = false\n[augment]\n{key} = {value}\n");
            match load(&text) {
                Ok(config) => {
                    accepted += 1;
                    SampleMaker::new(Arc::new(config.request()), ViewMode::Train, 0, Limits::default(), None)
                        .map(drop)
                        .unwrap_or_else(|e| panic!("{key} = {value} was accepted and cannot be drawn: {e}"));
                }
                Err(e) => assert!(e.to_string().contains(&format!("augment.{key} = ")), "{key} = {value}: {e}"),
            }
        }
    }
    assert!(accepted >= 7, "{accepted}");
}

#[test]
fn words_need_a_codebook_and_nothing_else_does() {
    let data = "[data]\ntrain = \"t\"\n";
    for (objective, needed) in [("kind = \"beit\"", true), ("inpaint = true", true), ("inpaint = false", false)] {
        let loaded = load(&format!("{data}[objective]\n{objective}\n"));
        match needed {
            true => assert!(
                loaded.unwrap_err().to_string().contains("codebook.path: is required"),
                "{objective}"
            ),
            false => assert_eq!(loaded.unwrap().codebook.path, "", "{objective}"),
        }
    }
}

#[test]
fn defaults_make_room_for_what_was_set_and_say_so() {
    let fitted = |text: &str| {
        let (config, places) = source(&[], &[]).load_text(&format!("{GOOD}{text}")).unwrap();
        let told = |key: &str| places.get(key).map(ToString::to_string).unwrap_or_default();
        assert_eq!(load(&config.to_toml()).unwrap(), config, "what was fitted fits");
        (
            config,
            [
                "objective.mask.min_block",
                "objective.mask.count",
                "optim.warmup_steps",
                "optim.min_lr",
            ]
            .map(told),
        )
    };
    let (config, [block, ..]) = fitted("[model]\nimage = 64\npatch = 16\n");
    assert_eq!(config.objective.table()["mask"]["min_block"].as_integer(), Some(1));
    assert!(
        block.contains("the default 16 gives way") && block.contains("4 × 4 = 16 patches"),
        "{block}"
    );
    let (config, [block, count, ..]) = fitted("[model]\nimage = 128\n[objective]\nkind = \"beit\"\n");
    assert_eq!(config.objective.table()["mask"]["count"].as_integer(), Some(24));
    assert!(count.contains("8 × 8 = 64 patches") && block.is_empty(), "{count} {block}");
    let (config, [.., warmup, _]) = fitted("[optim]\ntotal_steps = 300\n");
    assert_eq!(config.optim.warmup_steps, 10);
    assert!(warmup.contains("6250") && warmup.contains("optim.total_steps = 300"), "{warmup}");
    let (config, [.., min_lr]) = fitted("[optim]\nlr = 1e-6\n");
    assert!(config.optim.min_lr < 1e-8 && min_lr.contains("optim.lr"), "{min_lr}");
    let (config, ..) = fitted("[optim]\nweight_decay = 0.3\n");
    assert_eq!(config.optim.final_weight_decay, 0.3, "one weight decay is meant for the whole run");
    let (config, ..) = fitted("[optim]\nweight_decay = 0.04\nfinal_weight_decay = 0.4\n");
    assert_eq!(config.optim.final_weight_decay, 0.4);
    let (config, told) = fitted("[model]\nimage = 112\npatch = 16\n");
    assert_eq!(
        (config.model.patches(), told),
        (49, [""; 4].map(String::from)),
        "7 × 7 patches are split as they are"
    );
    let text = refused(&format!("{GOOD}[model]\nimage = 64\n[objective.mask]\nmin_block = 16\n"));
    assert!(
        text.contains("demo.toml:8:1: objective.mask.min_block = 16: expected at most 8"),
        "{text}"
    );
}

#[test]
fn features_are_the_tokens_that_a_loss_sees_unless_somebody_says_otherwise() {
    let of = |kind: &str, more: &str| {
        let text = format!("{GOOD}[objective]\nkind = \"{kind}\"\n[eval]\n{more}");
        source(&[], &[]).load_text(&text).unwrap().0
    };
    let pool = |kind: &str, more: &str| of(kind, more).eval.pool;
    for kind in ["dino", "simclr", "moco-v3", "supervised"] {
        assert_eq!(pool(kind, ""), Pool::Cls, "{kind}");
        assert_eq!(pool(kind, "pool = \"mean\"\n"), Pool::Mean, "{kind}");
    }
    for kind in ["splitmask", "beit", "mae"] {
        assert_eq!(pool(kind, ""), Pool::Mean, "{kind}");
    }
    let told = |config: &Config| warnings(config).iter().any(|told| told.contains("tokens that no loss sees"));
    assert!(told(&of("dino", "pool = \"mean\"\n")) && told(&of("mae", "pool = \"cls\"\n")));
    assert!(!told(&of("dino", "")) && !told(&of("dino", "pool = \"both\"\n")));
}

#[test]
fn more_outputs_than_images_are_told() {
    let plan = |prototypes: u32| {
        let text = format!("{GOOD}[objective]\nkind = \"dino\"\nprototypes = {prototypes}\n");
        source(&[], &[]).load_text(&text).unwrap().0.objective
    };
    let told = plan(4096).odd_with(4000);
    assert!(
        told.len() == 1 && told[0].contains("objective.prototypes = 4096") && told[0].contains("4000 images"),
        "{told:?}"
    );
    assert!(plan(4096).odd_with(4096).is_empty());
}
