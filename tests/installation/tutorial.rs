//! docs/tutorial.md, typed as it stands there, on pictures that are drawn here and with fewer steps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{SOURCE, SPLITMASK, done};

/// The blocks of code of one language, in order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let begun = page.split(opening.as_str()).skip(1);
    begun
        .map(|rest| rest.split_once("```").expect("the block ends").0.to_owned())
        .collect()
}

/// Sixty pictures in two folders; no two patches are alike.
fn draw(folder: &Path) {
    for (n, class) in ["one", "two"].into_iter().enumerate() {
        fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..30u32 {
            let picture = image::RgbImage::from_fn(96, 96, |x, y| {
                let noise = (x * 7919 + y * 104_729 + i * 31_337).wrapping_mul(2_654_435_761) >> 24;
                let stripe = if n == 0 { x } else { y } * (i + 3);
                image::Rgb([(stripe % 256) as u8, noise as u8, (i * 8) as u8])
            });
            picture.save(folder.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

#[test]
fn the_tutorial_can_be_typed_as_it_stands() {
    let page = fs::read_to_string(Path::new(SOURCE).join("docs/tutorial.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    draw(&dir.path().join("pictures"));
    let [config] = &blocks(&page, "toml")[..] else {
        panic!("one config is written down")
    };
    fs::write(dir.path().join("first.toml"), config).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    symlink(SPLITMASK, dir.path().join("bin/splitmask")).unwrap();
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap());
    let typed = blocks(&page, "sh");
    assert!(typed.len() >= 9, "{}", typed.len());
    for lines in &typed {
        done(
            Command::new("bash")
                .args(["-e", "-c", lines])
                .current_dir(dir.path())
                .env("PATH", &path)
                .env("SPLITMASK_OPTIM__TOTAL_STEPS", "4")
                .env("SPLITMASK_OPTIM__WARMUP_STEPS", "1")
                .env("SPLITMASK_TRAIN__BATCH", "8")
                .env("SPLITMASK_TRAIN__PRECISION", "f32")
                .env("SPLITMASK_LOG__EVERY_STEPS", "1")
                .env("SPLITMASK_ADMIN__BIND", "127.0.0.1:0"),
        );
    }
    // What the tutorial says is there, is there.
    for file in [
        "data/mine/refused.tsv",
        "sheet.png",
        "words.png",
        "runs/first/inpaint.png",
        "exports/first/README.md",
        "exports/first/model.safetensors",
    ] {
        assert!(dir.path().join(file).is_file(), "{file}");
    }
}
