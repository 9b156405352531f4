//! What a log line says: means over the log interval, and how evenly visual words are used.
//!
//! Both are part of the checkpoint, so a resumed run writes the very lines an undisturbed one would.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::loss::count_words;

/// Name of the share of a step's images or pixels that count in its losses, where some do not: those losses come multiplied by it, and the meter divides by
/// the sum of these shares.
pub(super) const COUNTED: &str = "counted";

/// Sums of named scalars over the running log interval. They stay on the device until read: no step waits for the device.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sums: BTreeMap<String, Tensor>,
    /// The same of scalars that were multiplied by the share of the step's images that they are of.
    weighed: BTreeMap<String, Tensor>,
    steps: u64,
}

const STEPS: &str = "steps";
/// Before the names of weighed sums in a checkpoint.
const WEIGHED: &str = "weighed ";

impl Meter {
    /// Goes on from the values of a checkpoint.
    #[must_use]
    pub(super) fn restore(saved: &BTreeMap<String, f64>) -> Self {
        let (mut sums, mut weighed) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in saved.iter().filter(|(k, _)| *k != STEPS) {
            match name.strip_prefix(WEIGHED) {
                Some(name) => weighed.insert(name.to_owned(), Tensor::from(*value)),
                None => sums.insert(name.clone(), Tensor::from(*value)),
            };
        }
        Self {
            sums,
            weighed,
            steps: saved.get(STEPS).map_or(0, |s| *s as u64),
        }
    }

    /// Counts a step.
    pub(super) fn step(&mut self) {
        self.steps += 1;
    }

    /// Adds a scalar of the current step, in f64.
    pub(super) fn add(&mut self, name: &str, value: &Tensor) {
        add(&mut self.sums, name, value);
    }

    /// Adds a scalar that was multiplied by the share of the step's images that it is a mean of; that share is the scalar [`COUNTED`].
    pub(super) fn add_weighed(&mut self, name: &str, value: &Tensor) {
        add(&mut self.weighed, name, value);
    }

    /// Means over the interval; the interval starts anew. A weighed one of no image at all is not among them.
    pub(super) fn take(&mut self) -> BTreeMap<String, f64> {
        let steps = std::mem::take(&mut self.steps).max(1) as f64;
        let mut sums = std::mem::take(&mut self.sums);
        let counted = sums.remove(COUNTED).map_or(0.0, |counted| counted.double_value(&[]));
        let weighed = std::mem::take(&mut self.weighed).into_iter().filter(|_| counted > 0.0);
        let of = |sums: BTreeMap<String, Tensor>, by: f64| sums.into_iter().map(move |(k, v)| (k, v.double_value(&[]) / by));
        let mut means: BTreeMap<String, f64> = of(sums, steps).collect();
        means.extend(of(weighed.collect(), counted));
        means
    }

    /// For the checkpoint.
    #[must_use]
    pub(super) fn save(&self) -> BTreeMap<String, f64> {
        let mut saved: BTreeMap<String, f64> = self.sums.iter().map(|(k, v)| (k.clone(), v.double_value(&[]))).collect();
        let weighed = self.weighed.iter().map(|(k, v)| (format!("{WEIGHED}{k}"), v.double_value(&[])));
        saved.extend(weighed);
        saved.insert(STEPS.into(), self.steps as f64);
        saved
    }
}

fn add(sums: &mut BTreeMap<String, Tensor>, name: &str, value: &Tensor) {
    let value = value.detach().to_kind(Kind::Double);
    match sums.get_mut(name) {
        Some(sum) => *sum = sum.to_device(value.device()) + value,
        None => {
            sums.insert(name.to_owned(), value);
        }
    }
}

/// Usage of the vocabulary over fixed windows of at least 16 × V words: over a smaller one, entropy would measure the batch size.
#[derive(Debug)]
pub(super) struct WordUsage {
    counts: Vec<u64>,
    seen: u64,
    entropy: f64,
    perplexity: f64,
    /// Counts of words that were made on a device, not yet read.
    on_device: Option<Tensor>,
}

impl WordUsage {
    /// Of a vocabulary of `words`.
    #[must_use]
    pub(super) fn new(words: usize) -> Self {
        Self {
            counts: vec![0; words],
            seen: 0,
            entropy: 0.0,
            perplexity: 0.0,
            on_device: None,
        }
    }

    /// Goes on from a checkpoint.
    #[must_use]
    pub(super) fn restore(counts: Vec<u64>, entropy: f64, perplexity: f64) -> Self {
        Self {
            seen: counts.iter().sum(),
            counts,
            entropy,
            perplexity,
            on_device: None,
        }
    }

    /// Counts the words of a batch; a full window is summed up and a new one begins.
    pub(super) fn observe(&mut self, words: &[u32]) {
        for &word in words {
            if let Some(count) = self.counts.get_mut(word as usize) {
                *count += 1;
            }
        }
        self.saw(words.len());
    }

    /// As [`WordUsage::observe`] for words (i64, each below V) that lie on a device: they are counted there and read once a window.
    pub(super) fn observe_on_device(&mut self, words: &Tensor) {
        self.observe_counts(&count_words(words, self.counts.len() as i64), words.numel());
    }

