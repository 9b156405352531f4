//! Several processes train one run on the CPU by gloo. Each test starts its own on the loopback interface and waits for their end.

mod alone;
mod company;
mod damage;
mod evaluations;
mod failures;
mod refusals;
mod stripes;
mod torchrun;
mod vote;
mod waiting;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::ground::Ground;
use company::{Company, close, images, progress, with_objective};

const STEPS: &str = "optim.total_steps=20";
const EACH: &str = "log.every_steps=1";

/// The numbers of all steps of a run of `world` ranks.
fn trace(ground: &Ground, run: &str, world: usize, more: &[&str]) -> Vec<Value> {
    let sets: Vec<&str> = [STEPS, EACH].iter().chain(more).copied().collect();
    Company::start(ground, run, world, &sets).finish();
    let trace = ground.trace(run);
    assert!(trace.len() >= 20, "{run}: {} lines", trace.len());
    trace
}

/// The lines without one of their numbers.
fn without(lines: &[Value], key: &str) -> Vec<Value> {
    let mut lines = lines.to_vec();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove(key);
    }
    lines
}

/// One config gives one training, up to the rounding of sums: losses, norms, accuracies and which words came, so the same images.
#[test]
fn any_number_of_ranks_and_parts_trains_what_one_process_trains() {
    let ground = Ground::new();
    for (kind, more) in [
        (
            "splitmask",
            "mask = { kind = \"uniform-split\", keep = 0.5 }\ndrop_path = 0.1\nboth_branch_negatives = true\n",
        ),
        ("beit", "drop_path = 0.2\n"),
        ("mae", "[objective.decoder]\nlayers = 1\nwidth = 32\nheads = 2\n"),
    ] {
        std::fs::write(ground.config(), with_objective(&ground, kind, more)).unwrap();
        let want = trace(&ground, &format!("{kind}-1"), 1, &[]);
        for (world, parts) in [(2, 1), (2, 2), (4, 1), (4, 2)] {
            if kind != "splitmask" && (world, parts) != (2, 2) {
                continue;
            }
            let run = format!("{kind}-{world}-{parts}");
            let have = trace(&ground, &run, world, &[&format!("train.accumulate={parts}")]);
            close(&want, &have, 1e-5);
            let (one, all) = (progress(&ground, &format!("{kind}-1")), progress(&ground, &run));
            assert_eq!(one["word_counts"], all["word_counts"], "{run}: other images");
            assert_eq!(all["cursors"].as_array().unwrap().len(), world);
            let samples = |cursor: &Value| cursor["taken"].as_u64().unwrap() + cursor["before"].as_u64().unwrap();
            for cursor in all["cursors"].as_array().unwrap() {
                assert_eq!(samples(cursor), samples(&one["cursor"]), "{run}");
            }
        }
    }
}

/// Objectives that look at several images of a batch at once look at those of all ranks: batch normalisation, contrast, centres, Sinkhorn-Knopp, KoLeo,
/// images mixed in pairs.
#[test]
fn what_looks_at_several_images_looks_at_those_of_all_ranks() {
    const HEAD: &str = "[objective.projection]\nlayers = 2\nhidden = 32\nout = 16\n";
    // The last layer learns from step 7 on: from there it has gradients that are to be averaged.
    const DINO: &str = "prototypes = 24\nhidden = 32\nbottleneck = 16\nlocal_crops = 2\nlocal_size = 16\nfreeze_last_layer_steps = 6\n";
    const DINO_V2: &str = "centring = \"sinkhorn\"\nkoleo_weight = 0.1\nibot_weight = 1.0\nseparate_heads = true\nibot_prototypes = 20\n";
    let ground = Ground::new();
    for (name, kind, more, each) in [
        ("moco-v3", "moco-v3", HEAD.to_owned(), vec![(2, 1), (4, 1)]),
        ("simclr", "simclr", HEAD.to_owned(), vec![(2, 1)]),
        ("dino", "dino", format!("{DINO}ibot_weight = 0.5\n"), vec![(2, 1), (2, 2), (4, 1)]),
        ("dinov2", "dino", format!("{DINO}{DINO_V2}"), vec![(2, 1), (4, 2)]),
        ("supervised", "supervised", "erasing = 0.5\n".to_owned(), vec![(4, 2)]),
        ("classify", "classify", "rand_augment = 0.0\n".to_owned(), vec![(2, 1)]),
    ] {
        std::fs::write(ground.config(), with_objective(&ground, kind, &more)).unwrap();
        // From step to step the rounding of f32 grows where heads have BatchNorm: at a rate of 1e-3 to 3e-5 of a loss and 2e-4 of the gradient's norm by
        // step 20, where the others stay below 2e-6.
        let with_batch_norm = ["moco-v3", "simclr"].contains(&name);
        let rate = if with_batch_norm { "optim.lr=1e-4" } else { "optim.lr=1e-3" };
        let of = |world: usize, parts: usize| {
            let run = format!("{name}-{world}-{parts}");
            trace(&ground, &run, world, &[&format!("train.accumulate={parts}"), rate])
        };
        // How far class tokens spread is a number of each part.
        let mut alone = BTreeMap::new();
        for (world, parts) in each {
            let want = alone.entry(parts).or_insert_with(|| of(1, parts));
            let have = of(world, parts);
            if with_batch_norm {
                close(want, &have, 1e-4);
                close(&without(want, "grad_norm"), &without(&have, "grad_norm"), 1e-5);
            } else {
                close(want, &have, 1e-5);
            }
        }
    }
}

