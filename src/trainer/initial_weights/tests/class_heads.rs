//! Heads that tell classes apart: taken whole from weights that learnt the same classes by the same tensors, otherwise not at all; of each objective that
//! has one.

use super::*;
use crate::objective::pretrain::supervised::SupervisedConfig;
use crate::objective::transfer::classify::ClassifyConfig;
use crate::objective::transfer::detect::DetectConfig;
use crate::objective::transfer::segment::{Head, SegmentConfig};
use crate::objective::{Objective, Plan, Pool, Scope};

/// What the parameters of weights are besides the encoder's; no network starts with it.
const MARK: f64 = 7.0;

/// Deep enough for a pyramid.
fn deep() -> VitConfig {
    model(|m| (m.image, m.patch, m.depth) = (32, 8, 4))
}

struct Network {
    vars: nn::VarStore,
    objective: Box<dyn Objective>,
    kind: &'static str,
    pool: Option<Pool>,
}

/// Drawn, with outputs for three classes.
fn network(plan: &dyn Plan) -> Network {
    let (vars, model) = (nn::VarStore::new(Device::Cpu), deep());
    let at = Scope {
        label_counts: &[1, 1, 1],
        ..Scope::new(&model, 8, 0)
    };
    let objective = plan.build(&vars.root(), &at);
    Network {
        vars,
        objective,
        kind: plan.kind().name,
        pool: plan.class_pool(),
    }
}

/// The same, all of it marked besides the encoder.
fn marked(plan: &dyn Plan) -> Network {
    let network = network(plan);
    for (name, tensor) in BTreeMap::from_iter(network.vars.variables()) {
        if !is_backbone_name(&name) {
            let _ = tch::no_grad(|| tensor.shallow_clone().fill_(MARK));
        }
    }
    network
}

/// Names of a network's parameters that `are` something, in order.
fn those(network: &Network, are: impl Fn(&str, &Tensor) -> bool) -> Vec<String> {
    let all = BTreeMap::from_iter(network.vars.variables());
    all.into_iter()
        .filter(|(name, tensor)| are(name, tensor))
        .map(|(name, _)| name)
        .collect()
}

/// Parameters that were taken from marked weights.
fn taken(network: &Network) -> Vec<String> {
    those(network, |_, tensor| tensor.eq(MARK).all().int64_value(&[]) == 1)
}

/// Starts a network that learns `classes` from a place: what is told of its head, or the refusal with its hint.
fn started(to: &Network, place: &Path, classes: &[String], partial: bool) -> Result<Option<String>, String> {
    let model = deep();
    let run = NewRun {
        model: &model,
        vars: &to.vars,
        partial,
        is_class_head: &|name| to.objective.is_class_head(name),
        is_head: &|name| to.objective.is_head(name),
        classes,
        kind: to.kind,
        pool: to.pool,
    };
    let source = open(place).unwrap();
    let variables: BTreeMap<String, Tensor> = to.vars.variables().into_iter().collect();
    let told = head_not_taken(&source, &variables, &run).map(|head| head.told(&source.place));
    super::super::load(place, &run).map_err(|e| format!("{e}; {}", e.hint().unwrap_or_default()))?;
    Ok(told)
}

fn deconv(width: u32) -> SegmentConfig {
    SegmentConfig {
        width,
        ..SegmentConfig::default()
    }
}

fn upernet(width: u32) -> SegmentConfig {
    SegmentConfig {
        head: Head::Upernet,
        auxiliary_width: 4,
        ..deconv(width)
    }
}

fn detect(channels: u32) -> DetectConfig {
    DetectConfig {
        channels,
        box_width: 8,
        mask_depth: 1,
        mask_width: 4,
        ..DetectConfig::default()
    }
}

/// What it is, its settings, those of another head, and the first tensor in which the heads differ.
type Case = (&'static str, Box<dyn Plan>, Box<dyn Plan>, &'static str);

fn cases() -> [Case; 4] {
    let of_class_token = ClassifyConfig {
        pool: Pool::Class,
        ..ClassifyConfig::default()
    };
    [
        (
            "classify",
            Box::new(ClassifyConfig::default()),
            Box::new(of_class_token),
            "fc_norm.bias: [16] in it, none in this run",
        ),
        (
            "deconv",
            Box::new(deconv(8)),
            Box::new(deconv(4)),
            "head.classifier.weight: [3, 8, 1, 1] in it, [3, 4, 1, 1] in this run",
        ),
        (
            "upernet",
            Box::new(upernet(8)),
            Box::new(upernet(4)),
            "head.upernet.classifier.weight: [3, 8, 1, 1] in it, [3, 4, 1, 1] in this run",
        ),
        (
            "detect",
            Box::new(detect(8)),
            Box::new(detect(4)),
            "pyramid.inner_blocks.0.0.bias: [8] in it, [4] in this run",
        ),
    ]
}

#[test]
fn the_same_head_of_the_same_classes_is_taken_whole() {
    let _turn = crate::tensor::alone();
    let classes = names(&["cat", "dog", "owl"]);
    for (what, plan, ..) in cases() {
        let (from, to) = (marked(plan.as_ref()), network(plan.as_ref()));
        let dir = tempfile::tempdir().unwrap();
        let place = checkpoint_in(dir.path(), &from.vars, &classes);
        assert_eq!(started(&to, &place, &classes, false), Ok(None), "{what}");
        assert_eq!(taken(&to), those(&to, |name, _| !is_backbone_name(name)), "{what}");
        assert_eq!(of(&to.vars, "pos_embed"), of(&from.vars, "pos_embed"), "{what}");
    }
}

