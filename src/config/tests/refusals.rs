//! What is refused, with place, key, value and remedy; and what is not repeated.

use super::*;

#[test]
fn bad_files_are_refused_with_place_key_and_remedy() {
    // (text after GOOD, fragments that the message must hold)
    let table: &[(&str, &[&str])] = &[
        (
            "[optim]\nlr = \"fast\"\n",
            &["demo.toml:6:1: optim.lr = \"fast\": expected a number"],
        ),
        ("[optim]\nlr = true\n", &["optim.lr = true", "expected a number, found boolean"]),
        ("[optim]\nlearning_rate = 1\n", &["demo.toml:6:1: optim.learning_rate: unknown key"]),
        ("[optim]\nwarmup_step = 1\n", &["did you mean optim.warmup_steps?"]),
        ("[optimizer]\nlr = 1\n", &["optimizer.lr: unknown key", "did you mean optim.lr?"]),
        ("[pipelin]\n", &["demo.toml:5:2: pipelin: unknown key"]),
        (
            "[pipeline]\nqueue_mib = \"1GiB\"\n",
            &["pipeline.queue_mib = \"1GiB\"", "whole number", "MiB", "write a bare number"],
        ),
        (
            "[pipeline]\nqueue_mib = \"18446744073709551615\"\n",
            &["it is too large: at most 9223372036854775807"],
        ),
        ("[pipeline]\nworkers = -1\n", &["pipeline.workers = -1", "0 or more"]),
        (
            "[pipeline]\nworkers = 2.5\n",
            &["pipeline.workers = 2.5", "expected a whole number, found float"],
        ),
        ("[pipeline]\nreaders = 0\n", &["demo.toml:6:1: pipeline.readers = 0", "1 to 256"]),
        ("[train]\nbatch = 5000000000\n", &["train.batch = 5000000000", "u32"]),
        (
            "[train]\nbatch = 100\naccumulate = 3\n",
            &["demo.toml:7:1: train.accumulate = 3", "divisor of train.batch = 100"],
        ),
        (
            "[train]\naccumulate = 2\n[objective]\nkind = \"simclr\"\n",
            &["train.accumulate = 2", "objective.kind = \"simclr\" needs each batch in one piece"],
        ),
        ("[train]\nbatch = 1\n", &["train.batch = 1", "at least 2 images", "objective.match"]),
        ("[train]\nbatch = 0\n", &["train.batch = 0"]),
        (
            "[train]\nprecision = \"bf61\"\n",
            &["train.precision = \"bf61\"", "\"f32\", \"bf16\"", "did you mean \"bf16\"?"],
        ),
        ("[train]\ndevice = \"gpu\"\n", &["train.device = \"gpu\"", "\"cuda:N\""]),
        ("[train]\ndevice = \"cuda:x\"\n", &["train.device"]),
        ("[train]\nmean = [0.5, 0.5]\n", &["train.mean", "expected 3 values, found 2"]),
        ("[train]\nstd = [0.0, 0.5, 0.5]\n", &["train.std", "above 0"]),
        ("[train]\nstd = 0.5\n", &["train.std = 0.5", "expected an array"]),
        ("[ema]\ndecay = 1.0\n", &["ema.decay = 1", "below 1"]),
        ("[eval]\nweights = \"ema\"\n", &["eval.weights", "ema.decay"]),
        ("[train]\npeak_tflops = -1.0\n", &["train.peak_tflops"]),
        ("[stability]\nnonfinite_run = 0\n", &["stability.nonfinite_run = 0"]),
        ("[stability]\nspike_norm = 0.5\n", &["stability.spike_norm = 0.5"]),
        ("[debug]\ninject = \"nan\"\n", &["debug.inject", "nan@120"]),
        (
            "[model]\nsize = \"smal\"\n",
            &[
                "model.size = \"smal\"",
                "\"nano\", \"tiny\", \"small\", \"base\"",
                "did you mean \"small\"?",
            ],
        ),
        ("[model]\npatch = 15\n", &["model.patch = 15", "even"]),
        (
            "[model]\nimage = 225\n",
            &["demo.toml:6:1: model.image = 225", "multiple of model.patch"],
        ),
        ("[model]\nheads = 5\n", &["model.width", "multiple of model.heads"]),
        (
            "[objective]\nkind = \"spitmask\"\n",
            &["objective.kind = \"spitmask\"", "did you mean \"splitmask\"?"],
        ),
        (
            "[objective]\nkind = 3\n",
            &["objective.kind = 3", "expected one of \"splitmask\", \"beit\""],
        ),
        (
            "[objective]\nkind = \"beit\"\ninpaint = true\n",
            &["objective.inpaint", "no meaning with objective.kind = \"beit\""],
        ),
        (
            "[objective.mask]\nkind = \"uniform-split\"\nkeep = 0.6\n",
            &["objective.mask.keep = 0.6", "at most 0.5"],
        ),
        (
            "[objective.mask]\nkeep = 0.5\n",
            &["objective.mask.keep", "no meaning with this objective.mask.kind"],
        ),
        (
            "[objective.mask]\nkind = \"blockwise\"\n",
            &["objective.mask.kind = \"blockwise\"", "did you mean"],
        ),
        (
            "[objective.mask]\nkind = \"blockwise-mask\"\n",
            &[
                "objective.mask.kind = \"blockwise-mask\"",
                "expected one of \"blockwise-split\", \"uniform-split\"",
            ],
        ),
        (
            "[objective.mask]\nmin_block = 200\nmax_block = 300\n",
            &["objective.mask.min_block = 200", "at most 98"],
        ),
        (
            "[objective.mask]\nmin_block = 80\nmax_block = 75\n",
            &["objective.mask.min_block = 80", "objective.mask.max_block = 75"],
        ),
        (
            "[objective]\nkind = \"beit\"\n[objective.mask]\nkind = \"uniform-split\"\n",
            &["objective.mask.kind = \"uniform-split\"", "expected one of \"blockwise-mask\""],
        ),
        (
            "[model]\nimage = 16\n",
            &["objective.mask.kind = \"blockwise-split\"", "at least 2 × 2 patches"],
        ),
        (
            "[objective]\nkind = \"beit\"\n[objective.mask]\ncount = 196\n",
            &["objective.mask.count = 196", "196 patches"],
        ),
        ("[objective]\ninpaint = false\nmatch = false\n", &["something must be learnt"]),
        ("[objective]\ninpaint_weight = 0\nmatch_weight = 0\n", &["positive weight"]),
        ("[objective]\ntemperature = 0\n", &["objective.temperature = 0"]),
        ("[objective]\ndrop_path = 1.0\n", &["objective.drop_path = 1"]),
        (
            "[optim]\nwarmup_steps = 10\ntotal_steps = 5\n",
            &["optim.warmup_steps = 10", "at most optim.total_steps = 5"],
        ),
        ("[optim]\ntotal_steps = 0\n", &["optim.total_steps = 0"]),
        ("[optim]\nlr = nan\n", &["optim.lr = nan", "finite"]),
        ("[optim]\nlr = 2\n", &["optim.lr = 2", "at most 1"]),
        ("[optim]\nmin_lr = 0.1\n", &["optim.min_lr = 0.1", "0 to optim.lr"]),
        ("[optim]\nbeta2 = 1.0\n", &["optim.beta2 = 1"]),
        (
            "[augment.crop]\narea = [0.9, 0.1]\n",
            &["augment.crop.area = [0.9, 0.1]", "low ≤ high"],
        ),
        ("[augment.crop]\nflip = 2\n", &["augment.crop.flip = 2", "0 to 1"]),
        (
            "[augment.crop]\naspect = [0.001, 1.0]\n",
            &["demo.toml:6:1: augment.crop.aspect = [0.001, 1.0]", "0.01 ≤ low"],
        ),
        (
            "[augment.colour]\nblur_sigma = [0.1, 20.0]\n",
            &["demo.toml:6:1: augment.colour.blur_sigma = [0.1, 20.0]", "high ≤ 10 pixels"],
        ),
        ("[augment.colour]\njitter_strength = [0.4, 0.4, 0.2, 0.9]\n", &["hue at most 0.5"]),
        ("[augment]\ncrop = 3\n", &["augment.crop = 3", "is a table, written [augment.crop]"]),
        ("[eval]\nevery_steps = 100\n", &["eval.every_steps = 100", "needs data.val"]),
        ("[eval]\nk = 0\n", &["eval.k = 0"]),
        ("[eval]\nslide_stride = 100000\n", &["eval.slide_stride = 100000", "model.image = "]),
        ("[objective]\ntemperature = 1e-9\n", &["objective.temperature", "0.001 to 100"]),
        (
            "[objective]\nmatch_weight = 1e30\n",
            &["objective.match_weight", "0 (not learnt) to 10000"],
        ),
        ("[checkpoint]\nevery_steps = 0\n", &["checkpoint.every_steps = 0"]),
        ("[checkpoint]\nkeep = 0\n", &["checkpoint.keep = 0"]),
        ("[log]\nfilter = \"a=b=c\"\n", &["log.filter = \"a=b=c\""]),
        ("[log]\nevery_steps = 0\n", &["log.every_steps = 0"]),
        ("[picture]\nrows = 0\n", &["picture.rows = 0"]),
        (
            "[admin]\nbind = \"localhost\"\n",
            &["admin.bind = \"localhost\"", "IP address and a port"],
        ),
        (
            "[admin]\nbind = \"0.0.0.0:9464\"\nlifecycle = true\n",
            &["admin.bind = \"0.0.0.0:9464\"", "needs admin.token_file", "openssl"],
        ),
        ("[admin]\ngrace_s = -1\n", &["admin.grace_s = -1"]),
        ("[run]\nname = \"a/b\"\n", &["run.name = \"a/b\"", "letters"]),
        ("[run]\nseed = \"x\"\n", &["run.seed = \"x\"", "whole number"]),
        ("[optim\nlr = 1\n", &["demo.toml:5:", "not TOML"]),
        ("[optim]\nlr = \n", &["demo.toml:6:", "not TOML"]),
        ("[optim]\nlr = 1\nlr = 2\n", &["demo.toml:7:", "duplicate"]),
        ("[data]\n", &["demo.toml:5:", "duplicate"]),
    ];
    for (text, fragments) in table {
        let message = refused(&format!("{GOOD}{text}"));
        for fragment in *fragments {
            assert!(message.contains(fragment), "{text:?} gave {message:?}, which lacks {fragment:?}");
        }
    }
}

