//! Random numbers of a step that depend on its seed and their own number alone: the same on every device, and after a resume.

use splitmask_pipeline::seed::{Purpose, derive};

/// A stream of draws for one purpose and one row; the n-th is a function of (seed, purpose, row, n).
#[derive(Debug)]
pub(super) struct Draws {
    seed: u64,
    purpose: Purpose,
    row: u64,
    drawn: u64,
}

impl Draws {
    pub(super) fn new(seed: u64, purpose: Purpose, row: u64) -> Self {
        Self {
            seed,
            purpose,
            row,
            drawn: 0,
        }
    }

    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.drawn += 1;
        derive(self.seed, self.purpose, self.row, self.drawn, 0)
    }

    /// Uniform, strictly between 0 and 1.
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Uniform between two numbers.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A whole number from 0 to below `n`, which is at least 1.
    pub(super) fn below(&mut self, n: i64) -> i64 {
        ((self.uniform() * n as f64) as i64).min(n - 1)
    }

    /// Of the standard normal distribution (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Logarithm of a draw of the Gamma distribution of shape `a` > 0 and scale 1 (Marsaglia and Tsang 2000; below 1 their §6). A logarithm, because
    /// draws of small shapes are too small for an f64.
    fn ln_gamma_draw(&mut self, a: f64) -> f64 {
        if a < 1.0 {
            return self.ln_gamma_draw(a + 1.0) + self.uniform().ln() / a;
        }
        let d = a - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }

    /// Of the Beta(`a`, `a`) distribution, 0 to 1: the share of one of two equal Gamma draws in their sum.
    pub(super) fn symmetric_beta(&mut self, a: f64) -> f64 {
        let (one, other) = (self.ln_gamma_draw(a), self.ln_gamma_draw(a));
        1.0 / (1.0 + (other - one).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, variance and fourth central moment.
    fn moments(draws: &[f64]) -> [f64; 3] {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let central = |power: i32| draws.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        [mean, central(2), central(4)]
    }

    #[test]
    fn beta_draws_have_the_distributions_moments() {
        for a in [0.05, 0.3, 0.8, 1.0, 2.5, 40.0] {
            let mut draws = Draws::new(5, Purpose::Mixing, 0);
            let drawn: Vec<f64> = (0..200_000).map(|_| draws.symmetric_beta(a)).collect();
            assert!(drawn.iter().all(|x| (0.0..=1.0).contains(x)));
            let [mean, variance, fourth] = moments(&drawn);
            // Beta(a, a): variance 1/(4(2a+1)), kurtosis 3(2a+1)/(2a+3).
            let want = 1.0 / (4.0 * (2.0 * a + 1.0));
            let want_fourth = 3.0 * (2.0 * a + 1.0) / (2.0 * a + 3.0) * want * want;
            assert!((mean - 0.5).abs() < 5.0 * (want / 200_000.0).sqrt(), "{a}: mean {mean}");
            assert!((variance / want - 1.0).abs() < 0.02, "{a}: variance {variance}, not {want}");
            assert!(
                (fourth / want_fourth - 1.0).abs() < 0.04,
                "{a}: fourth moment {fourth}, not {want_fourth}"
            );
        }
    }

    #[test]
    fn beta_of_1_is_uniform() {
        let mut draws = Draws::new(6, Purpose::Mixing, 0);
        let mut drawn: Vec<f64> = (0..20_000).map(|_| draws.symmetric_beta(1.0)).collect();
        drawn.sort_by(f64::total_cmp);
        let farthest = drawn
            .iter()
            .enumerate()
            .map(|(n, x)| (x - n as f64 / 20_000.0).abs())
            .fold(0.0, f64::max);
        // Kolmogorov and Smirnov: 1.63/√n in one of a hundred samples.
        assert!(farthest < 1.63 / 20_000f64.sqrt(), "{farthest}");
    }

    #[test]
    fn draws_depend_on_seed_purpose_row_and_number_alone() {
        let first = |seed, purpose, row| Draws::new(seed, purpose, row).bits();
        let base = first(1, Purpose::Mixing, 2);
        assert_eq!(base, first(1, Purpose::Mixing, 2));
        assert!(
            [
                first(2, Purpose::Mixing, 2),
                first(1, Purpose::Erasing, 2),
                first(1, Purpose::Mixing, 3)
            ]
            .iter()
            .all(|other| *other != base)
        );
        let mut draws = Draws::new(1, Purpose::Mixing, 2);
        let counted: Vec<i64> = (0..1000).map(|_| draws.below(7)).collect();
        assert!((0..7).all(|n| counted.iter().filter(|m| **m == n).count() > 90), "{counted:?}");
    }
}
