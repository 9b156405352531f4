//! Collectives of tensors, and comparisons over the ranks. Alone each is the identity.

use tch::{Device, Kind, Tensor};

use crate::ranks::{Drift, Group, Misfit, Ranks, RanksError, ffi};

/// What becomes of a tensor in [`Ranks::all_reduce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum over the ranks.
    Sum,
    /// Their mean; floating point only.
    Mean,
    /// The largest, element by element.
    Max,
}

/// Kinds that both gloo and NCCL move.
const KINDS: [Kind; 8] = [
    Kind::Float,
    Kind::Double,
    Kind::Half,
    Kind::BFloat16,
    Kind::Int64,
    Kind::Int,
    Kind::Int8,
    Kind::Uint8,
];

fn usage(call: &'static str, reason: String) -> RanksError {
    RanksError::Usage { call, reason }
}

fn movable(call: &'static str, t: &Tensor) -> Result<(), RanksError> {
    if KINDS.contains(&t.kind()) {
        Ok(())
    } else {
        Err(usage(call, format!("tensors of kind {:?} do not travel", t.kind())))
    }
}

impl Ranks {
    /// Reduces each tensor over the ranks, in place, outside of autograd: one message for all of a kind and device (two if some take the largest).
    /// On CUDA the host does not wait. Shapes must be the same on all ranks: gloo ends the process where they are not.
    ///
    /// # Errors
    /// [`RanksError::Lost`], a kind that cannot be reduced so, or what libtorch said.
    pub fn all_reduce(&self, list: &[(&Tensor, Reduce)]) -> Result<(), RanksError> {
        const CALL: &str = "all-reduce";
        for (t, how) in list {
            movable(CALL, t)?;
            if *how == Reduce::Mean && !t.is_floating_point() {
                return Err(usage(CALL, format!("no mean of {:?}; take the sum", t.kind())));
            }
        }
        let Some(group) = self.group.as_ref().filter(|_| !list.is_empty()) else {
            return Ok(());
        };
        let since = group.together(CALL)?;
        let tensors: Vec<&Tensor> = list.iter().map(|(t, _)| *t).collect();
        let how: Vec<i32> = list.iter().map(|(_, how)| *how as i32).collect();
        group.links.all_reduce(&tensors, &how).map_err(|f| group.judge(CALL, since, f))
    }