/// Segmentation's loss is the mean over labelled pixels, of which each rank has another number: here those of things, without the ground.
#[test]
fn a_mean_over_labelled_pixels_is_that_of_all_ranks() {
    let ground = Ground::with_maps();
    // UperNet drops channels too, each rank those of its own images.
    for head in ["", "head = \"upernet\"\nauxiliary_width = 8\ndropout = 0.2\n"] {
        let more = format!("width = 16\ndrop_path = 0.0\n{head}");
        std::fs::write(ground.config(), with_objective(&ground, "segment", &more)).unwrap();
        let name = if head.is_empty() { "deconv" } else { "upernet" };
        let of = |world: usize| {
            let sets = ["data.map_reduce_zero=true", "model.depth=4"];
            trace(&ground, &format!("{name}-{world}"), world, &sets)
        };
        let (want, have) = (of(1), of(2));
        assert!(
            want.iter().all(|step| step["unlabelled_pixels"].as_f64() > Some(0.3)),
            "{:?}",
            want[0]
        );
        assert_eq!(want[0]["auxiliary"].is_f64(), name == "upernet");
        close(&want[..3], &have[..3], 1e-5);
        close(&want, &have, 1e-3);
    }
}

/// Detection's losses are means over sampled anchors, regions and cells of masks, of which each rank has another number: one of four may have no object.
#[test]
fn what_is_learnt_of_objects_is_that_of_all_ranks() {
    let ground = Ground::with_objects();
    std::fs::write(ground.config(), crate::finetune::config(&ground, crate::detect::OBJECTIVE, "")).unwrap();
    let [train, val] = ["train", "val"].map(|set| format!("data.{set}={}/{set}", ground.path("objects").display()));
    let of = |world: usize| {
        trace(
            &ground,
            &format!("of-{world}"),
            world,
            &[&train, &val, "train.batch=8", "model.depth=4"],
        )
    };
    let (want, have) = (of(1), of(4));
    assert!(want.iter().any(|step| step["objects"].as_f64() < Some(0.6)), "{:?}", want[0]);
    close(&want[..3], &have[..3], 1e-5);
    close(&want, &have, 1e-3);
}

