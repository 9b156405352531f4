//! The page of a live daemon in real Chromium: it shows, it acts, it is refused, and it asks nobody else.

use std::fmt::Write;
use std::fs;

use serde_json::json;

use crate::browser::Browser;
use crate::process::Ground;

/// What must stay text wherever it is shown.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";

/// The run folder of a run that has been going on: log lines, a journal, pictures of two steps.
fn history(ground: &Ground) {
    let run = ground.path("run");
    fs::create_dir_all(run.join("pictures/inpaint")).unwrap();
    let mut lines = String::new();
    for n in 1..=200u32 {
        let step = 10 * n;
        let (loss, accuracy) = (4.0 + 3.0 / f64::from(n), 1.0 - 1.0 / f64::from(n));
        writeln!(
            lines,
            "{}",
            json!({ "step": step, "epoch": 0, "inpaint": loss, "match": loss / 2.0, "total": 1.5 * loss, "token_entropy": 5.0, "match_accuracy": accuracy,
                    "learning_rate": 1e-3, "grad_norm": 2.0, "images_per_second": 500.0, "time": 1.8e9 + 5.0 * f64::from(n), HOSTILE: loss })
        )
        .unwrap();
        if n % 40 == 0 {
            writeln!(lines, "{}", json!({ "step": step, "knn_accuracy": accuracy })).unwrap();
        }
    }
    fs::write(run.join("metrics.jsonl"), &lines).unwrap();
    fs::write(
        run.join("metrics.before-1.jsonl"),
        lines.lines().take(50).fold(String::new(), |all, line| all + line + "\n"),
    )
    .unwrap();
    let event = json!({ "time": "2026-01-01T00:00:00.000Z", "event": HOSTILE, "trigger": HOSTILE, "step": 500, "sha256": "", "outcome": HOSTILE,
                        "changes": [{ "path": HOSTILE, "old": HOSTILE, "new": HOSTILE, "class": "live" }], "error": HOSTILE });
    fs::write(run.join("journal.jsonl"), format!("{event}\n")).unwrap();
    for step in [1000, 2000] {
        let png = run.join(format!("pictures/inpaint/step-{step:08}.png"));
        image::RgbImage::from_pixel(8, 8, image::Rgb([0, 128, 255])).save(&png).unwrap();
        fs::copy(&png, run.join("inpaint.png")).unwrap();
    }
}

fn edited(browser: &mut Browser, text: &str) {
    browser.value(&format!(
        "{{ const t = document.getElementById('text'); t.value = {}; t.dispatchEvent(new Event('input', {{ bubbles: true }})); }}",
        json!(text)
    ));
    browser.click("check");
}

