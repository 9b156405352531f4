//! Weighted k-nearest-neighbour classification of frozen features (DINO, arXiv 2104.14294 §4.1).

use tch::{Device, IndexOp, Kind, Tensor};

/// Settings of the vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// Neighbours that vote.
    pub k: i64,
    /// Votes weigh exp(similarity ÷ temperature).
    pub temperature: f64,
}

/// Outcome of a k-NN evaluation.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Accuracy {
    /// Share of the queries whose class won the vote.
    pub top1: f64,
    /// Share of the commonest class among the queries: what guessing it would give.
    pub majority: f64,
    /// 1 ÷ classes among the references: what guessing blindly would give.
    pub chance: f64,
    /// Labelled images searched.
    pub references: i64,
    /// Images classified.
    pub queries: i64,
    /// Distinct classes among the references.
    pub classes: i64,
}

/// Classifies queries by their nearest references.
///
/// `references_RD` and `queries_QD` are L2-normalised f32 on the CPU, labels i64 in 0..classes. Similarities are computed 1,024 queries at a
/// time, so memory stays at 1,024 × R floats.
#[must_use]
pub fn classify(references_rd: &Tensor, reference_labels: &Tensor, queries_qd: &Tensor, query_labels: &Tensor, vote: Vote) -> Accuracy {
    let (references, queries) = (references_rd.size()[0], queries_qd.size()[0]);
    let slots = i64::max(reference_labels.max().int64_value(&[]), query_labels.max().int64_value(&[])) + 1;
    let k = vote.k.min(references);
    let transposed = references_rd.tr();
    let mut right = 0i64;
    for start in (0..queries).step_by(1024) {
        let end = (start + 1024).min(queries);
        let (similarity, index) = queries_qd.i(start..end).matmul(&transposed).topk(k, 1, true, true);
        let weights = (similarity / vote.temperature).exp();
        let classes = reference_labels.index_select(0, &index.flatten(0, -1)).view_as(&index);
        let votes = Tensor::zeros([end - start, slots], (Kind::Float, Device::Cpu)).scatter_add(1, &classes, &weights);
        let hits = votes.argmax(1, false).eq_tensor(&query_labels.i(start..end)).sum(Kind::Int64);
        right += hits.int64_value(&[]);
    }
    let counts = |labels: &Tensor| labels.bincount::<Tensor>(None, slots);
    let classes = counts(reference_labels).gt(0).sum(Kind::Int64).int64_value(&[]);
    Accuracy {
        top1: right as f64 / queries as f64,
        majority: counts(query_labels).max().int64_value(&[]) as f64 / queries as f64,
        chance: 1.0 / classes as f64,
        references,
        queries,
        classes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(rows: &[[f32; 2]]) -> Tensor {
        let t = Tensor::from_slice2(rows);
        &t / t.norm_scalaropt_dim(2, [1], true)
    }

    #[test]
    fn votes_are_weighted_by_similarity() {
        // Two weak votes for class 1 against one near-identical vote for class 0.
        let references = unit(&[[1.0, 0.0], [0.0, 1.0], [0.05, 1.0]]);
        let labels = Tensor::from_slice(&[0i64, 1, 1]);
        let got = classify(
            &references,
            &labels,
            &unit(&[[1.0, 0.05]]),
            &Tensor::from_slice(&[0i64]),
            Vote { k: 3, temperature: 0.07 },
        );
        assert_eq!(got.top1, 1.0);
        // At a huge temperature every neighbour counts the same and class 1 wins.
        let got = classify(
            &references,
            &labels,
            &unit(&[[1.0, 0.05]]),
            &Tensor::from_slice(&[0i64]),
            Vote { k: 3, temperature: 1e6 },
        );
        assert_eq!(got.top1, 0.0);
    }

    #[test]
    fn counts_are_reported() {
        let references = unit(&[[1.0, 0.0], [0.0, 1.0]]);
        let got = classify(
            &references,
            &Tensor::from_slice(&[0i64, 5]),
            &unit(&[[1.0, 0.1], [0.1, 1.0], [0.2, 1.0]]),
            &Tensor::from_slice(&[0i64, 5, 5]),
            Vote { k: 20, temperature: 0.07 },
        );
        assert_eq!((got.references, got.queries, got.classes), (2, 3, 2));
        assert!((got.majority - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(got.chance, 0.5);
        assert_eq!(got.top1, 1.0);
    }
}
