//! The dVAE against PyTorch, its file, and that its training learns, repeats and resumes.

use std::path::Path;

use splitmask::dvae::{Decoder, Dvae, Encoder, Geometry, Options, Reconstruction, Training, is_dvae, map_pixels};
use splitmask_pipeline::cursor::Cursor;
use tch::{Device, Kind, Tensor, nn};

use crate::alone;
use crate::fixture::{Fixture, assert_near, set_params};

const GEOMETRY: Geometry = Geometry {
    words: 24,
    width: 4,
    stride: 4,
    blocks: 2,
};

fn fixture_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dvae.safetensors")
}

#[test]
fn logits_words_statistics_and_losses_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("dvae");
    let vs = nn::VarStore::new(Device::Cpu);
    let (encoder, decoder) = (
        Encoder::new(&vs.root(), &GEOMETRY),
        Decoder::new(&(&vs.root() / "decoder"), &GEOMETRY),
    );
    set_params(&vs, &fixture.all());
    let mapped = map_pixels(fixture.get("pixels"));
    let logits = encoder.forward(&mapped);
    assert_near("logits", &logits, fixture.get("logits"), 1e-5);
    assert_eq!(&logits.argmax(1, false).flatten(1, 2), fixture.get("words"));
    let statistics = decoder.forward(fixture.get("relaxed"));
    assert_near("statistics", &statistics, fixture.get("statistics"), 1e-5);
    for (kind, name) in [(Reconstruction::LogitLaplace, "logit_laplace"), (Reconstruction::L2, "l2")] {
        assert_near(name, &kind.loss(&statistics, &mapped), fixture.get(name), 1e-5);
    }
}

#[test]
fn published_weights_give_pytorchs_words_and_survive_our_file() {
    let _alone = alone();
    let fixture = Fixture::read("dvae");
    assert!(is_dvae(&fixture_file()).unwrap());
    let published = Dvae::load(&fixture_file(), Device::Cpu).unwrap();
    assert_eq!((published.header.geometry, published.has_decoder()), (GEOMETRY, false));
    let pixels = fixture.get("pixels");
    assert_eq!(&published.words(pixels), fixture.get("words"));
    // One picture by itself gets the words that it gets among others.
    assert_eq!(published.words(&pixels.narrow(0, 1, 1)), fixture.get("words").narrow(0, 1, 1));

    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
    published.save(&a).unwrap();
    let mut own = Dvae::load(&a, Device::Cpu).unwrap();
    assert!(is_dvae(&a).unwrap());
    assert_eq!((own.id(), &own.header), (published.id(), &published.header));
    assert_eq!(&own.words(pixels), fixture.get("words"));
    own.display = Some((0..24 * 48).map(|i| (i % 251) as u8).collect());
    own.counts = Some((0..24).collect());
    own.save(&b).unwrap();
    let again = Dvae::load(&b, Device::Cpu).unwrap();
    assert_eq!((&again.display, &again.counts), (&own.display, &own.counts));
    assert_eq!(again.look(1), own.display.as_ref().unwrap()[48..96]);
    again.save(&a).unwrap();
    assert_eq!(
        std::fs::read(&a).unwrap(),
        std::fs::read(&b).unwrap(),
        "the same tokenizer, the same bytes"
    );
}

#[test]
fn damaged_and_strange_files_are_refused_with_the_reason() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.safetensors");
    let good = dir.path().join("good.safetensors");
    Dvae::load(&fixture_file(), Device::Cpu).unwrap().save(&good).unwrap();
    let mut bytes = std::fs::read(&good).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let e = Dvae::load(&file, Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("altered or damaged") && e.contains("x.safetensors"), "{e}");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(
        Dvae::load(&file, Device::Cpu)
            .unwrap_err()
            .to_string()
            .contains("not a safetensors file")
    );
    let text = String::from_utf8_lossy(&std::fs::read(&good).unwrap()[8..2000]).into_owned();
    assert!(text.contains("0.8*x/255+0.1"), "{text}");
    Tensor::write_safetensors(&[("a", Tensor::zeros([2], (Kind::Float, Device::Cpu)))], &file).unwrap();
    assert!(!is_dvae(&file).unwrap());
    assert!(Dvae::load(&file, Device::Cpu).unwrap_err().to_string().contains("no dVAE"));
}

/// Two-coloured pictures: there is something to learn, and quickly.
fn pictures() -> Tensor {
    let at = Tensor::arange(16, (Kind::Int64, Device::Cpu));
    let all: Vec<Tensor> = (0..8i64)
        .map(|i| {
            let split = (&at + i * 3).bitwise_and(8) * 20 + i * 10;
            let plane = split.view([1, 1, 16]).expand([1, 16, 16], false);
            Tensor::cat(&[&plane, &(255 - &plane), &plane.transpose(1, 2)], 0).unsqueeze(0)
        })
        .collect();
    Tensor::cat(&all, 0).to_kind(Kind::Uint8).contiguous()
}

fn options(reconstruction: Reconstruction) -> Options {
    Options {
        geometry: Geometry {
            words: 16,
            width: 8,
            stride: 4,
            blocks: 1,
        },
        picture: 16,
        batch: 8,
        steps: 60,
        lr: 5e-3,
        temperature: [1.0, 0.0625],
        anneal: 0.5,
        kl: 0.1,
        balance: 0.05,
        reconstruction,
        seed: 5,
    }
}

fn cursor(member: u32) -> Cursor {
    Cursor {
        member,
        ..Cursor::default()
    }
}

#[test]
fn a_short_training_lowers_the_loss() {
    let _alone = alone();
    for kind in [Reconstruction::LogitLaplace, Reconstruction::L2] {
        let mut training = Training::new(options(kind), Device::Cpu).unwrap();
        let data = pictures();
        let (before, _) = training.evaluate(&data);
        for i in 0..60 {
            let report = training.step(&data, cursor(i)).unwrap();
            assert!(report.grad_norm.double_value(&[]).is_finite());
        }
        let (after, divergence) = training.evaluate(&data);
        let learnt = if kind == Reconstruction::L2 {
            after < 0.7 * before
        } else {
            after < before - 0.3
        };
        assert!(learnt, "{kind:?}: {before} → {after}");
        assert!(divergence > 0.05, "words say something: {divergence}");
        let dvae = training.tokenizer("here").unwrap();
        let words = dvae.words(&data);
        assert_eq!((words.size(), dvae.header.steps), (vec![8, 16], 60));
        let rebuilt = dvae.rebuild(&words, 4).unwrap();
        assert_eq!((rebuilt.size(), rebuilt.kind()), (data.size(), Kind::Uint8));
    }
}

#[test]
fn a_resumed_training_is_the_undisturbed_one() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let data = pictures();
    let options = options(Reconstruction::LogitLaplace);
    let mut whole = Training::new(options.clone(), Device::Cpu).unwrap();
    for i in 0..20 {
        whole.step(&data, cursor(i)).unwrap();
        if i == 9 {
            whole.store(&state).unwrap();
        }
    }
    let mut resumed = Training::resume(options.clone(), &state, Device::Cpu).unwrap();
    assert_eq!((resumed.steps_done(), resumed.cursor()), (10, cursor(9)));
    for i in 10..20 {
        resumed.step(&data, cursor(i)).unwrap();
    }
    assert_eq!(whole.tokenizer("").unwrap().id(), resumed.tokenizer("").unwrap().id());
    let other = Options { kl: 0.2, ..options };
    let e = Training::resume(other, &state, Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("other settings"), "{e}");
}
