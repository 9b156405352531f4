//! When a step does not fit: recognising it, taking the batch in more parts, finding the number of parts at the start.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use splitmask_pipeline::types::Batch;
use tch::Device;

use super::assemble::Trainer;
use super::error::TrainError;
use super::feed::Staged;
use super::pass::{Pass, Passed};
use super::spec::OnOom;
use crate::exit::panic_text;
use crate::tensor::SentBatch;

/// Share of the free memory that the automatic choice uses.
const SHARE: f64 = 0.8;
/// Images that the memory of one image is measured with, at most.
const PROBE: usize = 4;

/// The next larger divisor of `batch` from `parts` on, at least doubling where there is one.
#[must_use]
pub(super) fn more_parts(batch: usize, parts: usize) -> Option<usize> {
    let divides = |p: &usize| batch.is_multiple_of(*p);
    (2 * parts..=batch).find(divides).or_else(|| (parts + 1..=batch).find(divides))
}

/// Fewest parts of a batch such that one part of `part_bytes` for each image fits into `room`.
#[must_use]
fn parts_that_fit(batch: usize, image_bytes: f64, room: f64) -> usize {
    let fits = |parts: &usize| batch.is_multiple_of(*parts) && (batch / *parts) as f64 * image_bytes <= room;
    (1..=batch).find(fits).unwrap_or(batch)
}

/// Value of a line such as `VmRSS:   1234 kB` in bytes.
fn kilobytes(file: &str, field: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// Memory that this process may still take: of the machine, or of its control group if that is less.
fn free_memory() -> Option<f64> {
    let machine = kilobytes("/proc/meminfo", "MemAvailable")?;
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(group.map_or(machine, |(most, now)| machine.min(most - now)))
}

/// Runs something of libtorch's whose lack of memory comes as an error or as a panic of tch; other panics go on.
pub(super) fn caught<T>(run: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| match TrainError::of_device(&panic_text(&*panic)) {
        Some(error) => Err(error),
        None => resume_unwind(panic),
    })
}

impl Trainer {
    pub(super) fn pass<'a>(&'a self, sent: Option<&'a SentBatch>) -> Pass<'a> {
        Pass {
            objective: self.objective.as_ref(),
            spec: &self.spec,
            device: self.device,
            step: self.step,
            consumed: self.ladder.consumed() + 1,
            parts: self.parts.max(1),
            words: Some(&self.words),
            sent,
        }
    }

    /// Gradients of a batch, in as many parts as it takes.
    ///
    /// # Errors
    /// [`TrainError::OutOfMemory`] where not even one image fits or `train.on_oom` says so; other failures as they are.
    pub(super) fn gradients_that_fit(&mut self, staged: &Staged) -> Result<Passed, TrainError> {
        let (batch, sent) = (&staged.batch, staged.sent.as_ref());
        if self.parts == 0 {
            self.parts = self.find_parts(batch)?;
            tracing::info!(
                parts = self.parts,
                images = batch.len / self.parts,
                "train.accumulate = 0: the batch is processed in parts of that many images"
            );
        }
        loop {
            let mut clock = std::mem::take(&mut self.phase_switches);
            let done = {
                let pass = self.pass(sent);
                caught(|| pass.gradients(batch, |phase| clock.push((phase, std::time::Instant::now()))))
            };
            for (phase, at) in clock.drain(..) {
                self.clock.switch_at(phase, at);
            }
            self.phase_switches = clock;
            let error = match done {
                Err(TrainError::OutOfMemory { detail, .. }) => detail,
                other => return other,
            };
            self.optimizer.zero_grad()?;
            torch_ext::cuda_empty_cache()?;
            let may_split = self.spec.train.on_oom == OnOom::Split && !self.spec.objective.whole_batch();
            let more = more_parts(batch.len, self.parts).filter(|_| may_split);
            let Some(more) = more else {
                return Err(TrainError::OutOfMemory {
                    detail: error,
                    batch: batch.len,
                    parts: self.parts,
                });
            };
            self.telemetry.train.memory_splits.inc();
            tracing::warn!(
                step = self.step + 1,
                from = self.parts,
                to = more,
                error,
                "a step did not fit into memory: the batch is processed in more parts from now on, with the same result"
            );
            self.parts = more;
        }
    }

    /// On CUDA one part: a lack of memory divides it. On a CPU, where a lack of memory is the end of the process, by measuring.
    fn find_parts(&mut self, batch: &Batch) -> Result<usize, TrainError> {
        if self.device != Device::Cpu || self.spec.objective.whole_batch() {
            return Ok(1);
        }
        let probe = (1..=PROBE.min(batch.len)).rev().find(|n| batch.len.is_multiple_of(*n)).unwrap_or(1);
        self.parts = batch.len / probe;
        // Twice: the first time also fills libtorch's own caches.
        let mut grown = 0.0;
        for _ in 0..2 {
            let before = kilobytes("/proc/self/status", "VmRSS");
            // Makes the peak begin anew; where the kernel refuses, the old peak only makes the estimate too large.
            let _ = fs::write("/proc/self/clear_refs", "5");
            self.pass(None).first_part(batch)?;
            self.optimizer.zero_grad()?;
            let peak = kilobytes("/proc/self/status", "VmHWM");
            let (Some(before), Some(peak)) = (before, peak) else {
                return Ok(1);
            };
            grown = (peak - before).max(0.0);
        }
        let each = grown / probe as f64;
        let Some(room) = free_memory() else { return Ok(1) };
        let parts = parts_that_fit(batch.len, each, SHARE * room);
        tracing::info!(
            image_mib = each / f64::from(1 << 20),
            free_mib = room / f64::from(1 << 20),
            "measured the memory of a step"
        );
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_divisors_and_grow_at_least_twofold() {
        assert_eq!(more_parts(12, 1), Some(2));
        assert_eq!(more_parts(12, 2), Some(4));
        assert_eq!(more_parts(12, 4), Some(12));
        assert_eq!(more_parts(9, 1), Some(3));
        assert_eq!(more_parts(12, 12), None);
        assert_eq!(more_parts(1, 1), None);
    }

    #[test]
    fn the_largest_part_that_fits_is_taken() {
        assert_eq!(parts_that_fit(12, 10.0, 1000.0), 1);
        assert_eq!(parts_that_fit(12, 10.0, 119.0), 2);
        assert_eq!(parts_that_fit(12, 10.0, 45.0), 3);
        assert_eq!(parts_that_fit(12, 10.0, 1.0), 12, "one image must fit");
        assert_eq!(parts_that_fit(7, 10.0, 60.0), 7);
    }

    #[test]
    fn this_machine_tells_its_memory() {
        let (rss, free) = (kilobytes("/proc/self/status", "VmRSS").unwrap(), free_memory().unwrap());
        assert!(rss > 1e6 && free > 1e6, "{rss} {free}");
    }

    #[test]
    fn a_panic_for_memory_is_an_error_and_another_stays_a_panic() {
        let oom = caught(|| -> Result<(), TrainError> {
            resume_unwind(Box::new("Torch(\"CUDA out of memory. Tried to allocate 20 MiB\")".to_owned()))
        });
        assert!(matches!(oom, Err(TrainError::OutOfMemory { .. })));
        let lost = caught(|| -> Result<(), TrainError> {
            resume_unwind(Box::new("CUDA error: an illegal memory access was encountered".to_owned()))
        });
        assert!(matches!(lost, Err(TrainError::DeviceLost { .. })));
        let bug = catch_unwind(|| caught(|| -> Result<(), TrainError> { resume_unwind(Box::new("index out of bounds")) }));
        assert!(bug.is_err());
    }
}