/// 4 → 2 → 4 → 1 ranks, each stopped by a signal at another rank: one checkpoint each time, and no image lost or doubled: each step has the images that
/// it has with one rank, in the same order.
#[test]
fn a_stop_at_any_rank_stops_all_at_one_step_and_another_number_goes_on() {
    let ground = Ground::new();
    let sets = [
        "optim.total_steps=90",
        EACH,
        "checkpoint.every_steps=1000",
        "log.filter=\"info,splitmask::images=trace\"",
    ];
    let logged = |run: &str| images(&std::fs::read_to_string(ground.path(&format!("{run}-0.log"))).unwrap());
    Company::start(&ground, "one", 1, &sets).finish();
    let (want, mut have) = (logged("one"), BTreeMap::new());
    let mut stopped = 0;
    for (world, at, step) in [(4, 3, 10), (2, 1, 30), (4, 0, 50)] {
        let mut company = Company::start(&ground, "many", world, &sets);
        company.until_step(step);
        if world == 2 {
            company.rank(at).signal("USR1");
            let written = || splitmask::checkpoint::steps(&ground.path("many/checkpoints")).pop();
            company.rank(at).until("the checkpoint", |_| written().is_some_and(|s| s > stopped));
        }
        company.rank(at).signal("TERM");
        let mut of_ranks = Vec::new();
        for rank in 0..world {
            let (code, log) = company.end_of(rank);
            assert_eq!(code, Some(75), "rank {rank} of {world}: {log}");
            assert!(log.contains("after a checkpoint"), "{log}");
            of_ranks.push(images(&log));
        }
        // Rank r has the images r, r + W, ….
        for (step, first) in &of_ranks[0] {
            let row = |n: usize| of_ranks.iter().map(move |of| of[step][n].clone());
            let all: Vec<String> = (0..first.len()).flat_map(row).collect();
            assert!(have.insert(*step, all).is_none(), "step {step} was taken twice");
        }
        let checkpoints = splitmask::checkpoint::steps(&ground.path("many/checkpoints"));
        let last = *checkpoints.last().unwrap();
        assert!(last > stopped && last >= step, "{checkpoints:?}");
        stopped = last;
    }
    Company::start(&ground, "many", 1, &sets).finish();
    let rest = logged("many");
    assert_eq!(rest.keys().next(), Some(&(stopped + 1)));
    have.extend(rest);
    assert!(want.len() == 90 && want.values().all(|images| images.len() == 16));
    assert_eq!(have, want, "images were lost, doubled, or came in another order");
    // Rounding grows over 90 steps; that no image was lost or doubled is told by the words, to the last one.
    close(&ground.trace("one"), &ground.trace("many"), 1e-3);
    let (one, many) = (progress(&ground, "one"), progress(&ground, "many"));
    assert_eq!(one["word_counts"], many["word_counts"]);
    assert_eq!(one["cursor"], many["cursor"]);
    assert_eq!(
        ground.trace("one").last().unwrap()["images"],
        ground.trace("many").last().unwrap()["images"]
    );
}

#[test]
fn a_reload_is_taken_over_by_all_or_refused_and_each_rank_answers_at_its_own_port() {
    let ground = Ground::new();
    let mut company = Company::with_local_ranks(&ground, "run", 2, &["optim.total_steps=100000", EACH]);
    company.until_step(3);
    let metrics = company.rank(1).ask("GET", "/metrics").unwrap().1;
    assert!(metrics.contains("splitmask_train_steps_total{rank=\"1\"}"), "{metrics}");
    assert_eq!(company.rank(1).ask("GET", "/-/healthy").unwrap().0, 200);
    let (status, body) = company.rank(1).ask("GET", "/api/v1/status").unwrap();
    assert!(status == 404 && body.contains("ask rank 0"), "{status} {body}");

    let reload = |company: &mut Company, from: &str, to: &str| {
        let text = std::fs::read_to_string(ground.config()).unwrap();
        assert!(text.contains(from));
        std::fs::write(ground.config(), text.replace(from, to)).unwrap();
        let (status, body) = company.rank(0).ask("POST", "/-/reload").unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, report) = reload(&mut company, "lr = 1e-3", "lr = 5e-4");
    assert_eq!((status, &report["outcome"]), (200, &"applied".into()), "{report}");
    let at = report["applied_at_step"].as_u64().unwrap();
    company.until_step(at + 15);
    let (status, report) = reload(&mut company, "shuffle_window = 48", "shuffle_window = 32");
    assert_eq!((status, &report["outcome"]), (200, &"applied".into()), "{report}");
    let (status, report) = reload(&mut company, "batch = 16", "batch = 8");
    assert!(
        status == 500 && report["error"].as_str().unwrap().contains("train.batch"),
        "{report}"
    );
    let (status, report) = reload(&mut company, "batch = 8", "batch = 16");
    assert_eq!(status, 200, "{report}");
    let here = company.step();
    company.until_step(here + 5);
    company.rank(0).signal("TERM");
    for rank in 0..2 {
        let (code, log) = company.end_of(rank);
        assert_eq!(code, Some(75), "{log}");
    }
    let lines = ground.trace("run");
    let lr = |step: u64| {
        lines.iter().find(|l| l["step"] == step && l["total"].is_number()).unwrap()["learning_rate"]
            .as_f64()
            .unwrap()
    };
    assert!(lr(at + 12) < 6e-4, "the new rate is in force");
}

