//! From the mirror to a run folder that has less.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use splitmask_pipeline::bucket::prefix::{Prefix, PrefixFailure};
use splitmask_pipeline::file;

use super::failure::Trouble;
use super::files::{DAMAGED, belongs, is_earlier_picture, object};
use super::flow::Flow;
use super::identity::RUN_FILE;
use super::inventory::Inventory;
use super::status::{MirrorState, SharedMirrorStatus, Transfer, held};
use crate::checkpoint::{self, Bad, COMPLETE, FILES};
use crate::telemetry::metrics::{MirrorFailure, MirrorMetrics};

/// Pause between two lines about a long download.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Brings what a run folder lacks.
pub(super) struct Restorer<'a> {
    pub(super) prefix: &'a Prefix,
    pub(super) run_dir: &'a Path,
    pub(super) flow: &'a Flow,
    pub(super) metrics: &'a MirrorMetrics,
    pub(super) status: &'a SharedMirrorStatus,
}

/// Why a checkpoint did not come.
enum Failed {
    /// It is torn or damaged: the next older one may be good.
    Damaged(String),
    /// The store or the disk.
    Trouble(Trouble),
}

impl<T: Into<Trouble>> From<T> for Failed {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

impl Restorer<'_> {
    /// Brings the newest good checkpoint of the mirror if it is newer than `local`, the newest good one here, and with it the history of the run. Answers
    /// what was taken, and why.
    pub(super) fn restore(&self, inventory: &mut Inventory, local: Option<u64>) -> Result<String, Trouble> {
        let shown = self.prefix.shown();
        let had = inventory.whole.len();
        while let Some(step) = inventory.newest() {
            if let Some(local) = local.filter(|local| *local >= step) {
                let than = if local == step {
                    "the mirror has the same step"
                } else {
                    "the mirror's newest is older"
                };
                return Ok(format!(
                    "going on from step {local} of the run folder: {than} ({shown}: step {step})"
                ));
            }
            match self.fetch(step, inventory.bytes.get(&step).copied().unwrap_or(0)) {
                Ok(()) => {
                    let why = local.map_or_else(
                        || "the run folder has no good checkpoint".to_owned(),
                        |local| format!("the newest of the run folder is of step {local}"),
                    );
                    return Ok(format!("going on from step {step} of the mirror {shown}: {why}"));
                }
                Err(Failed::Damaged(reason)) => {
                    tracing::error!(
                        step,
                        mirror = shown,
                        reason,
                        "a checkpoint of the mirror is damaged: it is set aside, and the next older one is taken, if there is one"
                    );
                    self.metrics.failures.of(MirrorFailure::Damaged).inc();
                    let note = serde_json::json!({ "reason": reason }).to_string();
                    self.prefix.put(&object(step, DAMAGED), note)?;
                    self.prefix.delete(&object(step, COMPLETE))?;
                    inventory.whole.remove(&step);
                }
                Err(Failed::Trouble(trouble)) => return Err(trouble),
            }
        }
        Ok(match local {
            Some(local) => format!("going on from step {local} of the run folder: the mirror {shown} has no good checkpoint"),
            None if had > 0 => {
                let told =
                    format!("training begins anew: all {had} checkpoints of the mirror {shown} are damaged, and the run folder has none");
                tracing::error!("{told}");
                told
            }
            None => format!("neither the run folder nor the mirror {shown} has a good checkpoint"),
        })
    }

    fn fetch(&self, step: u64, of: u64) -> Result<(), Failed> {
        {
            let mut status = held(self.status);
            status.state = MirrorState::Fetching;
            status.transfer = Some(Transfer { step, bytes: 0, of });
        }
        let root = checkpoint::folder_of(self.run_dir);
        let temporary = checkpoint::temporary(&root, step);
        let done = self.fetch_into(step, &root, &temporary);
        held(self.status).transfer = None;
        if done.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        done
    }

