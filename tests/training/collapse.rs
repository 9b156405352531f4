//! A run that learns nothing is told so by the rules of its objective: here of pictures that are all alike, or whose parts say nothing of each other.

use std::fs;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ground::{Ground, splitmask};
use crate::resume::config_of;

/// Packs 40 pictures in each of two classes as `name`: squares of a patch's size, each of a colour that `colour` tells.
fn pack(ground: &Ground, name: &str, colour: &mut dyn FnMut() -> [u8; 3]) {
    let images = ground.path(&format!("{name}-images"));
    for class in ["a", "b"] {
        fs::create_dir_all(images.join(class)).unwrap();
        for n in 0..40 {
            let squares: [[u8; 3]; 16] = std::array::from_fn(|_| colour());
            let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb(squares[(x / 16 + y / 16 * 4) as usize]));
            picture.save(images.join(class).join(format!("{n:02}.png"))).unwrap();
        }
    }
    let packed = splitmask()
        .arg("pack")
        .arg(&images)
        .arg(ground.path(name))
        .args(["--val-share", "0.2"])
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
}

/// What the log of a short run on `pictures` tells of.
fn log(ground: &Ground, pictures: &str, kind: &str, more: &str, sets: &[&str]) -> String {
    let kind = splitmask::objective::kind(kind).unwrap();
    fs::write(ground.config(), config_of(ground, kind, more)).unwrap();
    let run = ground.path(&format!("{pictures}-{}", kind.name));
    let data = ground.path(pictures);
    let own = [
        format!("run.dir=\"{}\"", run.display()),
        format!("data.train=\"{}/train\"", data.display()),
        format!("data.val=\"{}/val\"", data.display()),
        "optim.warmup_steps=1".into(),
        "log.every_steps=1".into(),
        "picture.every_steps=0".into(),
        "augment.colour.jitter=0.0".into(),
    ];
    let own = own.iter().map(String::as_str).chain(["optim.total_steps=40"]);
    let sets: Vec<&str> = own.chain(sets.iter().copied()).flat_map(|set| ["--set", set]).collect();
    let output = ground.train(&sets).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    log
}

/// Views without any change of colour, by which pictures that are all alike could be told apart.
const PLAIN: &str = "first = { jitter = 0.0, greyscale = 0.0, blur = 0.0, solarise = 0.0 }\n\
                     second = { jitter = 0.0, greyscale = 0.0, blur = 0.0, solarise = 0.0 }\n";
/// Nothing is learnt at this rate.
const STILL: &[&str] = &["optim.lr=1e-12", "optim.min_lr=0.0"];

#[test]
fn a_run_that_learns_nothing_is_told_so_by_every_objective() {
    let ground = Ground::new();
    let mut random = StdRng::seed_from_u64(1);
    pack(&ground, "grey", &mut || [120; 3]);
    pack(&ground, "squares", &mut || random.random());
    for (pictures, kind, more, sets, rule) in [
        ("grey", "splitmask", "", &[][..], "match_at_chance"),
        ("squares", "beit", "", &["optim.total_steps=80"], "inpaint_collapsed"),
        ("grey", "simclr", PLAIN, &[], "contrast_at_chance"),
        ("grey", "moco-v3", PLAIN, &[], "projections_on_a_line"),
        (
            "grey",
            "dino",
            "solarise = [0.0, 0.0, 0.0]\n",
            &["optim.total_steps=150"],
            "teacher_uniform",
        ),
        ("grey", "mae", "", STILL, "reconstruction_of_zeros"),
        ("grey", "supervised", "", &[], "classification_by_frequency"),
        ("grey", "classify", "", &[], "classification_by_frequency"),
    ] {
        let log = log(&ground, pictures, kind, more, sets);
        let told = log.lines().filter(|line| line.contains("for 20 log intervals"));
        let told: Vec<&str> = told.filter_map(|line| line.split_once("rule=\"")?.1.split('"').next()).collect();
        assert!(told.contains(&rule), "{kind}: {told:?}, not {rule}: {log}");
    }
}
