//! Outputs that are equally frequent in a batch.

use tch::{Kind, Tensor};
use torch_ext::ranks::{Ranks, RanksError};

/// Rounds of Sinkhorn-Knopp (arXiv 2006.09882 §3.1; arXiv 2304.07193 §4).
const ROUNDS: usize = 3;

/// The centre c (f32 K) with which softmax((outputs − c) ÷ temperature) is what Sinkhorn-Knopp makes of exp(outputs ÷ temperature): in each of
/// [`ROUNDS`] rounds every output gets the same sum over all rows, then every row the sum 1, which the softmax does for the last time. No gradient.
///
/// The rows come in `parts`, f32 M×K each, and are those of all `ranks`, each of which has as many parts. Everything stays logarithms: outputs of a free
/// gain over a low temperature have no exponential in f32.
///
/// # Errors
/// Ranks that are no longer together.
pub fn sinkhorn_centre(parts: usize, outputs: impl Fn(usize) -> Tensor, temperature: f64, ranks: &Ranks) -> Result<Tensor, RanksError> {
    let _guard = tch::no_grad_guard();
    let mut of_rows: Vec<Option<Tensor>> = (0..parts).map(|_| None).collect();
    let mut round = || -> Result<Tensor, RanksError> {
        let logits = |part: usize| outputs(part).to_kind(Kind::Float) / temperature;
        let sums: Vec<Tensor> = of_rows
            .iter()
            .enumerate()
            .map(|(part, row)| {
                let logits = logits(part);
                let moved = row.as_ref().map_or_else(|| logits.shallow_clone(), |row| &logits + row);
                moved.logsumexp([0i64].as_slice(), true)
            })
            .collect();
        // W×parts×K: each rank sends a row of K sums for each of its parts.
        let sums = ranks.gather(&Tensor::cat(&sums, 0))?;
        let of_outputs = sums.flatten(0, 1).logsumexp([0i64].as_slice(), false);
        for (part, row) in of_rows.iter_mut().enumerate() {
            *row = Some(-(logits(part) - &of_outputs).logsumexp([-1i64].as_slice(), true));
        }
        Ok(of_outputs)
    };
    for _ in 1..ROUNDS {
        let _ = round()?;
    }
    Ok(round()? * temperature)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// With exponentials and sums, entry by entry, on the host.
    fn by_hand(outputs: &[Vec<f64>], temperature: f64) -> Vec<Vec<f64>> {
        let mut q: Vec<Vec<f64>> = outputs
            .iter()
            .map(|row| row.iter().map(|x| (x / temperature).exp()).collect())
            .collect();
        for _ in 0..3 {
            for k in 0..q[0].len() {
                let sum: f64 = q.iter().map(|row| row[k]).sum();
                q.iter_mut().for_each(|row| row[k] /= sum);
            }
            for row in &mut q {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
        q
    }

    fn rows(t: &Tensor) -> Vec<Vec<f64>> {
        Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn the_centre_gives_sinkhorns_assignment_in_one_piece_and_in_parts() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(4);
        let outputs = Tensor::rand([12, 7], (Kind::Float, Device::Cpu));
        for temperature in [0.04, 0.07, 1.0] {
            let assigned = |centre: &Tensor| ((&outputs - centre) / temperature).softmax(-1, Kind::Float);
            let want = by_hand(&rows(&outputs), temperature);
            let alone = Ranks::alone();
            let whole = sinkhorn_centre(1, |_| outputs.shallow_clone(), temperature, &alone).unwrap();
            let part = |part: usize| outputs.narrow(0, [0, 5, 5][part], [5, 0, 7][part]);
            let parts = sinkhorn_centre(3, part, temperature, &alone).unwrap();
            for centre in [whole, parts] {
                for (got, want) in rows(&assigned(&centre)).iter().flatten().zip(want.iter().flatten()) {
                    assert!((got - want).abs() < 1e-5, "{got} {want} at {temperature}");
                }
            }
        }
    }

    #[test]
    fn outputs_too_large_for_an_exponential_stay_finite() {
        let _turn = crate::tensor::alone();
        let outputs = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([4, 3]) * 10.0;
        let centre = sinkhorn_centre(1, |_| outputs.shallow_clone(), 0.04, &Ranks::alone()).unwrap();
        assert!(centre.isfinite().all().int64_value(&[]) == 1, "{centre}");
    }
}
