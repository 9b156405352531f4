//! Features that all ranks make for rank 0's evaluations.

use serde::{Deserialize, Serialize};
use splitmask_pipeline::types::SampleId;
use tch::{Device, Kind, Tensor};

use super::peers::Peers;
use crate::eval::EvalError;
use crate::eval::classes::Labels;
use crate::eval::sharing::{Helpers, Made, Wanted};
use crate::trainer::error::TrainError;

/// What a rank says of its share before it is brought.
#[derive(Serialize, Deserialize)]
struct Outcome {
    rows: i64,
    /// Width of the features of each place; none where there is no image.
    widths: Vec<i64>,
    /// Why there is no share.
    error: Option<String>,
}

impl Peers {
    /// Other ranks: what rank 0 wants next; `None` when it has all it wants.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn asked_to_help(&self) -> Result<Option<Wanted>, TrainError> {
        let heard = self.of_first(&[])?;
        let wanted = (!heard.is_empty()).then(|| serde_json::from_slice(&heard));
        Ok(wanted.transpose().expect("both ranks are of one version"))
    }

    /// Rank 0: wants no more features at this boundary.
    ///
    /// # Errors
    /// A lost rank.
    pub(in crate::trainer) fn dismiss_helpers(&self) -> Result<(), TrainError> {
        self.of_first(&[]).map(drop)
    }

    /// Rows of all ranks, one rank's behind the other's, on rank 0; `counts` are theirs, of `own` that of this one.
    fn bring_rows(&self, own: &Tensor, counts: &[i64]) -> Result<Option<Tensor>, EvalError> {
        let most = counts.iter().copied().max().unwrap_or(0);
        let mut shape = own.size();
        shape[0] = most - shape[0];
        // All send as many.
        let filled = Tensor::f_cat(&[own, &Tensor::f_zeros(shape.as_slice(), (own.kind(), Device::Cpu))?], 0)?;
        let all = self.ranks().bring(&filled).map_err(|e| EvalError::Ranks(e.to_string()))?;
        let rows = all.map(|all| {
            let each = (0..).zip(counts).map(|(rank, n)| all.get(rank).narrow(0, 0, *n));
            Tensor::f_cat(&each.collect::<Vec<_>>(), 0)
        });
        Ok(rows.transpose()?)
    }
}

impl Helpers for Peers {
    fn share(&self) -> (u32, u32) {
        (self.rank() as u32, self.world() as u32)
    }

    fn ask(&self, wanted: &Wanted) -> Result<(), EvalError> {
        let text = serde_json::to_vec(wanted).expect("what is wanted is JSON");
        self.of_first(&text).map(drop).map_err(|e| EvalError::Ranks(e.to_string()))
    }

    fn bring(&self, own: Result<Made, EvalError>) -> Result<Option<Made>, EvalError> {
        let outcome = match &own {
            Ok(made) => Outcome {
                rows: made.ids.len() as i64,
                widths: made.vectors.iter().map(|v| v.size()[1]).collect(),
                error: None,
            },
            Err(error) => Outcome {
                rows: 0,
                widths: vec![],
                error: Some(error.to_string()),
            },
        };
        let text = serde_json::to_vec(&outcome).expect("an outcome is JSON");
        let all = self.gather(&text).map_err(|e| EvalError::Ranks(e.to_string()))?;
        let read = |text: &Vec<u8>| -> Outcome { serde_json::from_slice(text).expect("both ranks are of one version") };
        let outcomes: Vec<Outcome> = all.iter().map(read).collect();
        let made = own?;
        if let Some((rank, error)) = outcomes.iter().enumerate().find_map(|(rank, o)| Some((rank, o.error.as_ref()?))) {
            return Err(EvalError::OtherRank(format!("{}: {error}", self.named(rank))));
        }
        let counts: Vec<i64> = outcomes.iter().map(|o| o.rows).collect();
        if counts.iter().all(|n| *n == 0) {
            return Ok(self.first().then_some(made));
        }
        let numbers: Vec<i64> = made
            .ids
            .iter()
            .zip(&made.labels.of)
            .flat_map(|(id, label)| [i64::from(id.epoch), i64::from(id.shard), i64::from(id.member), *label])
            .collect();
        let numbers = self.bring_rows(&Tensor::from_slice(&numbers).view([outcome.rows, 4]), &counts)?;
        // A rank without images does not know how wide features are.
        let widths = &outcomes.iter().max_by_key(|o| o.rows).expect("there are ranks").widths;
        let mut vectors = Vec::new();
        for (place, width) in widths.iter().enumerate() {
            let own = match made.vectors.get(place) {
                Some(own) => own.to_device(Device::Cpu).to_kind(Kind::Float),
                None => Tensor::f_zeros([0, *width], (Kind::Float, Device::Cpu))?,
            };
            vectors.extend(self.bring_rows(&own, &counts)?);
        }
        numbers.map(|numbers| in_order(&numbers, &vectors, made.labels)).transpose()
    }
}

/// Shares one behind the other in the order of the set; `numbers` are epoch, shard, member and label of each image.
fn in_order(numbers: &Tensor, vectors: &[Tensor], labels: Labels) -> Result<Made, EvalError> {
    let numbers = Vec::<Vec<i64>>::try_from(numbers)?;
    let small = |n: i64| u32::try_from(n).expect("it was sent as one");
    let id = |row: &Vec<i64>| SampleId {
        epoch: small(row[0]),
        shard: small(row[1]),
        member: small(row[2]),
    };
    let mut places: Vec<usize> = (0..numbers.len()).collect();
    places.sort_by_key(|place| id(&numbers[*place]));
    let index: Vec<i64> = places.iter().map(|place| *place as i64).collect();
    let index = Tensor::from_slice(&index);
    let vectors = vectors.iter().map(|v| v.f_index_select(0, &index));
    Ok(Made {
        vectors: vectors.collect::<Result<_, _>>()?,
        ids: places.iter().map(|place| id(&numbers[*place])).collect(),
        labels: Labels {
            of: places.iter().map(|place| numbers[*place][3]).collect(),
            ..labels
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_ranks_come_back_in_the_order_of_the_set() {
        // Two ranks, of which one had a shard of its own to begin with.
        let numbers = Tensor::from_slice(&[0i64, 0, 0, 5, 0, 1, 1, 6, 0, 0, 7, -1, 0, 1, 0, 8]).view([4, 4]);
        let vectors = [Tensor::from_slice(&[0f32, 3.0, 1.0, 2.0]).view([4, 1])];
        let made = in_order(&numbers, &vectors, Labels::default()).unwrap();
        assert_eq!(made.labels.of, [5, -1, 8, 6]);
        assert_eq!(Vec::<f32>::try_from(made.vectors[0].flatten(0, -1)).unwrap(), [0.0, 1.0, 2.0, 3.0]);
        let ids: Vec<(u32, u32)> = made.ids.iter().map(|id| (id.shard, id.member)).collect();
        assert_eq!(ids, [(0, 0), (0, 7), (1, 0), (1, 1)]);
    }
}
