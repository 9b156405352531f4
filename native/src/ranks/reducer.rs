//! Gradients averaged over the ranks while backward still runs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use crate::TorchError;
use crate::ranks::{Group, Ranks, RanksError, ffi, spoken};

/// Which part of a step's batch a backward belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// More follow: gradients are added up on this rank, nothing is sent.
    More,
    /// The last or only one: gradients are averaged over the ranks.
    Last,
}

/// What the last synchronising backward sent; times since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Messages.
    pub buckets: u64,
    /// Bytes of gradients.
    pub bytes: u64,
    /// When the first bucket left.
    pub first: Duration,
    /// When the last bucket left: this rank's own work. Behind it only the network and the other ranks are waited for.
    pub last: Duration,
    /// When all were averaged.
    pub whole: Duration,
}

/// Averages the gradients of a list of parameters over the ranks in backward, bucket by bucket (arXiv 2006.15704, section 3.2). Afterwards gradients are
/// views into the buckets and bit for bit the same on all ranks. Alone it only runs backward.
#[derive(Debug)]
pub struct Reducer {
    // Dropped first: it uses the group's connections.
    handle: Option<ffi::Reducer>,
    group: Option<Arc<Group>>,
    names: Vec<String>,
    traffic: Traffic,
}

/// What a bucket holds at most, as in PyTorch.
pub const BUCKET_BYTES: usize = 25 << 20;

impl Reducer {
    /// For the parameters `named` (leaves that require gradients, in any order; sorted by name here), in buckets of about `bucket_bytes`
    /// ([`BUCKET_BYTES`]; the first at most 1 MiB). All ranks must have the same names, shapes and kinds, which is checked.
    ///
    /// A leaf that is used inside of two blocks that are recomputed ([`crate::recomputed`]) would come up twice: hand it in as `extra`.
    ///
    /// # Errors
    /// [`RanksError::Misfit`] names a rank with other parameters; a parameter that needs no gradient; [`RanksError::Lost`]; what libtorch said.
    pub fn new(ranks: &Ranks, named: &[(String, Tensor)], bucket_bytes: usize) -> Result<Self, RanksError> {
        const CALL: &str = "the reducer";
        let wrong = |reason: String| RanksError::Usage { call: CALL, reason };
        let mut sorted: Vec<&(String, Tensor)> = named.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = sorted.windows(2).find(|p| p[0].0 == p[1].0) {
            return Err(wrong(format!("two parameters are called {}", pair[0].0)));
        }
        if let Some((name, _)) = sorted.iter().find(|(_, t)| !t.requires_grad()) {
            return Err(wrong(format!("{name} needs no gradient")));
        }
        let names: Vec<String> = sorted.iter().map(|(name, _)| name.clone()).collect();
        let Some(group) = &ranks.group else {
            return Ok(Self {
                handle: None,
                group: None,
                names,
                traffic: Traffic::default(),
            });
        };
        if sorted.is_empty() {
            return Err(wrong("no parameters".into()));
        }
        let mut text = String::new();
        for (name, t) in &sorted {
            let _ = writeln!(text, "{name} {:?} {:?}", t.size(), t.kind());
        }
        ranks.agree("parameters", &text)?;
        let since = group.together(CALL)?;
        let tensors: Vec<Tensor> = sorted.iter().map(|(_, t)| t.shallow_clone()).collect();
        let cap = i64::try_from(bucket_bytes.max(1)).unwrap_or(i64::MAX);
        let handle =
            ffi::Reducer::new(&group.links, &tensors, &names, cap).map_err(|error| group.judge(CALL, since, ffi::Failure::own(error)))?;
        Ok(Self {
            handle: Some(handle),
            group: Some(Arc::clone(group)),
            names,
            traffic: Traffic::default(),
        })
    }

    /// Call it before the first forward of each step. Behind the first step the buckets are made anew in the order in which gradients came, once.
    ///
    /// # Errors
    /// [`RanksError::Lost`], or what libtorch said.
    pub fn begin(&mut self) -> Result<(), RanksError> {
        const CALL: &str = "the reducer's buckets";
        let (Some(handle), Some(group)) = (&self.handle, &self.group) else {
            return Ok(());
        };
        let since = group.together(CALL)?;
        handle.begin().map_err(|f| group.judge(CALL, since, f))
    }

    /// Backward of `loss`, one scalar. With [`Part::Last`] every parameter's gradient is the mean over the ranks of what the parts of each have added up
    /// to; clear gradients before the first part ([`crate::clear_grads`]).
    ///
    /// # Errors
    /// [`RanksError::Lost`]; [`RanksError::NoGradient`]; [`RanksError::Torch`] if this rank failed itself. In the last part that one is left as its last
    /// words, for the others wait for its gradients; in an earlier part nobody waits, and the step may be taken again.
    pub fn backward(&mut self, loss: &Tensor, part: Part) -> Result<(), RanksError> {
        const CALL: &str = "backward";
        let (Some(handle), Some(group)) = (&self.handle, &self.group) else {
            return loss.f_backward().map_err(|e| failed(CALL, &e).into());
        };
        let since = group.together(CALL)?;
        if part == Part::More {
            return loss.f_backward().map_err(|e| failed(CALL, &e).into());
        }
        let own = |error| group.judge(CALL, since, ffi::Failure::own(error));
        handle.expect().map_err(own)?;
        let answer = loss.f_backward().map_err(|e| failed(CALL, &e));
        let done = handle.done(self.names.len());
        if let Err(error) = answer {
            return Err(group.judge(CALL, since, ffi::Failure { error, peer: done.peer }));
        }
        if !done.missing.is_empty() {
            let names = done.missing.iter().filter_map(|&i| self.names.get(i).cloned()).collect();
            let error = RanksError::NoGradient(names);
            group.fail(&error.to_string());
            return Err(error);
        }
        let time = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        self.traffic = Traffic {
            buckets: done.traffic.buckets,
            bytes: done.traffic.bytes,
            first: time(done.traffic.first),
            last: time(done.traffic.last),
            whole: time(done.traffic.whole),
        };
        Ok(())
    }

    /// What the last synchronising backward sent; nothing alone.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }
}

fn failed(call: &'static str, e: &tch::TchError) -> TorchError {
    match e {
        tch::TchError::Torch(message) => spoken(call, message),
        other => spoken(call, &other.to_string()),
    }
}
