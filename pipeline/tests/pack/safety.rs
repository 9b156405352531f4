//! What a run may do to the output folder, and what it leaves when it fails.

use std::fs;

use splitmask_pipeline::pack::{Encoding, PackError, PackOptions};
use tempfile::TempDir;

use super::{mixed, put, run, tree};

#[test]
fn outputs_are_never_overwritten_unasked() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let mut options = PackOptions::new(input.path(), out.path().join("o"));
    run(&options).unwrap();
    let before = tree(&options.output);
    assert!(matches!(run(&options), Err(PackError::OutputNotEmpty { .. })));
    assert!(tree(&options.output) == before);
    options.force = true;
    options.longest_side = Some(16);
    run(&options).unwrap();
    assert!(tree(&options.output) != before);
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["o"], "nothing left beside the output");
    // Images inside the output would be deleted with it.
    let inside = PackOptions {
        input: options.output.join("train"),
        ..options.clone()
    };
    assert!(matches!(run(&inside), Err(PackError::InputInOutput { .. })));
    fs::write(options.output.join("thesis.odt"), "years of work").unwrap();
    assert!(matches!(run(&options), Err(PackError::OutputForeign { found, .. }) if found == "thesis.odt"));
    assert!(options.output.join("thesis.odt").exists());
}

#[test]
fn what_somebody_keeps_among_the_shards_is_a_reason_to_refuse() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let mut options = PackOptions::new(input.path(), out.path().join("o"));
    options.force = true;
    run(&options).unwrap();
    for name in ["train/labels.csv", "train/words.safetensors", "val/notes/a.txt", "train/mine.tar"] {
        let path = options.output.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "years of work").unwrap();
        let before = tree(&options.output);
        let refused = run(&options).unwrap_err();
        assert!(
            matches!(&refused, PackError::OutputForeign { found, .. } if name.starts_with(found)),
            "{name}: {refused}"
        );
        assert!(tree(&options.output) == before, "{name}");
        fs::remove_file(&path).unwrap();
        let _ = fs::remove_dir(options.output.join("val/notes"));
    }
    run(&options).unwrap();
    // Nor does a folder that somebody else filled become part of a pack.
    fs::create_dir(out.path().join("o.partial")).unwrap();
    fs::write(out.path().join("o.partial/secret.txt"), "not for the bucket").unwrap();
    assert!(matches!(run(&options), Err(PackError::OutputForeign { found, .. }) if found == "secret.txt"));
    assert!(out.path().join("o.partial/secret.txt").is_file());
}

#[test]
fn codebooks_and_their_pictures_beside_the_shards_are_kept() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let mut options = PackOptions::new(input.path(), out.path().join("o"));
    options.force = true;
    run(&options).unwrap();
    let beside = [
        ("words.png", "picture"),
        ("words.safetensors", "days of work"),
        ("Sheet.PNG", "contacts"),
    ];
    for (name, text) in beside {
        fs::write(options.output.join(name), text).unwrap();
    }
    // What a run that was killed at its very end leaves.
    fs::create_dir_all(out.path().join("o.partial")).unwrap();
    fs::write(out.path().join("o.partial/words.png"), "older picture").unwrap();
    let before = tree(&options.output);
    options.longest_side = Some(16);
    run(&options).unwrap();
    assert!(tree(&options.output) != before, "the shards are new");
    for (name, text) in beside {
        assert_eq!(fs::read_to_string(options.output.join(name)).unwrap(), text);
    }
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["o"], "nothing left beside the output");
    // A folder of that name is nobody's picture.
    fs::create_dir(options.output.join("album.png")).unwrap();
    assert!(matches!(run(&options), Err(PackError::OutputForeign { found, .. }) if found == "album.png"));
    // Pictures alone are no earlier pack.
    let album = out.path().join("album");
    fs::create_dir(&album).unwrap();
    fs::write(album.join("holiday.png"), "sea").unwrap();
    let over = PackOptions {
        output: album.clone(),
        ..options
    };
    assert!(matches!(run(&over), Err(PackError::OutputForeign { found, .. }) if found == "holiday.png"));
    assert!(album.join("holiday.png").exists());
}

#[test]
fn a_failed_run_leaves_nothing() {
    let (input, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let output = out.path().join("deep/o");
    put(input.path(), "a/bad.png", b"no image");
    let error = run(&PackOptions::new(input.path(), &output)).unwrap_err();
    assert!(matches!(&error, PackError::AllRefused { images: 1, .. }), "{error}");
    assert!(error.to_string().contains("a/bad.png"), "{error}");
    assert_eq!(tree(out.path()).len(), 0);
    assert!(matches!(
        run(&PackOptions::new(input.path().join("nowhere"), &output)),
        Err(PackError::BadInput { .. })
    ));
    assert!(matches!(
        run(&PackOptions::new(input.path().join("a/bad.png"), &output)),
        Err(PackError::BadInput { .. })
    ));
    fs::rename(input.path().join("a/bad.png"), input.path().join("a/bad.svg")).unwrap();
    let error = run(&PackOptions::new(input.path(), &output)).unwrap_err();
    assert!(error.to_string().contains("no images found among 1 files (1 svg)"), "{error}");
    for wrong in [
        PackOptions {
            val_share: 1.0,
            ..PackOptions::new(input.path(), &output)
        },
        PackOptions {
            val_share: f64::NAN,
            ..PackOptions::new(input.path(), &output)
        },
        PackOptions {
            longest_side: Some(0),
            ..PackOptions::new(input.path(), &output)
        },
        PackOptions {
            encode: Encoding::Jpeg(0),
            ..PackOptions::new(input.path(), &output)
        },
        PackOptions {
            shard_bytes: 10,
            ..PackOptions::new(input.path(), &output)
        },
    ] {
        assert!(matches!(run(&wrong), Err(PackError::BadOption { .. })), "{wrong:?}");
    }
}

/// A killed run leaves OUTPUT.partial; the next one takes it over. A live one is not disturbed.
#[test]
fn partial_outputs_are_taken_over_unless_in_use() {
    let (input, out) = (mixed(), TempDir::new().unwrap());
    let partial = out.path().join("o.partial");
    fs::create_dir_all(partial.join("train")).unwrap();
    fs::write(partial.join("train/000000.tar"), "half").unwrap();
    let lock = fs::File::create(partial.join("lock")).unwrap();
    lock.lock().unwrap();
    let options = PackOptions::new(input.path(), out.path().join("o"));
    assert!(matches!(run(&options), Err(PackError::Busy { .. })));
    assert!(partial.join("train/000000.tar").exists());
    drop(lock);
    assert_eq!(run(&options).unwrap().packed(), 64);
    assert!(!partial.exists());
}
