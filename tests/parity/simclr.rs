//! SimCLR against PyTorch (tests/fixtures/make_simclr.py).

use splitmask::head::ProjectionConfig;
use splitmask::model::config::VitConfig;
use splitmask::objective::pretrain::simclr::SimclrConfig;
use splitmask::objective::{Plan, Pool, Scope};
use tch::{Kind, Tensor, nn};

use crate::fixture::{Fixture, assert_grads, assert_near, device, set_params};
use crate::{alone, evaluation, training};

#[test]
fn losses_gradients_and_running_statistics_are_pytorchs() {
    let _alone = alone();
    let fixture = Fixture::read("simclr");
    let model = VitConfig {
        width: 32,
        ..crate::fixture::model()
    };
    let x = fixture.input_of(&[("first", "first"), ("second", "second")], None, None);
    for (kind, pool, layers) in [("class", Pool::Class, 2), ("mean", Pool::Mean, 3)] {
        let config = SimclrConfig {
            pool,
            projection: ProjectionConfig {
                layers,
                hidden: 24,
                out: 16,
            },
            ..SimclrConfig::default()
        };
        let vs = nn::VarStore::new(device());
        let mut objective = config.build(&vs.root(), &Scope::new(&model, 4, 0));
        let mut params = fixture.under("param");
        let projection = fixture.under(&format!("{kind}.param"));
        params.extend(projection);
        set_params(&vs, &params);

        let losses = objective.forward(&x, &training(0)).unwrap();
        let number = |name: &str| {
            let mut all = losses.terms.iter().chain(&losses.stats);
            all.find(|(n, _)| *n == name).map(|(_, value)| value.shallow_clone()).unwrap()
        };
        for name in ["contrast", "contrast_accuracy"] {
            assert_near(
                &format!("{kind}: {name}"),
                &number(name),
                fixture.get(&format!("{kind}.{name}")),
                1e-6,
            );
        }
        losses.total.backward();

        // BatchNorm takes away what the last bias of the encoder adds: its gradient is rounding alone.
        let vars = vs.variables();
        let (bias, weight) = (vars["norm.bias"].grad(), vars["norm.weight"].grad());
        let share = (bias.abs().max() / weight.abs().max()).double_value(&[]);
        assert!(share < 1e-5, "{kind}: {share}");
        let zeros = Tensor::zeros([32], (Kind::Float, device()));
        let _ = vars["norm.bias"].grad().zero_();
        let mut grads = fixture.under(&format!("{kind}.grad"));
        grads.insert("norm.bias", &zeros);
        assert_grads(kind, &vs, &grads, 1e-5);

        for (skipped, prefix) in [(1f32, format!("{kind}.param")), (0.0, format!("{kind}.after"))] {
            let _ = objective.forward(&x, &training(0)).unwrap();
            objective.after_step(&training(0), &Tensor::from(skipped)).unwrap();
            let want = fixture.under(&prefix);
            for (name, running) in want.iter().filter(|(name, _)| name.contains(".running_")) {
                assert_near(&format!("{prefix}.{name}"), &vs.variables()[*name], running, 1e-6);
            }
        }
        let evaluated = objective.forward(&x, &evaluation()).unwrap().total;
        assert_near(
            &format!("{kind}: with running statistics"),
            &evaluated,
            fixture.get(&format!("{kind}.evaluated")),
            1e-6,
        );
    }
}
