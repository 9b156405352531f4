//! What the card says of a run, and the pictures in it.

use super::*;
use crate::objective::{ClassesOf, kind};
use crate::picture::kept;

/// Exports an encoder without a head, with that card.
fn exported(card: &Card, folder: &Path, replace: bool) -> String {
    let rest = Tensors::new();
    let what = Export {
        format: exporter("timm").unwrap(),
        encoder: &encoder(tiny(), QkvBias::Full),
        rest: &rest,
        card,
        dtype: Dtype::F32,
    };
    export(&what, folder, replace).unwrap();
    fs::read_to_string(folder.join("README.md")).unwrap()
}

#[test]
fn a_card_shows_the_pictures_that_its_run_had_drawn_at_that_step() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    for (name, step) in [("inpaint", 3), ("inpaint", 6), ("inpaint", 9), ("attention", 9)] {
        let path = kept::file(&run, name, step);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{name} at {step}")).unwrap();
    }
    for name in ["inpaint", "attention", "features", "confusion"] {
        fs::write(run.join(format!("{name}.png")), format!("{name} now")).unwrap();
    }
    let splitmask = kind("splitmask").unwrap();
    let pictures = Picture::of_run(&run, splitmask, 7).unwrap();
    let found: Vec<_> = pictures.iter().map(|p| (p.name, p.step, p.png.as_slice())).collect();
    // That of the attention is later, and this objective tells no classes apart.
    assert_eq!(
        found,
        [("inpaint", Some(6), &b"inpaint at 6"[..]), ("features", None, &b"features now"[..])]
    );

    let shown = Card { pictures, ..card() };
    let folder = dir.path().join("export");
    let text = exported(&shown, &folder, false);
    for part in [
        "## Pictures",
        "![inpaint](inpaint.png)",
        "inpaint, step 6: image · seen by A",
        "features, at a step that nobody kept: image · ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let inpaint = folder.join("inpaint.png");
    assert_eq!(fs::read_to_string(&inpaint).unwrap(), "inpaint at 6");

    // The next export replaces them, and a run without pictures has none.
    let text = exported(&card(), &folder, true);
    assert!(!text.contains("Pictures") && !inpaint.exists(), "{text}");
    assert_eq!(Picture::of_run(&dir.path().join("none"), splitmask, 7).unwrap(), []);
}

#[test]
fn a_card_says_whether_labels_were_seen_and_what_was_left_out() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    for (n, (learnt, told)) in [
        (None, "pre-trained without labels"),
        (Some(ClassesOf::Images), "trained with labels, to tell classes of images apart"),
        (Some(ClassesOf::Pixels), "fine-tuned for segmentation"),
        (Some(ClassesOf::Objects), "fine-tuned to find objects"),
    ]
    .into_iter()
    .enumerate()
    {
        for encoder_only in [false, true] {
            let card = Card {
                learnt,
                encoder_only,
                ..card()
            };
            let text = exported(&card, &dir.path().join(format!("{n}-{encoder_only}")), false);
            assert!(text.contains(told), "{text}");
            let free_of_labels = [text.contains("without labels"), text.contains("self-supervised")];
            assert_eq!(free_of_labels, [learnt.is_none(); 2], "{text}");
            assert_eq!(text.contains("left out"), encoder_only, "{text}");
            assert_eq!(
                text.contains("beside it,") || text.contains("beside it."),
                learnt.is_some() && !encoder_only,
                "{text}"
            );
        }
    }
}

#[test]
fn a_card_tells_what_a_run_began_with_and_whether_its_encoder_kept_that() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    let told = |name: &str, init_from: &str, frozen| {
        let card = Card {
            init_from: init_from.into(),
            frozen,
            ..card()
        };
        let text = exported(&card, &dir.path().join(name), false);
        text.lines().find(|line| line.starts_with("| began with |")).unwrap().to_owned()
    };
    assert_eq!(told("drawn", "", None), "| began with | drawn weights |");
    assert_eq!(told("tuned", "runs/x", None), "| began with | `runs/x` |");
    let frozen = told("frozen", "runs/x", Some("objective.freeze = \"encoder\""));
    assert!(
        frozen.contains("`runs/x`; the encoder kept those weights") && frozen.contains("freeze"),
        "{frozen}"
    );
}

#[test]
fn a_feature_is_what_the_run_was_measured_by() {
    let _turn = crate::tensor::alone();
    let dir = tempfile::tempdir().unwrap();
    for (class_token, pool, words) in [
        (false, "avg", "is the mean of the patch tokens"),
        (true, "token", "is the class token"),
    ] {
        let folder = dir.path().join(pool);
        let text = exported(&Card { class_token, ..card() }, &folder, false);
        assert!(text.contains(words), "{text}");
        let config: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(
            (&config["global_pool"], &config["model_args"]["global_pool"]),
            (&pool.into(), &pool.into())
        );
        let hf = exporter("hf-vit")
            .unwrap()
            .snippet("x", if class_token { Answer::ClassToken } else { Answer::MeanOfPatches });
        assert_eq!(hf.contains("tokens[:, 0]"), class_token, "{hf}");
    }
}
