//! The same seed gives the same network; the thread count does not matter to it.

use splitmask::model::config::{VitConfig, VitSize};
use splitmask::model::Vit;
use tch::{Device, Kind, Tensor, nn};

use crate::alone;

#[test]
fn a_seed_gives_one_network_at_any_thread_count() {
    let _alone = alone();
    let features = |seed, threads| {
        tch::set_num_threads(threads);
        tch::manual_seed(seed);
        let vs = nn::VarStore::new(Device::Cpu);
        let config = VitConfig { size: VitSize::Nano, image: 32, patch: 8, ..VitConfig::default() };
        let vit = Vit::new(&vs.root(), &config, 0.0);
        let mut weights: Vec<_> = vs.variables().into_iter().collect();
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        let weights: Vec<Tensor> = weights.into_iter().map(|(_, t)| t.flatten(0, -1)).collect();
        (Tensor::cat(&weights, 0), vit.forward_features(&Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu)), false))
    };
    let one = features(3, 1);
    assert_eq!(one, features(3, 1));
    assert_eq!(one.0, features(3, 2).0);
    assert_ne!(one.0, features(4, 1).0);
}
