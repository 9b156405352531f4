//! The images that those of a pass are mixed with, where an objective mixes them in pairs ([`MixedImages`]).

use splitmask_pipeline::types::Batch;
use tch::Tensor;

use super::exchanged::Partners;
use super::pass::Pass;
use crate::objective::MixedImages;
use crate::tensor::{SentBatch, StepInput};
use crate::trainer::error::TrainError;
use crate::trainer::ranks::peers::Peers;

impl Pass<'_> {
    /// The images that those of a micro-batch are mixed with, in the order of the batch, and the labels of the whole batch.
    pub(super) fn partners(&self, batch: &Batch, index: usize) -> Result<(Option<StepInput>, Tensor), TrainError> {
        let (partners, _) = self.one_input(batch, self.micro_batches - 1 - index, &mut |_| {})?;
        let labels = torch_ext::send(&batch.labels, &[batch.len as i64], self.device)?;
        Ok((Some(partners), labels))
    }

    /// What this rank's images are mixed with, for all micro-batches: once a step, as bytes.
    pub(super) fn partners_of_ranks(&self, peers: &Peers, mixed: &dyn MixedImages, batch: &Batch) -> Result<Partners, TrainError> {
        let own;
        let own = match self.sent {
            Some(sent) => sent,
            None => {
                own = SentBatch::send(batch, 0..batch.len, self.device)?;
                &own
            }
        };
        let images = mixed.mixes().then(|| peers.partners(own)).transpose()?;
        let labels = peers.all_labels(own)?;
        let (size, rank) = (batch.len / self.micro_batches, peers.partner());
        Ok(Partners {
            images,
            labels,
            size,
            rank,
        })
    }

    /// As [`Pass::partners`], where ranks have exchanged them; `None` where no image is mixed.
    pub(super) fn partners_of_part(&self, partners: &Partners, index: usize) -> Result<(Option<StepInput>, Tensor), TrainError> {
        let theirs = self.micro_batches - 1 - index;
        let range = theirs * partners.size..(theirs + 1) * partners.size;
        let input = partners
            .images
            .as_ref()
            .map(|images| images.input(range, &self.spec.train.normalise()));
        let input = input.transpose()?;
        if let Some(input) = &input {
            self.spec.debug.spoil(input, self.consumed, partners.rank);
        }
        Ok((input, partners.labels.shallow_clone()))
    }
}
