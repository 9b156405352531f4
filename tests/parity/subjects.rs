//! The objectives that the tests of this folder ask: each kind and variant of the registry, at a size that takes milliseconds, with an input that its plan asks for.

use std::collections::BTreeMap;

use splitmask_pipeline::request::ViewRequest;
use splitmask_pipeline::types::{Object, ObjectMask};
use tch::{Device, Kind, Tensor, nn};
use toml::Value;

use splitmask::model::config::{VitConfig, VitSize};
use splitmask::objective::{OBJECTIVES, Objective, ObjectiveConfig, Scope};
use splitmask::setting::Fitting;
use splitmask::tensor::{HiddenPatches, NamedView, PatchSets, StepInput};

use crate::{evaluation, rotation};

pub(crate) const VOCABULARY: i64 = 64;
pub(crate) const BATCH: i64 = 8;

/// 16 patches, so that the default masks of 224-pixel images must shrink; four blocks, of which UperNet sees each.
pub(crate) fn model() -> VitConfig {
    VitConfig {
        size: VitSize::Nano,
        image: 16,
        patch: 4,
        width: 32,
        depth: 4,
        heads: 2,
        ..VitConfig::default()
    }
}

pub(crate) fn scope(model: &VitConfig) -> Scope<'_> {
    Scope::new(model, BATCH as u32, VOCABULARY)
}

/// Sizes and waits of published recipes that a tiny model need not have, for whoever has a key of that name.
const SMALL: [(&str, i64); 14] = [
    ("channels", 16),
    ("box_width", 32),
    ("mask_depth", 2),
    ("mask_width", 16),
    ("candidates", 64),
    ("proposals", 32),
    ("eval_proposals", 32),
    ("regions", 24),
    ("prototypes", 64),
    ("hidden", 64),
    ("bottleneck", 32),
    ("freeze_last_layer_steps", 0),
    ("classes", 10),
    ("width", 32),
];

/// A config with some of its keys set, where it has them.
pub(crate) fn with(config: &ObjectiveConfig, values: impl IntoIterator<Item = (String, Value)>) -> ObjectiveConfig {
    let mut table = config.table();
    for (key, value) in values {
        if let Some(old) = table.get_mut(&key) {
            *old = value;
        }
    }
    (config.kind().read)(table).unwrap().into()
}

/// Defaults that make room for the small model, as a config file's would.
pub(crate) fn fitted(config: &ObjectiveConfig) -> ObjectiveConfig {
    let (model, nobody) = (model(), |_: &str| false);
    let mut config = with(config, SMALL.map(|(key, size)| (key.to_owned(), Value::Integer(size))));
    config.fit(&scope(&model), &mut Fitting::new(&nobody));
    assert_eq!(config.check(&scope(&model)), []);
    config
}

/// Every variant of every registered objective and of the one in docs/extending.md, and each of them with one of its switches turned over.
pub(crate) fn all() -> Vec<ObjectiveConfig> {
    let kinds = OBJECTIVES.iter().copied().chain([&rotation::KIND]);
    let variants = kinds.flat_map(|kind| (kind.variants)()).map(|plan| fitted(&plan.into()));
    let with_switches = |config: ObjectiveConfig| {
        let table = config.table();
        let switches = table.iter().filter(|(_, value)| value.is_bool()).map(|(key, _)| key.clone());
        let turned: Vec<ObjectiveConfig> = switches.map(|key| changed(&config, &key)).collect();
        [config].into_iter().chain(turned)
    };
    variants.flat_map(with_switches).collect()
}

pub(crate) fn built(config: &ObjectiveConfig, model: &VitConfig) -> (nn::VarStore, Box<dyn Objective>) {
    tch::manual_seed(11);
    let vs = nn::VarStore::new(Device::Cpu);
    let objective = config.build(&vs.root(), &scope(model));
    (vs, objective)
}