#[test]
fn another_head_of_the_same_classes_is_refused_with_both_shapes_or_wholly_new() {
    let _turn = crate::tensor::alone();
    let classes = names(&["cat", "dog", "owl"]);
    let kinds: Case = (
        "kinds",
        Box::new(deconv(8)),
        Box::new(upernet(8)),
        "of another kind (it has head.classifier.bias, this run head.upernet.auxiliary.classifier.bias)",
    );
    for (what, plan, other, differs) in cases().into_iter().chain([kinds]) {
        let (from, to) = (marked(plan.as_ref()), network(other.as_ref()));
        let dir = tempfile::tempdir().unwrap();
        let place = checkpoint_in(dir.path(), &from.vars, &classes);
        let before = of(&to.vars, "pos_embed").copy();
        let refused = started(&to, &place, &classes, false).unwrap_err();
        for words in [
            "run.init_from = ",
            "its head tells the same 3 classes apart and is of ",
            differs,
            "objective.head",
            "run.init_partial = true",
        ] {
            assert!(refused.contains(words), "{what}: {words:?} is not in {refused}");
        }
        assert!(taken(&to).is_empty() && of(&to.vars, "pos_embed") == before, "{what}");

        let told = started(&to, &place, &classes, true).unwrap().unwrap();
        assert!(
            told.starts_with("run.init_from = ") && told.contains(differs) && told.contains("as run.init_partial = true allows"),
            "{what}: {told}"
        );
        assert_eq!(taken(&to), Vec::<String>::new(), "{what}: half a head");
        assert_eq!(of(&to.vars, "pos_embed"), of(&from.vars, "pos_embed"), "{what}");
    }
}

#[test]
fn a_head_of_other_or_unknown_classes_is_new_and_told_with_what_would_take_it() {
    let _turn = crate::tensor::alone();
    let (theirs, others, unknown) = (names(&["cat", "dog", "owl"]), names(&["cat", "owl", "dog"]), vec![]);
    for (what, plan, ..) in cases() {
        let from = marked(plan.as_ref());
        for (learnt, classes, why, remedy) in [
            (
                &theirs,
                &others,
                "(3: \"cat\", \"dog\", \"owl\") than this run (3: \"cat\", \"owl\", \"dog\"), from number 1 on",
                "the same classes in the same order",
            ),
            (
                &unknown,
                &others,
                "does not say which classes its head tells apart",
                "manifest.json",
            ),
            (&theirs, &unknown, "nobody says which ones this run learns", "manifest.json"),
        ] {
            let to = network(plan.as_ref());
            let dir = tempfile::tempdir().unwrap();
            let place = checkpoint_in(dir.path(), &from.vars, learnt);
            let told = started(&to, &place, classes, false).unwrap().unwrap();
            let place = place.display().to_string();
            for words in [
                "run.init_from = ",
                place.as_str(),
                why,
                "a new head begins. If it was meant to be taken: ",
                remedy,
            ] {
                assert!(told.contains(words), "{what}: {words:?} is not in {told}");
            }
            // What detection has below its classes serves others too.
            let kept = those(&to, |name, _| !is_backbone_name(name) && !to.objective.is_class_head(name));
            assert_eq!((taken(&to), kept.is_empty()), (kept, what != "detect"), "{what}");
        }
    }
}

#[test]
fn the_projection_of_a_pre_training_is_no_head_of_classes() {
    let _turn = crate::tensor::alone();
    let from = vars(&deep(), QkvBias::Full, &[]);
    // As DINO's is called.
    let projection = from.root() / "head" / "fc1";
    let _weight = crate::model::parameter(&projection, "weight", &[4, 16], Init::Const(MARK));
    let dir = tempfile::tempdir().unwrap();
    let place = checkpoint_in(dir.path(), &from, &[]);
    for plan in [&deconv(8) as &dyn Plan, &ClassifyConfig::default()] {
        let to = network(plan);
        assert_eq!(started(&to, &place, &names(&["cat", "dog", "owl"]), false), Ok(None));
        assert_eq!(of(&to.vars, "pos_embed"), of(&from, "pos_embed"));
    }
}

#[test]
fn a_head_of_another_kind_of_objective_is_left_and_one_that_looks_elsewhere_is_refused() {
    let _turn = crate::tensor::alone();
    let classes = names(&["cat", "dog", "owl"]);
    let of_class_token = ClassifyConfig {
        pool: Pool::Class,
        ..ClassifyConfig::default()
    };
    let (from, to) = (marked(&SupervisedConfig::default()), network(&of_class_token));
    let started_from = |config: &str| {
        let dir = tempfile::tempdir().unwrap();
        let place = checkpoint_of_config(dir.path(), &from.vars, &classes, config);
        started(&to, &place, &classes, false)
    };
    let told = started_from("[objective]\nkind = \"supervised\"\npool = \"class\"\n")
        .unwrap()
        .unwrap();
    assert!(
        told.contains("its head is that of objective.kind = \"supervised\"; it is not taken and a new head begins"),
        "{told}"
    );
    assert!(taken(&to).is_empty());
    let refused = started_from("[objective]\nkind = \"classify\"\npool = \"mean\"\n").unwrap_err();
    assert!(
        refused.contains("is of objective.pool = \"mean\", this run's of \"class\""),
        "{refused}"
    );
    assert_eq!(started_from("[objective]\nkind = \"classify\"\npool = \"class\"\n"), Ok(None));
    assert_eq!(taken(&to), ["head.bias", "head.weight"]);
}