    /// Everybody's `x`, in the order of ranks: W×… of the shape … that it has on every rank, without a gradient.
    ///
    /// To couple samples over all ranks (InfoNCE), gather the *detached* descriptors, let the result require a gradient, compute the coupling loss from
    /// it on every rank alike, take its backward, and give the own rows' gradient g, times the number of ranks, to the own descriptors d as the loss
    /// Σ d·g before the backward that synchronises. That is exact, and no collective lies inside of a backward.
    ///
    /// # Errors
    /// [`RanksError::Lost`], a kind that does not travel, or what libtorch said.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor, RanksError> {
        const CALL: &str = "all-gather";
        movable(CALL, x)?;
        let Some(group) = &self.group else {
            return Ok(x.detach().unsqueeze(0));
        };
        let since = group.together(CALL)?;
        group.links.all_gather(x, false).map_err(|f| group.judge(CALL, since, f))
    }

    /// Everybody's `x` on rank 0, in the order of ranks: W×… of the shape … that it has on every rank; `None` on the others. On the CPU.
    ///
    /// # Errors
    /// [`RanksError::Lost`], a kind that does not travel, another device, or what libtorch said.
    pub fn bring(&self, x: &Tensor) -> Result<Option<Tensor>, RanksError> {
        const CALL: &str = "bringing tensors to rank 0";
        movable(CALL, x)?;
        if x.device() != Device::Cpu {
            return Err(usage(
                CALL,
                format!("a tensor on {:?}, and gloo brings those of the CPU", x.device()),
            ));
        }
        let Some(group) = &self.group else {
            return Ok(Some(x.detach().unsqueeze(0)));
        };
        let since = group.together(CALL)?;
        group.links.bring(x).map_err(|f| group.judge(CALL, since, f))
    }

    /// What rank `with` sends here, which gets this rank's `x`: both call it with each other's number and tensors of one shape and kind. Without a
    /// gradient. With oneself nothing is sent.
    ///
    /// # Errors
    /// [`RanksError::Lost`], a kind that does not travel, a rank that there is not, or what libtorch said.
    pub fn exchange(&self, x: &Tensor, with: usize) -> Result<Tensor, RanksError> {
        const CALL: &str = "exchanging tensors";
        movable(CALL, x)?;
        if with >= self.world() {
            return Err(usage(CALL, format!("rank {with} of {}", self.world())));
        }
        let Some(group) = self.group.as_ref().filter(|_| with != self.rank()) else {
            return Ok(x.detach());
        };
        let since = group.together(CALL)?;
        group.links.exchange(x, with).map_err(|f| group.judge(CALL, since, f))
    }

    /// Rows of `x` (G·M×D in floating point: `groups` groups of M rows, as many on every rank) normalised by mean and variance of their group over all
    /// ranks, y = (x − mean) ÷ √(var + `eps`), and these as 2×G×D, the variance without Bessel's correction (arXiv 1502.03167 §3).
    ///
    /// Backward holds one collective. Its gradients are those of the sum of all ranks' losses, whose mean over the ranks a [`super::Reducer`] makes. It
    /// must therefore lie inside of [`super::Reducer::backward`] with [`super::Part::Last`].
    ///
    /// # Errors
    /// One rank, which normalises by itself; rows that are not G equal groups; [`RanksError::Lost`], or what libtorch said.
    pub fn normalised(&self, x: &Tensor, groups: i64, eps: f64) -> Result<(Tensor, Tensor), RanksError> {
        const CALL: &str = "the statistics of a batch normalisation";
        movable(CALL, x)?;
        let rows = x.size();
        if rows.len() != 2 || groups < 1 || rows[0] % groups != 0 || !x.is_floating_point() {
            return Err(usage(
                CALL,
                format!("rows {rows:?} of {:?} are not {groups} equal groups", x.kind()),
            ));
        }
        let Some(group) = &self.group else {
            return Err(usage(CALL, "one rank normalises by itself".into()));
        };
        let since = group.together(CALL)?;
        group.links.normalised(x, groups, eps).map_err(|f| group.judge(CALL, since, f))
    }

    /// Everybody's bytes, in the order of ranks; lengths may differ. Over the hosts' network, with the control time-out: for cursors, votes, reports.
    ///
    /// # Errors
    /// [`RanksError::Lost`], or what libtorch said.
    pub fn gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        match &self.group {
            None => Ok(vec![bytes.to_vec()]),
            Some(group) => group.gather_bytes(bytes),
        }
    }

    /// Overwrites the tensors with those of rank 0, outside of autograd: the start, a resume, a rollback. Many travel in one message. Shapes must be the
    /// same on all ranks ([`Self::agree`] on names and shapes first).
    ///
    /// # Errors
    /// [`RanksError::Lost`], a kind that does not travel, or what libtorch said.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), RanksError> {
        const CALL: &str = "broadcast";
        for t in tensors {
            movable(CALL, t)?;
        }
        let Some(group) = &self.group else { return Ok(()) };
        let since = group.together(CALL)?;
        group.links.broadcast(tensors).map_err(|f| group.judge(CALL, since, f))
    }

    /// Compares named texts (digests, a list of parameters with shapes) with rank 0's, on all ranks; all get the same answer.
    ///
    /// # Errors
    /// [`RanksError::Misfit`] names who differs, in the first line that does; [`RanksError::Lost`].
    pub fn agree(&self, what: &str, text: &str) -> Result<(), RanksError> {
        let Some(group) = &self.group else { return Ok(()) };
        let all = group.gather_bytes(text.as_bytes())?;
        let ours = String::from_utf8_lossy(&all[0]).into_owned();
        let mut misfits = Vec::new();
        for (rank, theirs) in all.iter().enumerate() {
            let theirs = String::from_utf8_lossy(theirs);
            if theirs != ours {
                let (theirs, ours) = first_difference(&theirs, &ours);
                misfits.push(Misfit::Differs {
                    rank,
                    host: group.words.members[rank].host.clone(),
                    what: what.to_owned(),
                    theirs,
                    ours,
                });
            }
        }
        if misfits.is_empty() {
            Ok(())
        } else {
            Err(RanksError::Misfit(misfits))
        }
    }

    /// Compares checksums of the tensors' bits with rank 0's. Reads every tensor once, on its device.
    ///
    /// # Errors
    /// [`RanksError::Drift`] names ranks and tensors, the same on all ranks; [`RanksError::Lost`]; what libtorch said.
    pub fn compare(&self, named: &[(String, Tensor)]) -> Result<(), RanksError> {
        const CALL: &str = "checksums";
        let Some(group) = &self.group else { return Ok(()) };
        let since = group.together(CALL)?;
        let tensors: Vec<Tensor> = named.iter().map(|(_, t)| t.shallow_clone()).collect();
        let own = ffi::checksums(&tensors).map_err(|error| group.judge(CALL, since, ffi::Failure::own(error)))?;
        let own: Vec<i64> = Vec::try_from(own).map_err(|e: tch::TchError| usage(CALL, e.to_string()))?;
        let bytes: Vec<u8> = own.iter().flat_map(|v| v.to_le_bytes()).collect();
        let all = group.gather_bytes(&bytes)?;
        let ranks = (1..all.len()).filter_map(|rank| {
            let differs = |i: &usize| all[rank].chunks(8).nth(*i) != all[0].chunks(8).nth(*i);
            let first = (0..named.len()).find(differs)?;
            Some((rank, group.words.members[rank].host.clone(), named[first].0.clone()))
        });
        let ranks: Vec<_> = ranks.collect();
        let compared = named.len();
        if ranks.is_empty() {
            Ok(())
        } else {
            Err(RanksError::Drift(Drift { ranks, compared }))
        }
    }
}

