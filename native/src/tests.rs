use tch::{Device, Kind, Tensor};

use super::*;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// libtorch's random generator is one per process: tests that draw from it take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn autocast_casts_products_nests_and_ends() {
    let a = Tensor::ones([2, 2], CPU);
    assert_eq!(a.matmul(&a).kind(), Kind::Float);
    {
        let _on = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
        {
            let _off = Autocast::off(Device::Cpu).unwrap();
            assert!(!Autocast::is_on(Device::Cpu));
            assert_eq!(a.matmul(&a).kind(), Kind::Float);
        }
        assert!(Autocast::is_on(Device::Cpu));
        assert_eq!(a.matmul(&a).kind(), Kind::BFloat16);
    }
    assert_eq!(a.matmul(&a).kind(), Kind::Float);
}

#[test]
fn leaving_autocast_forgets_cast_weights() {
    let mut w = Tensor::ones([1, 1], CPU).set_requires_grad(true);
    let x = Tensor::ones([1, 1], CPU);
    let product = |w: &Tensor| {
        let _on = Autocast::bf16(Device::Cpu).unwrap();
        x.matmul(w).double_value(&[0, 0])
    };
    assert_eq!(product(&w), 1.0);
    let _ = tch::no_grad(|| w.fill_(3.0));
    assert_eq!(product(&w), 3.0);
}

#[test]
fn norm_and_scale_are_global() {
    let t = [Tensor::from_slice(&[3f32, 0.0]), Tensor::from_slice(&[4f32])];
    let norm = global_norm(&t).unwrap();
    assert!((norm.double_value(&[]) - 5.0).abs() < 1e-6);
    scale(&t, &Tensor::from(0.5f32)).unwrap();
    assert_eq!(t[1].double_value(&[0]), 2.0);
}

#[test]
fn each_tensor_has_its_norm_and_its_factor() {
    let t = [Tensor::from_slice(&[3f32, 4.0]).view([2, 1]), Tensor::from_slice(&[12f32])];
    let (each, all) = norms(&t).unwrap();
    assert_eq!((each, all), (Tensor::from_slice(&[5f32, 12.0]), Tensor::from(13f32)));
    scale_each(&t, &Tensor::from_slice(&[2f32, 0.25])).unwrap();
    assert_eq!(t[0], Tensor::from_slice(&[6f32, 8.0]).view([2, 1]));
    assert_eq!(t[1].double_value(&[0]), 3.0);
    let e = scale_each(&t, &Tensor::from_slice(&[2f32])).unwrap_err();
    assert_eq!(e.call, "scale_each");
}

#[test]
fn grads_are_cleared() {
    let w = Tensor::ones([2], CPU).set_requires_grad(true);
    assert!(!has_grad(&w));
    (&w * 2.0).sum(Kind::Float).backward();
    assert!(has_grad(&w));
    clear_grads(&[w.shallow_clone()]).unwrap();
    assert!(!has_grad(&w));
}

fn adamw_once(scale: Option<&Tensor>, skip: Option<&Tensor>) -> (f64, f64) {
    let one = |x: f32| vec![Tensor::from_slice(&[x])];
    let (p, g, m, v, s) = (one(1.0), one(0.5), one(0.0), one(0.0), vec![Tensor::from(0f32)]);
    let lists = AdamWLists {
        params: &p,
        grads: &g,
        exp_avgs: &m,
        exp_avg_sqs: &v,
        steps: &s,
    };
    fused_adamw(
        lists,
        AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.1,
            eps: 1e-8,
        },
        scale,
        skip,
    )
    .unwrap();
    (p[0].double_value(&[0]), s[0].double_value(&[]))
}

#[test]
fn adamw_first_step_is_decay_and_sign() {
    // 1·(1 − 0.1·0.1) − 0.1·sign(g): the first bias-corrected step has length lr.
    let (p, step) = adamw_once(None, None);
    assert!((p - (0.99 - 0.1)).abs() < 1e-6, "{p}");
    assert_eq!(step, 1.0);
    let (scaled, _) = adamw_once(Some(&Tensor::from(4f32)), Some(&Tensor::from(0f32)));
    assert!((scaled - 0.89).abs() < 1e-6, "{scaled}");
}

