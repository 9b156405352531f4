//! The mirror at the start of a process: who holds it, whose it is, what it has that the run folder lacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use splitmask_pipeline::bucket::prefix::{Prefix, PrefixError, PrefixFailure};

use super::failure::Trouble;
use super::flow::Flow;
use super::handle::Mirror;
use super::holder::Holder;
use super::identity;
use super::inventory::Inventory;
use super::keeper::Held;
use super::lease::{self, NotTaken};
use super::restore::Restorer;
use super::settings::{MirrorSettings, Opening};
use super::status::{MirrorState, SharedMirrorStatus, held};
use crate::checkpoint::{folder_of, newest_good};
use crate::exit::{CliError, ExitCode};

/// Time for which a run that has a checkpoint here waits for a store that does not answer, before it goes on without.
const PATIENCE_WITH_CHECKPOINT: Duration = Duration::from_secs(20);
/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// An opened mirror.
#[derive(Debug)]
pub struct Opened {
    /// Keeps it from now on.
    pub mirror: Mirror,
    /// What the run goes on from, and why; `None` without a mirror, or while it does not answer.
    pub told: Option<String>,
}

/// Why a try failed.
enum Failed {
    Held(Box<Holder>),
    Store(PrefixError),
    Trouble(Trouble),
}

impl From<PrefixError> for Failed {
    fn from(e: PrefixError) -> Self {
        Self::Store(e)
    }
}

impl From<Trouble> for Failed {
    fn from(e: Trouble) -> Self {
        Self::Trouble(e)
    }
}

impl From<NotTaken> for Failed {
    fn from(e: NotTaken) -> Self {
        match e {
            NotTaken::Held(holder) => Self::Held(holder),
            NotTaken::Store(e) => Self::Store(e),
            NotTaken::Stopped => Self::Trouble(Trouble::lease("the start was given up".into(), true)),
        }
    }
}

/// Takes the lease of the mirror, brings what the run folder lacks, and starts the thread that keeps the copy.
///
/// # Errors
/// Exit code 64 for an address that cannot be written to, a mirror that another machine holds or that is of another run; 74 where a run without a checkpoint
/// here has waited for its store as long as `patience`.
pub fn open(opening: &Opening, settings: Option<MirrorSettings>) -> Result<Opened, CliError> {
    let status = SharedMirrorStatus::default();
    let Some(settings) = settings else {
        return Ok(Opened {
            mirror: Mirror::off(opening.clone(), status),
            told: None,
        });
    };
    let prefix = Arc::new(Prefix::open(&settings.address, &settings.endpoint, "mirror-io")?);
    {
        let mut status = held(&status);
        (status.address, status.state) = (prefix.shown().to_owned(), MirrorState::Opening);
    }
    opening.metrics.on.set(1.0);
    let local = newest_good(&folder_of(&opening.run_dir)).map_err(|e| CliError::io(e.to_string()))?;
    let local = local.good.map(|good| good.progress.step);
    let patience = if local.is_some() {
        PATIENCE_WITH_CHECKPOINT
    } else {
        opening.patience
    };
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    let flow = Arc::new(Flow::default());
    loop {
        let error = match attempt(opening, &settings, &prefix, &flow, &status, local) {
            Ok((held, told)) => {
                tracing::info!("{told}");
                return Ok(Opened {
                    mirror: Mirror::start(opening.clone(), status, settings, prefix, flow, Some(held), local),
                    told: Some(told),
                });
            }
            Err(failed) => failed,
        };
        let trouble = match error {
            Failed::Held(holder) => return Err(in_use(&settings, &prefix, &holder)),
            Failed::Trouble(trouble) if trouble.bars => {
                return Err(CliError::usage(
                    format!("{} = {:?}: {trouble}", settings.key, prefix.shown()),
                    format!("choose another {}, or the run folder that belongs to it", settings.key),
                ));
            }
            // A bucket that is not there, or not ours, is a mistake to tell now, not an outage.
            Failed::Store(e) if matches!(e.kind, PrefixFailure::Missing | PrefixFailure::Refused) => return Err(refused(&settings, &e)),
            Failed::Store(e) if e.kind == PrefixFailure::Denied && local.is_none() => return Err(refused(&settings, &e)),
            Failed::Store(e) => Trouble::from(e),
            Failed::Trouble(trouble) => trouble,
        };
        opening.metrics.failures.of(trouble.reason).inc();
        if began.elapsed() + pause > patience {
            if let Some(local) = local {
                tracing::error!(
                    "{}: {trouble}; the run goes on from step {local} of the run folder without knowing what the mirror has, and uploads begin once it answers",
                    settings.key
                );
                return Ok(Opened {
                    mirror: Mirror::start(opening.clone(), status, settings, prefix, flow, None, Some(local)),
                    told: None,
                });
            }
            return Err(CliError {
                code: ExitCode::Io,
                message: format!(
                    "{} = {:?}: {trouble}; given up after {:.0} s, since a run without a checkpoint in {} must know what the mirror has",
                    settings.key,
                    prefix.shown(),
                    began.elapsed().as_secs_f64(),
                    opening.run_dir.display()
                ),
                hint: Some("start it again when the store answers (pipeline.retry_budget_s is how long a start waits)".into()),
            });
        }
        tracing::warn!(
            "{}: {trouble}; the start is tried again in {:.1} s",
            settings.key,
            pause.as_secs_f64()
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn attempt(
    opening: &Opening,
    settings: &MirrorSettings,
    prefix: &Arc<Prefix>,
    flow: &Flow,
    status: &SharedMirrorStatus,
    local: Option<u64>,
) -> Result<(Held, String), Failed> {
    let me = Holder::of_process(&opening.run, &opening.run_dir, settings.lease);
    let lease = lease::take(prefix, me, flow, status, &opening.metrics.lease_held)?;
    let rest = || -> Result<(Inventory, String), Failed> {
        let mut inventory = Inventory::of(prefix)?;
        let there = !inventory.whole.is_empty();
        identity::agree(prefix, &opening.run_dir, &opening.run, local.is_some(), there)?;
        let restorer = Restorer {
            prefix,
            run_dir: &opening.run_dir,
            flow,
            metrics: &opening.metrics,
            status,
        };
        let told = restorer.restore(&mut inventory, local)?;
        Ok((inventory, told))
    };
    match rest() {
        Ok((inventory, told)) => Ok((Held { lease, inventory }, told)),
        Err(failed) => {
            lease.release();
            Err(failed)
        }
    }
}

fn in_use(settings: &MirrorSettings, prefix: &Prefix, holder: &Holder) -> CliError {
    CliError::usage(
        format!(
            "{} = {:?}: held by {holder}; two machines on one mirror would overwrite each other's checkpoints",
            settings.key,
            prefix.shown()
        ),
        format!(
            "stop that one, or choose another {}; a machine that died frees it {:.0} s after its last renewal",
            settings.key, holder.timeout_s
        ),
    )
}

fn refused(settings: &MirrorSettings, error: &PrefixError) -> CliError {
    let hint = match error.kind {
        PrefixFailure::Denied => {
            "credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*); they must be allowed to read, write, list and delete there"
        }
        _ => "is the bucket there? it is not made here",
    };
    CliError::usage(format!("{}: {error}", settings.key), hint.to_owned())
}