#[test]
fn all_problems_are_listed_at_once() {
    let text = "[optim]\nlr = \"fast\"\nlearning = 1\n[train]\nprecision = \"f23\"\n";
    let error = load(text).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["optim.learning", "optim.lr", "train.precision"]);
    let error = load("[train]\nbatch = 7\naccumulate = 2\n[eval]\nevery_steps = 1\n").unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["data.train", "codebook.path", "train.accumulate", "eval.every_steps"]);
}

#[test]
fn credentials_are_refused_and_not_repeated() {
    for address in ["s3://AKIA:CANARY@bucket/x", "https://host/x?X-Amz-Signature=CANARY"] {
        let message = refused(&format!("[data]\ntrain = \"{address}\"\n[codebook]\npath = \"w\"\n"));
        assert!(message.contains("data.train") && message.contains("environment"), "{message}");
        assert!(!message.contains("CANARY"), "{message}");
    }
    load("[data]\ntrain = \"abfs://container@account.dfs.core.windows.net/x\"\n[codebook]\npath = \"w\"\n").unwrap();
    let message = refused(&format!("{GOOD}[data.secret]\naws_secret_access_key = \"CANARY\"\n"));
    assert!(!message.contains("CANARY"), "{message}");
    let message = refused(&format!("{GOOD}[x]\naws_secret_access_key = \"CANARY\n"));
    assert!(!message.contains("CANARY"), "{message}");
}