#[test]
fn adamw_skips_on_the_device() {
    assert_eq!(adamw_once(None, Some(&Tensor::from(1f32))), (1.0, 0.0));
}

#[test]
fn adamw_refuses_uneven_lists() {
    let t = [Tensor::from_slice(&[1f32])];
    let lists = AdamWLists {
        params: &t,
        grads: &[],
        exp_avgs: &t,
        exp_avg_sqs: &t,
        steps: &t,
    };
    let e = fused_adamw(
        lists,
        AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            eps: 1e-8,
        },
        None,
        None,
    )
    .unwrap_err();
    assert!(e.to_string().contains("1 parameters"), "{e}");
}

#[test]
fn random_state_is_restored() {
    let _turn = TURN.lock();
    let state = rng_state(Device::Cpu).unwrap();
    assert_eq!(state.kind(), Kind::Uint8);
    let a = Tensor::rand([4], CPU);
    set_rng_state(Device::Cpu, &state).unwrap();
    let b = Tensor::rand([4], CPU);
    assert_eq!(a, b);
    let e = set_rng_state(Device::Cpu, &Tensor::from_slice(&[1u8])).unwrap_err();
    assert_eq!(e.call, "set_rng_state");
}

#[test]
fn says_which_libtorch_and_why_no_cuda() {
    assert!(version().starts_with("2."), "{}", version());
    let lib = library_path().unwrap();
    assert!(lib.ends_with("libtorch_cpu.so"), "{}", lib.display());
    match load_cuda() {
        Ok(n) => assert!(n > 0),
        Err(CudaUnavailable::NotInstalled(p)) => assert_eq!(p.parent(), lib.parent()),
        Err(e) => assert!(!e.to_string().is_empty()),
    }
    assert_eq!(cuda_device(1_000), None, "no machine has so many");
}

#[test]
fn cuda_state_without_cuda_is_an_error() {
    if !tch::Cuda::is_available() {
        assert!(rng_state(Device::Cuda(0)).is_err());
        assert!(cuda_memory(0).is_err());
    }
}

#[test]
fn averages_move_by_the_weight_and_not_at_all_by_none() {
    let (a, v) = (Tensor::from_slice(&[0f32, 1.0]), Tensor::from_slice(&[1f32, 3.0]));
    let lists = || ([a.shallow_clone()], [v.shallow_clone()]);
    let (averages, values) = lists();
    lerp(&averages, &values, &Tensor::from(0.25f32)).unwrap();
    assert_eq!(a, Tensor::from_slice(&[0.25f32, 1.5]));
    lerp(&averages, &values, &Tensor::from(0f32)).unwrap();
    assert_eq!(a, Tensor::from_slice(&[0.25f32, 1.5]));
    assert!(lerp(&averages, &[], &Tensor::from(0f32)).is_err());
}