/// A pause: all ranks stand still at one boundary, over a reload too, and go on with the losses of a run that was never paused.
#[test]
fn a_pause_holds_all_ranks_at_one_boundary_and_leaves_no_trace() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=200", EACH];
    Company::start(&ground, "clean", 2, &sets).finish();
    let mut company = Company::with_local_ranks(&ground, "run", 2, &sets);
    company.until_step(3);
    let (code, body) = company.rank(0).ask("POST", "/-/pause").unwrap();
    let at: Value = serde_json::from_str(&body).unwrap();
    let step = at["step"].as_u64().unwrap();
    assert!(
        code == 200 && step < 200 && std::fs::exists(at["checkpoint"].as_str().unwrap()).unwrap(),
        "{code} {at}"
    );
    let stand_still = |company: &mut Company| {
        for rank in 0..2 {
            company.rank(rank).until("it stands still at that step", |daemon| {
                let metrics = daemon.ask("GET", "/metrics").unwrap().1;
                let is = |series: &str, value: u64| metrics.lines().any(|line| line == format!("{series} {value}"));
                is(&format!("splitmask_train_paused{{reason=\"asked\",rank=\"{rank}\"}}"), 1)
                    && is(&format!("splitmask_train_steps_total{{rank=\"{rank}\"}}"), step)
            });
        }
    };
    stand_still(&mut company);
    assert_eq!(
        company.rank(0).ask("POST", "/-/pause").unwrap().1,
        body,
        "asking twice is asking once"
    );
    let text = std::fs::read_to_string(ground.config()).unwrap();
    std::fs::write(ground.config(), text.replace("queue_batches = 2", "queue_batches = 3")).unwrap();
    let (code, body) = company.rank(0).ask("POST", "/-/reload").unwrap();
    assert_eq!(code, 200, "{body}");
    std::thread::sleep(Duration::from_millis(500));
    stand_still(&mut company);
    let (code, body) = company.rank(1).ask("POST", "/-/pause").unwrap();
    assert!(code == 404 && body.contains("ask rank 0"), "{code} {body}");
    assert_eq!(company.rank(0).ask("POST", "/-/resume").unwrap().0, 200);
    company.finish();
    assert_eq!(ground.trace("clean"), ground.trace("run"), "same stream, same losses");
}

#[test]
fn what_ranks_cannot_do_is_refused_by_name() {
    let ground = Ground::new();
    let refused = |company: Company, world: usize, parts: &[&str]| {
        let mut company = company;
        for rank in 0..world {
            let (code, log) = company.end_of(rank);
            assert_eq!(code, Some(64), "rank {rank}: {log}");
            for part in parts {
                assert!(log.contains(part), "rank {rank}: {part} in {log}");
            }
        }
        assert!(!ground.path("run/checkpoints").exists());
    };
    let three = Company::start(&ground, "run", 3, &[]);
    refused(three, 3, &["train.batch = 16", "can: 1, 2, 4, 8, 16"]);
    let other = Company::start_each(&ground, "run", 2, &|rank| vec![format!("optim.lr=1e-{}", 3 + rank)]);
    refused(other, 2, &["rank 1 on host", "the config", "optim.lr"]);
    // What one rank cannot even read, the other is told of.
    let broken = Company::start_each(&ground, "run", 2, &|rank| match rank {
        1 => vec!["optim.lr=fast".to_owned()],
        _ => vec![],
    });
    refused(broken, 2, &["optim.lr"]);
    let mut one_alone = Company::start_each(&ground, "run", 2, &|rank| match rank {
        0 => vec![],
        _ => vec!["run.no_such_key=1".to_owned()],
    });
    let (code, log) = one_alone.end_of(0);
    assert!(
        code == Some(64) && log.contains("rank 1 on host") && log.contains("cannot start") && log.contains("no_such_key"),
        "{code:?} {log}"
    );
    drop(one_alone);
    let other = Company::start(&ground, "run", 2, &["ranks.backend=nccl"]);
    refused(other, 2, &["NCCL without CUDA"]);
}