#[test]
fn a_mirror_is_refused_where_it_would_be_lost_or_lie_among_shards() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir_all(at("runs/x")).unwrap();
    std::os::unix::fs::symlink(at("runs"), at("link")).unwrap();
    let config = |mirror: &str| {
        format!(
            "[run]\ndir = \"{}\"\n[data]\ntrain = \"{}\"\nval = \"s3://b/val\"\n[codebook]\npath = \"w\"\n[checkpoint]\nmirror = \"{mirror}\"\n",
            at("runs/x"),
            at("shards/{000..009}.tar")
        )
    };
    for (mirror, words) in [
        (at("runs/x/mirror"), "in the run folder"),
        (at("link/x/not/there/yet"), "in the run folder"),
        (format!("file://{}", at("runs/x")), "in the run folder"),
        (at("shards/mirror"), "data.train has its shards"),
        ("s3://b/val/mirror".into(), "data.val has its shards"),
    ] {
        let text = refused(&config(&mirror));
        assert!(text.contains("checkpoint.mirror") && text.contains(words), "{mirror}: {text}");
    }
    for fine in [at("runs/x-mirror"), at("mirror"), "s3://b/validation".into()] {
        load(&config(&fine)).unwrap();
    }
}

#[test]
fn a_mixture_is_read_checked_and_keeps_no_credentials() {
    let mixture = |second: &str| {
        format!("[data]\nsources = [{{ name = \"a\", url = \"s3://b/x\", weight = 2 }}, {second}]\n[codebook]\npath = \"w\"\n")
    };
    let config = load(&mixture("{ name = \"c\", url = \"d\", weight = 0.5 }")).unwrap();
    assert_eq!((config.data.sources.len(), config.data.sources[0].weight), (2, 2.0));
    for (second, words) in [
        ("{ name = \"a\", url = \"d\", weight = 1 }", "data.sources[1].name"),
        ("{ name = \"c\", url = \"d\", weight = -1 }", "data.sources[1].weight"),
        ("{ name = \"c\", url = \"d\" }", "weight"),
        ("{ name = \"c\", url = \"http://me:canary@host/x\", weight = 1 }", "is refused"),
    ] {
        let text = refused(&mixture(second));
        assert!(text.contains(words) && !text.contains("canary"), "{text}");
    }
}

#[test]
fn missing_file_is_named() {
    let error = Source {
        file: "no/such.toml".into(),
        ..Source::default()
    }
    .load()
    .unwrap_err()
    .to_string();
    assert!(error.starts_with("no/such.toml:1:1: cannot be read"), "{error}");
}