    /// As [`WordUsage::observe_on_device`] for `words` words that were counted there already (i64 V).
    pub(super) fn observe_counts(&mut self, counts: &Tensor, words: usize) {
        self.on_device = Some(match self.on_device.take() {
            Some(sum) => sum + counts,
            None => counts.shallow_clone(),
        });
        self.saw(words);
    }

    /// Reads what devices counted.
    fn read(&mut self) {
        if let Some(counts) = self.on_device.take() {
            let counts = Vec::<i64>::try_from(counts).expect("counts are one dimension of i64");
            self.counts.iter_mut().zip(counts).for_each(|(sum, c)| *sum += c.unsigned_abs());
        }
    }

    fn saw(&mut self, words: usize) {
        self.seen += words as u64;
        if self.seen >= 16 * self.counts.len() as u64 {
            self.read();
            self.entropy = entropy(&self.counts);
            self.perplexity = self.entropy.exp();
            self.counts.fill(0);
            self.seen = 0;
        }
    }

    /// Entropy of the marginal word distribution, nats: what a model that knows only frequencies would score (docs/method.md §1). Of the last full window, or
    /// of what has been seen before the first is full.
    #[must_use]
    pub(super) fn entropy(&mut self) -> f64 {
        self.read();
        if self.perplexity == 0.0 {
            entropy(&self.counts)
        } else {
            self.entropy
        }
    }

    /// exp(entropy).
    #[must_use]
    pub(super) fn perplexity(&mut self) -> f64 {
        self.entropy().exp()
    }

    /// (counts, entropy, perplexity) for the checkpoint.
    #[must_use]
    pub(super) fn save(&mut self) -> (Vec<u64>, f64, f64) {
        self.read();
        (self.counts.clone(), self.entropy, self.perplexity)
    }
}

fn entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let share = |c: u64| c as f64 / total as f64;
    -counts.iter().filter(|c| **c > 0).map(|c| share(*c) * share(*c).ln()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_means_over_steps_and_survives_a_checkpoint() {
        let mut whole = Meter::default();
        let mut half = Meter::default();
        for step in 0..4 {
            let value = Tensor::from(0.1f32 * step as f32);
            whole.step();
            whole.add("loss", &value);
            if step == 2 {
                half = Meter::restore(&half.save());
            }
            half.step();
            half.add("loss", &value);
        }
        let (a, b) = (whole.take(), half.take());
        assert_eq!(a["loss"].to_bits(), b["loss"].to_bits());
        assert!((a["loss"] - 0.15).abs() < 1e-7);
        assert!(whole.take().is_empty());
    }

    #[test]
    fn steps_weigh_as_many_images_as_count_in_them_and_one_without_any_is_no_zero() {
        let mut meter = Meter::default();
        let step = |meter: &mut Meter, loss: f64, counted: f64| {
            meter.step();
            meter.add("counted", &Tensor::from(counted));
            meter.add("unlabelled", &Tensor::from(1.0 - counted));
            meter.add_weighed("loss", &Tensor::from(loss * counted));
        };
        step(&mut meter, 2.0, 1.0);
        step(&mut meter, 0.0, 0.0);
        meter = Meter::restore(&meter.save());
        step(&mut meter, 5.0, 0.5);
        let means = meter.take();
        assert_eq!(means["loss"], (2.0 + 2.5) / 1.5);
        assert_eq!((means["unlabelled"], means.len()), (0.5, 2));
        step(&mut meter, 0.0, 0.0);
        assert_eq!(meter.take().into_iter().collect::<Vec<_>>(), [("unlabelled".to_owned(), 1.0)]);
    }

    #[test]
    fn words_on_a_device_count_as_those_on_the_host() {
        let (mut host, mut device) = (WordUsage::new(8), WordUsage::new(8));
        for step in 0..20i64 {
            let words: Vec<i64> = (0..10).map(|i| i * (step + 1) % 7).collect();
            host.observe(&words.iter().map(|w| *w as u32).collect::<Vec<_>>());
            device.observe_on_device(&Tensor::from_slice(&words).view([2, 5]));
            if step == 5 {
                let (counts, e, p) = device.save();
                device = WordUsage::restore(counts, e, p);
            }
        }
        assert_eq!(host.save(), device.save());
        assert!(host.entropy() > 1.0);
    }

    #[test]
    fn entropy_of_an_even_window_is_ln_v() {
        let mut usage = WordUsage::new(8);
        let words: Vec<u32> = (0..128).map(|i| i % 8).collect();
        usage.observe(&words);
        assert!((usage.entropy() - 8f64.ln()).abs() < 1e-12);
        assert!((usage.perplexity() - 8.0).abs() < 1e-9);
        // The next window is not full yet: the last full one is reported.
        usage.observe(&[0; 10]);
        assert!((usage.entropy() - 8f64.ln()).abs() < 1e-12);
        let (counts, e, p) = usage.save();
        let mut resumed = WordUsage::restore(counts, e, p);
        for _ in 0..118 {
            resumed.observe(&[0]);
            usage.observe(&[0]);
        }
        assert_eq!(usage.entropy().to_bits(), resumed.entropy().to_bits());
        assert_eq!(usage.entropy(), 0.0);
    }
}
