//! Reads what the scripts of `tests/fixtures` wrote, and says where it is compared.
//!
//! The tests against PyTorch run on the CPU. `SPLITMASK_PARITY_DEVICE=cuda` runs them on a GPU, with tolerances of [`GPU_SLACK`] times those of the
//! CPU: its sums are taken in another order. That is what `setup/gpu_check.sh` does, with a program that was carried there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use splitmask::model::config::{VitConfig, VitSize};
use splitmask::objective::Losses;
use splitmask::tensor::{Normalise, StepInput, choose_device, step_input};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::request::IMAGE;
use splitmask_pipeline::types::{Batch, PatchSet, SampleId, View};
use tch::{Device, Kind, Tensor, nn};

/// ImageNet's, as in the script.
const NORMALISE: Normalise = Normalise {
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
};

/// How much more than on the CPU a GPU may differ from the fixtures.
const GPU_SLACK: f64 = 100.0;

/// Where the tests against PyTorch compute.
pub(crate) fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let wanted = std::env::var("SPLITMASK_PARITY_DEVICE").unwrap_or_else(|_| "cpu".into());
        choose_device(&wanted).unwrap_or_else(|e| panic!("SPLITMASK_PARITY_DEVICE: {e}")).0
    })
}

/// Words of the fixtures' vocabulary.
pub(crate) const VOCABULARY: i64 = 32;

/// Geometry of the fixtures.
pub(crate) fn model() -> VitConfig {
    VitConfig {
        size: VitSize::Nano,
        image: 16,
        patch: 4,
        width: 16,
        depth: 2,
        heads: 2,
        ..VitConfig::default()
    }
}

/// Tensors of one file by name.
pub(crate) struct Fixture(BTreeMap<String, Tensor>);

impl Fixture {
    pub(crate) fn read(name: &str) -> Self {
        // Cargo sets it while it runs tests; whoever runs them elsewhere names the folder that holds tests/fixtures.
        let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let path = root.join("tests/fixtures").join(name).with_extension("safetensors");
        let tensors = Tensor::read_safetensors(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(
            tensors
                .into_iter()
                .map(|(name, tensor)| (name, tensor.to_device(device())))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the fixture has no {name}"))
    }

    /// All tensors.
    pub(crate) fn all(&self) -> BTreeMap<&str, &Tensor> {
        self.0.iter().map(|(k, v)| (k.as_str(), v)).collect()
    }

    /// The tensors under `prefix.`, without it.
    pub(crate) fn under(&self, prefix: &str) -> BTreeMap<&str, &Tensor> {
        self.0
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.strip_prefix('.')?, v)))
            .collect()
    }

    /// A batch of one view as the pipeline would hand it over, through the same door.
    pub(crate) fn input(&self, pixels: &str, words: &str, sets: &str) -> StepInput {
        self.input_of(&[(IMAGE, pixels)], Some(words), Some(sets))
    }

    /// The same of several views: (name, tensor of its pixels).
    pub(crate) fn input_of(&self, views: &[(&'static str, &str)], words: Option<&str>, sets: Option<&str>) -> StepInput {
        let at_hand = |name: &str| self.get(name).flatten(0, -1).to_device(Device::Cpu);
        let bytes = |name: &str| Vec::<u8>::try_from(at_hand(name)).unwrap();
        let len = self.get(views[0].1).size()[0] as usize;
        let words = words.map(|name| Vec::<i64>::try_from(at_hand(name)).unwrap());
        let set = |number| PatchSet::try_from(number).unwrap();
        let view = |(name, pixels): &(&'static str, &str)| View {
            name: (*name).into(),
            size: self.get(pixels).size()[3] as u32,
            pixels: bytes(pixels),
        };
        let batch = Batch {
            len,
            views: views.iter().map(view).collect(),
            target: None,
            words: words.unwrap_or_default().into_iter().map(|w| w as u32).collect(),
            sets: sets.map(bytes).unwrap_or_default().into_iter().map(set).collect(),
            hidden: vec![],
            maps: vec![],
            objects: vec![],
            object_offsets: vec![],
            labels: vec![-1; len],
            ids: vec![
                SampleId {
                    epoch: 0,
                    shard: 0,
                    member: 0
                };
                len
            ],
            cursor: Cursor::default(),
        };
        step_input(&batch, 0..len, device(), &NORMALISE).unwrap()
    }
}

/// Sets every variable of `vs` from `params`; a variable without a value fails.
pub(crate) fn set_params(vs: &nn::VarStore, params: &BTreeMap<&str, &Tensor>) {
    for (name, mut variable) in vs.variables().into_iter().collect::<BTreeMap<_, _>>() {
        let value = params
            .get(name.as_str())
            .unwrap_or_else(|| panic!("the fixture has no parameter {name}"));
        assert_eq!(variable.size(), value.size(), "{name}");
        tch::no_grad(|| variable.copy_(value));
    }
}

/// Largest difference ÷ largest reference value.
pub(crate) fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let exact = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (got, want) = (exact(got), exact(want));
    ((got - &want).abs().max() / want.abs().max().clamp_min(1e-30)).double_value(&[])
}

#[track_caller]
pub(crate) fn assert_near(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let error = relative_error(got, want);
    let tolerance = if device() == Device::Cpu {
        tolerance
    } else {
        GPU_SLACK * tolerance
    };
    assert!(error <= tolerance, "{what}: relative error {error:.2e}, allowed {tolerance:.0e}");
}

/// Compares the gradient of every variable that is trained with `grads`, both ways.
#[track_caller]
pub(crate) fn assert_grads(what: &str, vs: &nn::VarStore, grads: &BTreeMap<&str, &Tensor>, tolerance: f64) {
    let trained: BTreeMap<String, Tensor> = vs.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
    assert_eq!(
        trained.keys().map(String::as_str).collect::<Vec<_>>(),
        grads.keys().copied().collect::<Vec<_>>(),
        "{what}: parameters"
    );
    for (name, variable) in trained {
        assert_near(
            &format!("{what}: gradient of {name}"),
            &variable.grad(),
            grads[name.as_str()],
            tolerance,
        );
    }
}

/// Terms and stats that PyTorch's side has too: all but those that tell how far a schedule has come.
pub(crate) fn measured(losses: &Losses) -> impl Iterator<Item = (&'static str, &Tensor)> {
    let all = losses.terms.iter().chain(&losses.stats).map(|(name, value)| (*name, value));
    all.filter(|(name, _)| !["teacher_temperature", "teacher_momentum"].contains(name))
}