#[test]
fn the_page_shows_a_live_run_and_edits_its_config() {
    let ground = Ground::new();
    history(&ground);
    let base = ground.text("").replace("\"shards\"", &json!(HOSTILE).to_string());
    ground.write(&base);
    let mut daemon = ground.daemon(&["admin.watch=false"]).ready();
    let here = format!("http://{}/", daemon.address);
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(folder.path());
    browser.open(&here);

    // Curves over the restart, each kind on axes of its own, with chance, baseline, evaluations and events.
    browser.until(
        "the curve",
        "(document.querySelector('path.curve[data-series=inpaint]')?.getAttribute('d') ?? '').split('L').length > 100",
    );
    for title in ["Losses", "Accuracies of training", "Evaluations", "Learning rate"] {
        let there = browser.value(&format!(
            "[...document.querySelectorAll('#charts h3')].some(h => h.textContent === {})",
            json!(title)
        ));
        assert_eq!(there, true, "{title}");
    }
    assert_eq!(
        browser.value("document.querySelector('path.curve[data-series=token_entropy]').classList.contains('dashed')"),
        true
    );
    assert_eq!(browser.value("document.querySelectorAll('circle.dot').length"), 5);
    assert!(
        browser
            .value("document.querySelectorAll('#charts line.reference').length")
            .as_u64()
            .unwrap()
            >= 1,
        "what guessing scores"
    );
    browser.until("the marks", "document.querySelectorAll('#charts .mark-start').length >= 4");
    browser.until(
        "what is left",
        "[...document.querySelectorAll('#facts .tile')].some(t => /time left.*ends /.test(t.textContent))",
    );
    assert!(browser.text("#events-body").contains("start"));
    assert_eq!(
        browser.value("[...document.getElementById('compare').options].map(o => o.value).join()"),
        ",before-1"
    );

    // Names are text.
    assert!(
        browser.text("#events-body").contains(HOSTILE)
            && browser.text("#config-body").contains("onerror")
            && browser.text("#more-charts").contains(HOSTILE)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('img[src=x]').length + Number(document.title === 'owned')"),
        0
    );

    // Pictures by step; the config by words; a chart by keys.
    browser.until(
        "the picture",
        "document.querySelector('#pictures-body img')?.src.endsWith('/api/v1/pictures/inpaint/2000')",
    );
    browser.value("{ const s = document.querySelector('#pictures-body input'); s.focus(); }");
    browser.press("ArrowLeft");
    browser.until("the picture before", "document.querySelector('#pictures-body img').src.endsWith('/1000') && document.querySelector('#pictures-body output').textContent === 'step 1,000'");
    browser.value("{ const f = document.getElementById('find'); f.value = 'optim.lr'; f.dispatchEvent(new Event('input')); }");
    assert!(
        (1..6).contains(
            &browser
                .value("document.querySelectorAll('#config-body tr').length")
                .as_u64()
                .unwrap()
        )
    );
    browser.value("document.querySelector('#charts svg').focus()");
    browser.press("ArrowLeft");
    browser.until(
        "the cursor's step",
        "/step 1,9/.test(document.querySelector('#charts .readout').textContent)",
    );

    // A change is shown with its class before it is applied, and applied.
    browser.click("edit");
    browser.until("the file", "document.getElementById('text').value.includes('[codebook]')");
    let text = format!("{base}[optim]\nlr = 0.001\n");
    edited(&mut browser, &text);
    browser.until("the check", "!document.getElementById('apply').disabled");
    assert!(browser.text("#changes").contains("optim.lr") && browser.text("#changes .class") == "live");
    assert!(browser.text("#diff .added").contains("[optim]"), "{}", browser.text("#diff"));
    assert_eq!(ground.read("c.toml"), base, "nothing was written yet");
    browser.click("apply");
    browser.until(
        "it is applied",
        "/^Applied at step/.test(document.getElementById('editor-said').textContent)",
    );
    assert_eq!(ground.read("c.toml"), text);
    daemon.until("the new rate", |d| d.json("GET", "/api/v1/status").1["learning_rate"] == 1e-3);
    browser.until("its event", "[...document.querySelectorAll('#events-body tr')].some(r => r.textContent.includes('reload') && r.textContent.includes('optim.lr'))");

    // Nothing else has gone wrong until here.
    assert_eq!(browser.errors, [""; 0]);
    // A frozen key and a slip are refused before anything is written; the browser's console tells of the status.
    edited(&mut browser, &format!("{text}[model]\ndepth = 3\n"));
    browser.until(
        "the refusal",
        "/refused \\(frozen\\)/.test(document.getElementById('editor-said').textContent)",
    );
    assert!(browser.text("#editor-said").contains("model.depth"));
    edited(&mut browser, &format!("{text}lrr = 1\n"));
    browser.until(
        "the other one",
        "/refused \\(invalid\\)/.test(document.getElementById('editor-said').textContent)",
    );
    assert!(
        browser.text("#changes").contains("line 10") && browser.text("#changes").contains("unknown key"),
        "{}",
        browser.text("#changes")
    );
    assert_eq!(browser.value("document.getElementById('apply').disabled"), true);
    // A file that somebody broke is refused at a reload.
    ground.write("[optim\n");
    browser.click("reload");
    browser.until(
        "the refused reload",
        "/^Not taken over \\(invalid\\)/.test(document.getElementById('act-said').textContent)",
    );
    ground.write(&text);
    browser.click("checkpoint");
    browser.until(
        "the checkpoint",
        "/^Checkpoint of step/.test(document.getElementById('act-said').textContent)",
    );
    // A pause, told in its place, and its end by the same button.
    browser.click("pause");
    browser.until(
        "the pause",
        "/^Paused at step/.test(document.getElementById('act-said').textContent)",
    );
    browser.until(
        "its state",
        "/^paused: asked for/.test(document.getElementById('state').textContent)",
    );
    let step = daemon.step();
    assert_eq!(browser.text("#pause"), "Go on");
    browser.until(
        "its event",
        "[...document.querySelectorAll('#events-body tr')].some(r => r.textContent.includes('pause') && r.textContent.includes('asked for'))",
    );
    assert_eq!(daemon.step(), step, "it stands still");
    browser.click("pause");
    browser.until(
        "its end",
        "/^Going on from step/.test(document.getElementById('act-said').textContent)",
    );
    assert_eq!(browser.text("#pause"), "Pause");
    daemon.until("more steps", |d| d.step() > step);
    let expected = |e: &String| e.starts_with("Failed to load resource") && e.contains("/-/reload");
    assert_eq!(browser.errors.iter().filter(|e| !expected(e)).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(browser.errors.len(), 3, "{:?}", browser.errors);

    // On a phone nothing is wider than the screen, and the dark scheme is another.
    let light = browser.value("getComputedStyle(document.body).backgroundColor");
    browser.prefer("dark");
    assert_ne!(browser.value("getComputedStyle(document.body).backgroundColor"), light);
    browser.screen(390, 844, true);
    browser.open(&here);
    browser.until(
        "the curve",
        "document.querySelector('path.curve[data-series=inpaint]')?.getAttribute('d').length > 100",
    );
    let wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg, textarea') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.id || e.className || e.tagName).join()";
    assert_eq!(browser.value(wide), "");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), true);

    for request in &browser.requests {
        assert!(request.starts_with(&here), "asked for {request}");
    }
    assert!(browser.requests.len() > 30);
}

#[test]
fn a_page_that_may_not_act_says_so() {
    let ground = Ground::new();
    let daemon = ground.daemon(&["admin.lifecycle=false"]).ready();
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start(folder.path());
    browser.open(&format!("http://{}/", daemon.address));
    assert_eq!(
        browser.value("document.getElementById('act-on').hidden && !document.getElementById('act-off').hidden"),
        true
    );
    assert!(browser.text("#act-off").contains("--enable-lifecycle"));
    assert!(browser.text("#history-note").contains("Waiting for the first log line"));
    assert_eq!(browser.errors, [""; 0]);
}