#[test]
fn what_is_recomputed_has_the_same_gradients_and_random_numbers() {
    let _turn = TURN.lock();
    let run = |again: bool| {
        tch::manual_seed(3);
        let w = Tensor::randn([8, 8], CPU).set_requires_grad(true);
        let x = Tensor::randn([4, 8], CPU).set_requires_grad(true);
        let extra = Tensor::randn([4, 8], CPU).set_requires_grad(true);
        let weight = w.shallow_clone();
        let body = move |x: &Tensor, extra: Option<&Tensor>| {
            let noise = x.empty_like().bernoulli_float_(0.5);
            (x.matmul(&weight) * noise + extra.unwrap()).tanh()
        };
        // x and extra are no leaves, as in a network.
        let (x2, extra2) = (&x * 1.0, &extra * 2.0);
        let y = if again {
            recomputed(&x2, Some(&extra2), body).unwrap()
        } else {
            body(&x2, Some(&extra2))
        };
        let after = Tensor::rand([3], CPU);
        (y.square().sum(Kind::Float) + after.sum(Kind::Float)).backward();
        [y.detach(), after, w.grad(), x.grad(), extra.grad()]
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_panic_in_a_recomputed_body_is_an_error() {
    let x = Tensor::ones([2], CPU).set_requires_grad(true);
    let e = recomputed(&(&x * 1.0), None, |_, _| panic!("planted")).unwrap_err();
    assert!(e.to_string().contains("planted"), "{e}");
    let first = std::cell::Cell::new(true);
    let y = recomputed(&(&x * 1.0), None, move |x, _| {
        assert!(first.replace(false), "planted in backward");
        x * 2.0
    });
    let e = y.unwrap().sum(Kind::Float).f_backward().unwrap_err();
    assert!(e.to_string().contains("planted in backward"), "{e}");
}

#[test]
fn a_linear_layer_is_libtorchs_forward_and_backward() {
    let _turn = TURN.lock();
    // Few rows go libtorch's way, many ours.
    for (dims, bias) in [
        (vec![3, 2, 20], true),
        (vec![4, 150, 20], true),
        (vec![900, 20], false),
        (vec![0, 20], true),
    ] {
        let x = Tensor::randn(dims.as_slice(), CPU);
        let (w, b) = (Tensor::randn([30, 20], CPU), bias.then(|| Tensor::randn([30], CPU)));
        let pass = |ours: bool| {
            let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
            let (x, w, b) = (leaf(&x), leaf(&w), b.as_ref().map(leaf));
            let y = if ours {
                linear(&x, &w, b.as_ref()).unwrap()
            } else {
                x.linear(&w, b.as_ref())
            };
            (&y * y.cos()).sum(Kind::Float).backward();
            let mut all = vec![y.detach(), x.grad(), w.grad()];
            all.extend(b.map(|b| b.grad()));
            all
        };
        for (ours, theirs) in pass(true).iter().zip(pass(false)) {
            assert_eq!(ours.size(), theirs.size());
            if theirs.numel() > 0 {
                let off = (ours - &theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[]).max(1e-30);
                assert!(off < 2e-6, "{dims:?}: {off:e}");
            }
        }
    }
    assert!(linear(&Tensor::ones([400, 3], CPU), &Tensor::ones([2, 5], CPU), None).is_err());
    // What needs no gradient gets none, and autocast keeps its say.
    let w = Tensor::ones([8, 8], CPU).set_requires_grad(true);
    let y = linear(&Tensor::ones([300, 8], CPU), &w, None).unwrap();
    y.sum(Kind::Float).backward();
    assert_eq!(w.grad().double_value(&[0, 0]), 300.0);
    let _on = Autocast::bf16(Device::Cpu).unwrap();
    assert_eq!(linear(&Tensor::ones([300, 8], CPU), &w, None).unwrap().kind(), Kind::BFloat16);
}

#[test]
fn sent_values_are_copies_in_their_shape() {
    let mut bytes = vec![1u8, 2, 3, 4, 5, 255];
    let sent = send(&bytes, &[2, 3], Device::Cpu).unwrap();
    bytes.fill(0);
    assert_eq!(Vec::<Vec<u8>>::try_from(&sent).unwrap(), [[1, 2, 3], [4, 5, 255]]);
    let long = send(&[i64::MIN, i64::MAX], &[2], Device::Cpu).unwrap();
    assert_eq!(Vec::<i64>::try_from(&long).unwrap(), [i64::MIN, i64::MAX]);
    let float = send(&[0.5f32], &[1, 1, 1], Device::Cpu).unwrap();
    assert_eq!((float.size(), float.double_value(&[0, 0, 0])), (vec![1, 1, 1], 0.5));
    assert_eq!(send::<i64>(&[], &[4, 0], Device::Cpu).unwrap().size(), [4, 0]);
    for shape in [&[5i64][..], &[-6], &[-2, -3], &[7]] {
        let e = send(&bytes, shape, Device::Cpu).unwrap_err();
        assert!(e.to_string().contains("6 values"), "{e}");
    }
}

#[test]
fn cross_entropy_by_rows_is_that_of_all_rows() {
    let _turn = TURN.lock();
    // 9,000 words: 466 rows at a time, so that 1,000 rows are three parts.
    for (m, k, v, bf16) in [(1000, 16, 9_000, false), (7, 5, 11, false), (1000, 16, 9_000, true)] {
        let (x, w, b) = (Tensor::randn([m, k], CPU), Tensor::randn([v, k], CPU), Tensor::randn([v], CPU));
        let targets = Tensor::randint(v, [m], (Kind::Int64, Device::Cpu));
        let pass = |ours: bool| {
            let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
            let (x, w, b) = (leaf(&x), leaf(&w), leaf(&b));
            let on = bf16.then(|| Autocast::bf16(Device::Cpu).unwrap());
            let (loss, largest) = if ours {
                linear_cross_entropy(&x, &w, &b, &targets).unwrap()
            } else {
                let logits = x.linear(&w, Some(&b));
                let loss = logits.to_kind(Kind::Float).cross_entropy_for_logits(&targets);
                (loss, logits.argmax(1, false))
            };
            drop(on);
            (&loss * 3.0).backward();
            (vec![loss.detach(), x.grad(), w.grad(), b.grad()], largest)
        };
        let ((ours, largest), (theirs, likeliest)) = (pass(true), pass(false));
        assert!(bf16 || largest == likeliest);
        let agree = largest
            .eq_tensor(&likeliest)
            .to_kind(Kind::Float)
            .mean(Kind::Float)
            .double_value(&[]);
        assert!(agree > 0.99, "{agree}");
        for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let off = (ours - theirs).norm().double_value(&[]) / theirs.norm().double_value(&[]);
            assert!(off < if bf16 { 1e-2 } else { 2e-6 }, "{m}×{v} {i}: {off:e}");
        }
    }
    // No gradient is made where none is wanted.
    let w = Tensor::ones([4, 2], CPU).set_requires_grad(true);
    let (x, b, t) = (
        Tensor::ones([3, 2], CPU),
        Tensor::zeros([4], CPU),
        Tensor::zeros([3], (Kind::Int64, Device::Cpu)),
    );
    let (loss, largest) = tch::no_grad(|| linear_cross_entropy(&x, &w, &b, &t).unwrap());
    assert!(!loss.requires_grad() && !largest.requires_grad());
    assert!((loss.double_value(&[]) - 4f64.ln()).abs() < 1e-6);
    assert!(linear_cross_entropy(&x, &w, &Tensor::zeros([5], CPU), &t).is_err());
}

#[test]
fn what_is_asked_of_a_device_is_recorded_until_the_end_and_nothing_after_it() {
    let x = Tensor::ones([4, 4], CPU);
    let count = LaunchCount::begin(true).unwrap();
    let _ = x.matmul(&x).relu();
    let seen = count.end().unwrap();
    assert!(seen.operators >= 2, "{seen:?}");
    assert_eq!(
        (seen.kernels, seen.launches, seen.waits),
        (0, 0, 0),
        "a CPU launches nothing: {seen:?}"
    );
    drop(LaunchCount::begin(true).unwrap());
    let count = LaunchCount::begin(false).unwrap();
    let _ = x.matmul(&x);
    assert_eq!(
        count.end().unwrap(),
        Launches::default(),
        "operators are not recorded unasked, nor those before"
    );
}

#[test]
fn calls_at_which_a_host_would_wait_are_counted() {
    let x = Tensor::ones([4], CPU);
    let counted = |work: &dyn Fn()| {
        let count = CallCount::begin().unwrap();
        work();
        count.end().unwrap()
    };
    // Other tests run meanwhile and are counted too, so these are lower bounds.
    let number = counted(&|| {
        let _ = x.double_value(&[0]);
    });
    assert!(number.waits >= 1);
    assert!(counted(&|| drop(x.nonzero())).waits >= 1);
    assert!(counted(&|| (0..100).for_each(|_| drop(&x + &x))).all >= 100);
}