impl Group {
    fn gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        const CALL: &str = "gathering bytes";
        let since = self.together(CALL)?;
        let lost = |f| self.judge(CALL, since, f);
        let read = |t: Tensor| -> Result<Vec<i64>, RanksError> {
            Vec::try_from(t.flatten(0, -1)).map_err(|e: tch::TchError| usage(CALL, e.to_string()))
        };
        let length = i64::try_from(bytes.len()).map_err(|e| usage(CALL, e.to_string()))?;
        let lengths = read(self.links.all_gather(&Tensor::from_slice(&[length]), true).map_err(lost)?)?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); lengths.len()]);
        }
        // Gloo needs one length.
        let mut padded = bytes.to_vec();
        padded.resize(usize::try_from(longest).unwrap_or(padded.len()), 0);
        let all = self.links.all_gather(&Tensor::from_slice(&padded), true).map_err(lost)?;
        debug_assert_eq!(all.device(), Device::Cpu);
        let all: Vec<u8> = Vec::try_from(all.flatten(0, -1)).map_err(|e: tch::TchError| usage(CALL, e.to_string()))?;
        let rows = all.chunks(padded.len()).zip(&lengths);
        Ok(rows.map(|(row, &n)| row[..usize::try_from(n).unwrap_or(0)].to_vec()).collect())
    }
}

/// The first line that differs, with its number where there are several.
fn first_difference(theirs: &str, ours: &str) -> (String, String) {
    let several = theirs.lines().nth(1).is_some() || ours.lines().nth(1).is_some();
    let (mut a, mut b) = (theirs.lines(), ours.lines());
    for number in 1.. {
        match (a.next(), b.next()) {
            (Some(x), Some(y)) if x == y => {}
            (None, None) => break,
            (x, y) => {
                let line = |l: Option<&str>| {
                    let l = l.map_or_else(|| "nothing".into(), |l| l.chars().take(200).collect::<String>());
                    if several { format!("{l:?} (line {number})") } else { l }
                };
                return (line(x), line(y));
            }
        }
    }
    ("other line ends".into(), "its own".into())
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_line_that_differs_is_shown() {
        assert_eq!(first_difference("f00", "ba4"), ("f00".into(), "ba4".into()));
        assert_eq!(first_difference("a\nb", "a\nc"), ("\"b\" (line 2)".into(), "\"c\" (line 2)".into()));
        assert_eq!(
            first_difference("a", "a\nc"),
            ("nothing (line 2)".replace("nothing", "\"nothing\""), "\"c\" (line 2)".into())
        );
        assert_eq!(first_difference("a\n", "a").0, "other line ends");
    }
}