    fn fetch_into(&self, step: u64, root: &Path, temporary: &Path) -> Result<(), Failed> {
        let disk = |path: &Path, e: &std::io::Error| Failed::Trouble(Trouble::disk(path, e));
        let _ = fs::remove_dir_all(temporary);
        fs::create_dir_all(temporary).map_err(|e| disk(temporary, &e))?;
        let text = match self.prefix.get(&object(step, COMPLETE))? {
            Some((text, _)) => text,
            None => return Err(Failed::Damaged(format!("{COMPLETE} is gone"))),
        };
        let sums: BTreeMap<String, String> =
            serde_json::from_slice(&text).map_err(|e| Failed::Damaged(format!("{COMPLETE} is no list of checksums: {e}")))?;
        let mut told = Instant::now();
        tracing::info!(step, from = self.prefix.shown(), "fetching a checkpoint from the mirror");
        for name in FILES {
            let path = temporary.join(name);
            let want = sums
                .get(name)
                .ok_or_else(|| Failed::Damaged(format!("{COMPLETE} does not name {name}")))?;
            let mut out = File::create(&path).map_err(|e| disk(&path, &e))?;
            let mut gate = |bytes| self.progress(step, bytes, &mut told);
            match self.prefix.get_to(&object(step, name), &mut out, &mut gate) {
                Ok((sum, _)) if sum == *want => {}
                Ok((_, bytes)) => return Err(Failed::Damaged(format!("{name}: {bytes} bytes with another checksum"))),
                Err(e) if e.kind == PrefixFailure::Missing => return Err(Failed::Damaged(format!("{name} is missing"))),
                Err(e) if e.kind == PrefixFailure::Source => {
                    return Err(Failed::Trouble(Trouble {
                        reason: MirrorFailure::Disk,
                        ..Trouble::from(e)
                    }));
                }
                Err(e) => return Err(e.into()),
            }
            out.sync_all().map_err(|e| disk(&path, &e))?;
        }
        let path = temporary.join(COMPLETE);
        file::write(&path, &text).map_err(|e| disk(&path, &e))?;
        checkpoint::read(temporary).map_err(|e| Failed::Damaged(e.to_string()))?;
        // Before the checkpoint is in its place: a start that is cut short here begins anew with all of it.
        self.history()?;
        let target = root.join(checkpoint::name_of(step));
        if target.exists() {
            let bad = Bad {
                step,
                folder: target.clone(),
                reason: "it is not good, and the mirror has a good one".into(),
            };
            let aside = bad.set_aside().map_err(|e| {
                Failed::Trouble(Trouble {
                    reason: MirrorFailure::Disk,
                    text: e.to_string(),
                    bars: false,
                })
            })?;
            tracing::warn!(step, aside = %aside.display(), "the damaged checkpoint of the run folder was set aside");
        }
        file::put_in_place(temporary, &target).map_err(|e| disk(&target, &e))?;
        Ok(())
    }

    fn progress(&self, step: u64, bytes: u64, told: &mut Instant) -> Result<(), String> {
        if self.flow.is_stopped() {
            return Err("the start was given up".into());
        }
        let transfer = {
            let mut status = held(self.status);
            let Some(transfer) = &mut status.transfer else { return Ok(()) };
            let before = transfer.clone();
            transfer.bytes += bytes;
            before
        };
        if told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            tracing::info!(
                "fetching the checkpoint at step {step}: {:.0} of {:.0} MB ({:.0} %)",
                transfer.bytes as f64 / 1e6,
                transfer.of as f64 / 1e6,
                100.0 * transfer.bytes as f64 / transfer.of.max(1) as f64
            );
        }
        Ok(())
    }

    /// Brings what is beside the checkpoints. Lines that stand here in other words are set aside: they are of steps that the run on the mirror took anew.
    fn history(&self) -> Result<(), Failed> {
        for (name, _) in self.prefix.list("")? {
            let earlier = is_earlier_picture(&name);
            if !earlier && (!belongs(&name) || name.contains('/') || name == RUN_FILE) {
                continue;
            }
            let path = self.run_dir.join(&name);
            let disk = |e: &std::io::Error| Failed::Trouble(Trouble::disk(&path, e));
            if earlier {
                fs::create_dir_all(path.parent().unwrap_or(self.run_dir)).map_err(|e| disk(&e))?;
            }
            let own = path.file_name().unwrap_or_default().to_string_lossy();
            let beside = path.with_file_name(format!(".tmp-{own}"));
            let mut out = File::create(&beside).map_err(|e| disk(&e))?;
            match self.prefix.get_to(&name, &mut out, &mut |_| Ok(())) {
                Ok(_) => {}
                // Deleted meanwhile, which only people do.
                Err(e) if e.kind == PrefixFailure::Missing => continue,
                Err(e) => return Err(e.into()),
            }
            out.sync_all().map_err(|e| disk(&e))?;
            if name.ends_with(".jsonl") && path.exists() && !is_same(&path, &beside) {
                let aside = aside(&path);
                fs::rename(&path, &aside).map_err(|e| disk(&e))?;
                tracing::warn!(file = name, aside = %aside.display(), "the mirror's lines take the place of those of the run folder, which were set aside");
            }
            fs::rename(&beside, &path).map_err(|e| disk(&e))?;
        }
        Ok(())
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(a), Ok(b)) if a == b)
}

/// A free name for lines that give way.
fn aside(path: &Path) -> PathBuf {
    (1..)
        .map(|n| path.with_extension(format!("before-{n}.jsonl")))
        .find(|aside| !aside.exists())
        .expect("numbers do not end")
}