/// Random views, words and sets, as `config` requests them.
pub(crate) fn input(config: &ObjectiveConfig) -> StepInput {
    tch::manual_seed(12);
    let model = model();
    let request = config.request(&scope(&model));
    let n = request.patches() as i64;
    let sets = request.mask.map(|mask| {
        let order = Tensor::rand([BATCH, n], (Kind::Float, Device::Cpu)).argsort(-1, false);
        let (a, b) = mask.spec.counts(n as usize);
        let (a, b) = (a as i64, b as i64);
        let sorted = |t: Tensor| t.sort(-1, false).0;
        PatchSets {
            patches: n,
            a: sorted(order.narrow(1, 0, a)),
            not_a: sorted(order.narrow(1, a, n - a)),
            b: sorted(order.narrow(1, n - b, b)),
            not_b: sorted(order.narrow(1, 0, n - b)),
        }
    });
    let hidden = request.hidden.map(|hidden| {
        let n = i64::from(hidden.side).pow(2);
        let of_image = request.patches_that_may_hide() as i64;
        // The share of views that is asked for hides something, each another number of patches.
        let share = f64::from(hidden.probability);
        let hides = |view: i64| (share * (view + 1) as f64).floor() > (share * view as f64).floor();
        let views = (0..BATCH * of_image / n).filter(|view| hides(*view));
        let rows: Vec<i64> = views
            .flat_map(|view| (view % 5..view % 5 + 1 + view % 7).map(move |p| view * n + p))
            .collect();
        HiddenPatches {
            patches: of_image,
            rows: Tensor::from_slice(&rows),
        }
    });
    let view = |asked: &ViewRequest| NamedView {
        name: asked.name.into(),
        pixels: Tensor::randn([BATCH, 3, i64::from(asked.size), i64::from(asked.size)], (Kind::Float, Device::Cpu)),
    };
    StepInput {
        len: BATCH,
        views: request.views.iter().map(view).collect(),
        words: request
            .words
            .map(|_| Tensor::randint(VOCABULARY, [BATCH, n], (Kind::Int64, Device::Cpu))),
        largest_word: VOCABULARY as u32 - 1,
        sets,
        hidden,
        maps: request.map_pixels().gt(&0).then(|| {
            let side = i64::from(request.views[0].size);
            let classes = config.classes().map_or(2, i64::from);
            // Squares of a quarter of the side, for no head tells single pixels apart; some are of no class.
            let squares = Tensor::randint_low(-1, classes, [BATCH, 4, 1, 4, 1], (Kind::Int64, Device::Cpu));
            squares
                .expand([BATCH, 4, side / 4, 4, side / 4], false)
                .reshape([BATCH, side, side])
        }),
        objects: request.objects.map(|_| objects(config, request.views[0].size)),
        labels: match config.classes() {
            Some(classes) => Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)).remainder(i64::from(classes)),
            None => Tensor::full([BATCH], -1, (Kind::Int64, Device::Cpu)),
        },
    }
}

/// Two objects with masks in each image but the last, which shows none; in the first a crowd as well.
fn objects(config: &ObjectiveConfig, side: u32) -> Vec<Vec<Object>> {
    let classes = config.classes().unwrap_or(1).max(1);
    let square = |n: u32, left: u32, length: u32, crowd: bool| Object {
        class: n % classes,
        corners: [left, left / 2, left + length, left / 2 + length].map(|edge| edge as f32 + 0.25),
        crowd,
        mask: Some(ObjectMask {
            left,
            top: left / 2,
            width: length + 1,
            height: length + 1,
            pixels: (0..(length + 1) * (length + 1)).map(|at| u8::from(at % 3 != 0)).collect(),
        }),
    };
    let of = |n: u32| match n {
        last if i64::from(last) == BATCH - 1 => vec![],
        n => {
            let first = square(n, n % 4, side / 2 - 1, false);
            let crowd = (n == 0).then(|| square(n, side / 2, side / 4, true));
            [first, square(n + 1, side / 2 + n % 3, side / 4, false)]
                .into_iter()
                .chain(crowd)
                .collect()
        }
    };
    (0..BATCH as u32).map(of).collect()
}

pub(crate) fn named(vs: &nn::VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().collect()
}

pub(crate) fn value(t: &Tensor) -> f64 {
    t.double_value(&[])
}

pub(crate) fn total(objective: &dyn Objective, input: &StepInput) -> f64 {
    value(&objective.forward(input, &evaluation()).unwrap().total)
}

/// A config with one number of it changed.
pub(crate) fn changed(config: &ObjectiveConfig, key: &str) -> ObjectiveConfig {
    let mut table = config.table();
    let mut at = &mut table;
    let mut names: Vec<&str> = key.split('.').collect();
    let last = names.pop().unwrap();
    for name in names {
        at = at[name].as_table_mut().unwrap();
    }
    let value = match &at[last] {
        Value::Float(f) => Value::Float(0.5 * f),
        Value::Integer(n) => Value::Integer((n / 2).max(1)),
        Value::Boolean(b) => Value::Boolean(!b),
        other => panic!("{key} = {other}: say how a live value of this type is changed"),
    };
    at.insert(last.into(), value);
    (config.kind().read)(table).unwrap().into()
}
