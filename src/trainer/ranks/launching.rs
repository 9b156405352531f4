//! How a trainer comes to the other ranks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tch::Device;
use torch_ext::ranks::{Greeting, LastWords, Launch, Options, Ranks};

use super::peers::{Peers, Reread};
use crate::trainer::error::TrainError;
use crate::trainer::feed::Share;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::speed::nvidia_models;

/// This process's place among the ranks, and what a trainer needs to take it.
#[derive(Clone)]
pub struct Launching {
    launch: Launch,
    reread: Arc<Reread>,
    words: Arc<OnceLock<LastWords>>,
}

impl Launching {
    /// For a process that its launcher gave the place `launch`.
    pub fn new(launch: Launch, reread: impl Fn(&str) -> Result<TrainerSpec, String> + Send + Sync + 'static) -> Self {
        Self {
            launch,
            reread: Arc::new(reread),
            words: Arc::default(),
        }
    }

    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(Launch::alone(), |_| Err("one process has nobody to hear a config from".into()))
    }

    /// The place.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Starts of all ranks after a failure, as the launcher counts them; 0 where it does not say.
    pub(in crate::trainer) fn restarts(&self) -> u64 {
        restarts(|key| std::env::var(key).ok())
    }

    /// Whether there are others.
    #[must_use]
    pub fn several(&self) -> bool {
        self.launch.world > 1
    }

    /// Leaves `why` to the other ranks as this one's last words, if it has met them: for a process that ends without its trainer.
    pub fn say(&self, why: &str) {
        if let Some(words) = self.words.get() {
            // The others then learn from their broken connections that this rank is gone, though not why.
            let _ = words.say(why);
        }
    }

    /// Tells the other ranks, who wait for this one, that it cannot start, and why: nothing where it has met them, or where there are none. Waits a while
    /// for those that are still to come.
    pub fn decline(&self, why: &str) {
        if !self.several() || self.words.get().is_some() {
            return;
        }
        let seconds = DECLINE.as_secs();
        tracing::info!(
            rank = self.launch.rank,
            "telling the other ranks why this one cannot start, for at most {seconds} s"
        );
        let mut options = Options::new(self.launch.clone());
        options.join_timeout = DECLINE;
        options.greeting.refusal = Some(why.to_owned());
        // Nobody fits together with a rank that refuses: all learn of it in this way, and this one has told why it ends.
        let _ = Ranks::join(&options);
    }

    /// The device of this rank by its setting: where every rank is shown all devices of its host, each takes the one of its number there.
    ///
    /// # Errors
    /// More ranks on this host than devices.
    pub(in crate::trainer) fn device_setting(&self, setting: &str) -> Result<String, TrainError> {
        if !self.several() || !["auto", "cuda"].contains(&setting) {
            return Ok(setting.to_owned());
        }
        match torch_ext::load_cuda() {
            Ok(visible) if visible > 0 => Ok(format!("cuda:{}", self.launch.cuda_index(visible)?)),
            // Told by whoever opens the device.
            _ => Ok(setting.to_owned()),
        }
    }

    /// Which samples this process takes.
    pub(in crate::trainer) fn share(&self) -> Share {
        if !self.several() {
            return Share::WHOLE;
        }
        let number = |n: usize| u32::try_from(n).expect("ranks are fewer than images of a batch");
        Share {
            rank: number(self.launch.rank),
            world: number(self.launch.world),
            sharing: self.sharing(),
        }
    }

    /// Processes that share the processors of this host: those of the launcher's, unless it gave each its own, as SLURM does.
    pub(in crate::trainer) fn sharing(&self) -> usize {
        match self.launch.by {
            torch_ext::ranks::Launcher::Slurm => 1,
            _ => self.launch.local_world.unwrap_or(1).max(1),
        }
    }

    /// Waits for all ranks; `None` for one process.
    ///
    /// # Errors
    /// A batch or an objective that cannot be shared by so many ranks; ranks that do not come or do not fit together.
    pub(in crate::trainer) fn meet(&self, spec: &TrainerSpec, device: Device) -> Result<Option<Peers>, TrainError> {
        if !self.several() {
            return Ok(None);
        }
        check(spec, self.launch.world)?;
        let [join, step, control] = spec.ranks.timeouts();
        let mut options = Options::new(self.launch.clone());
        options.device = device;
        options.backend = spec.ranks.backend.into();
        (options.join_timeout, options.step_timeout, options.control_timeout) = (join, step, control);
        options.greeting = greeting(device, nvidia_models);
        tracing::info!(rank = self.launch.rank, world = self.launch.world, by = ?self.launch.by, "waiting for the other ranks");
        let ranks = Ranks::join(&options)?;
        let hosts: Vec<&str> = ranks.members().iter().map(|m| m.host.as_str()).collect();
        tracing::info!(rank = ranks.rank(), world = ranks.world(), ?hosts, "all ranks are there");
        // A process joins once.
        let _ = self.words.set(ranks.last_words());
        Ok(Some(Peers::new(ranks, Arc::clone(&self.reread))))
    }
}

/// How long a rank that cannot start waits for those that are to hear why.
const DECLINE: Duration = Duration::from_secs(30);

/// What all ranks must have alike before anything of the config is compared. GPUs of different models would train, each step as slow as the slowest, with
/// the rounding of each.
fn greeting(device: Device, models: impl FnOnce() -> Vec<String>) -> Greeting {
    let greeting = Greeting::default()
        .with("version", concat!(env!("CARGO_PKG_VERSION"), " (", env!("SPLITMASK_REVISION"), ")"))
        .with("libtorch", torch_ext::version());
    if !device.is_cuda() {
        return greeting.with("device", "cpu");
    }
    let mut models = models();
    models.sort();
    models.dedup();
    greeting.with("device", "cuda").with("GPU model", &models.join(" and "))
}

/// Of torchrun, else of SLURM's requeued job.
fn restarts(variable: impl Fn(&str) -> Option<String>) -> u64 {
    ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"]
        .iter()
        .find_map(|key| variable(key)?.parse().ok())
        .unwrap_or(0)
}

/// Refuses what several ranks cannot train, before anybody waits.
///
/// # Errors
/// [`TrainError::BadSetting`] naming the key.
fn check(spec: &TrainerSpec, world: usize) -> Result<(), TrainError> {
    let batch = spec.train.batch as usize;
    let parts = (spec.train.accumulate as usize).max(1);
    let wrong = |key: &str, value: String, detail: String, hint: &str| TrainError::BadSetting {
        key: key.into(),
        value,
        detail,
        hint: Some(hint.to_owned()),
    };
    if let Err(why) = spec.objective.over_ranks() {
        return Err(wrong(
            "objective.kind",
            format!("\"{}\"", spec.objective.kind().name),
            format!("several ranks ({world}) cannot train it, because {why}"),
            "start one process (WORLD_SIZE=1)",
        ));
    }
    if !batch.is_multiple_of(world * parts) {
        let worlds: Vec<String> = (1..=batch / parts)
            .filter(|w| batch.is_multiple_of(w * parts))
            .map(|w| w.to_string())
            .collect();
        let divisor = match parts {
            1 => format!("{world} ranks cannot share it equally"),
            _ => format!("{world} ranks cannot share it equally in train.accumulate = {parts} parts each"),
        };
        return Err(wrong(
            "train.batch",
            batch.to_string(),
            format!("the images of a step over all ranks; {divisor}"),
            &format!("these numbers of ranks can: {}", worlds.join(", ")),
        ));
    }
    let stripes = spec.data.stripes as usize;
    if stripes > 1 && !stripes.is_multiple_of(world) {
        let worlds: Vec<String> = (1..=stripes)
            .filter(|w| stripes.is_multiple_of(*w) && batch.is_multiple_of(w * parts))
            .map(|w| w.to_string())
            .collect();
        return Err(wrong(
            "data.stripes",
            stripes.to_string(),
            format!("the parts of an epoch, of which each rank reads its own; {world} ranks cannot share them equally"),
            &format!("these numbers of ranks can: {}", worlds.join(", ")),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{OBJECTIVES, ObjectiveConfig};

    fn refused(kind: &str, batch: u32, accumulate: u32, world: usize) -> Option<String> {
        let objective = ObjectiveConfig::default_of(crate::objective::kind(kind).unwrap());
        let mut spec = crate::trainer::step::pass::tests::spec(objective);
        (spec.train.batch, spec.train.accumulate) = (batch, accumulate);
        check(&spec, world).err().map(|e| format!("{e}; {}", e.hint().unwrap_or_default()))
    }

    #[test]
    fn ranks_that_do_not_divide_the_stripes_are_refused_by_name() {
        let objective = ObjectiveConfig::default_of(crate::objective::kind("mae").unwrap());
        let mut spec = crate::trainer::step::pass::tests::spec(objective);
        (spec.train.batch, spec.train.accumulate, spec.data.stripes) = (24, 1, 4);
        assert!(check(&spec, 2).is_ok() && check(&spec, 4).is_ok());
        let error = check(&spec, 3).unwrap_err();
        let text = format!("{error}; {}", error.hint().unwrap_or_default());
        assert!(text.starts_with("data.stripes = 4") && text.ends_with("can: 1, 2, 4"), "{text}");
    }

    #[test]
    fn ranks_tell_the_models_of_their_gpus() {
        let model = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            greeting(Device::Cuda(0), || names).alike["GPU model"].clone()
        };
        assert_eq!(model(&["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"]), "NVIDIA H100 80GB HBM3");
        assert_ne!(model(&["NVIDIA H100 80GB HBM3"]), model(&["NVIDIA A100-SXM4-80GB"]));
        assert_eq!(model(&["B", "A", "B"]), "A and B");
        let cpu = greeting(Device::Cpu, || unreachable!("a rank on the CPU asks for no GPU"));
        assert!(!cpu.alike.contains_key("GPU model") && cpu.alike["device"] == "cpu");
    }

    #[test]
    fn launchers_tell_how_often_they_began_anew() {
        let of = |key: &'static str, value: &'static str| restarts(move |asked| (asked == key).then(|| value.into()));
        assert_eq!(of("TORCHELASTIC_RESTART_COUNT", "3"), 3);
        assert_eq!(of("SLURM_RESTART_COUNT", "2"), 2);
        assert_eq!(of("SLURM_RESTART_COUNT", "many"), 0);
        assert_eq!(of("RANK", "1"), 0);
    }

    #[test]
    fn what_several_ranks_cannot_train_is_refused_by_name() {
        assert_eq!(refused("splitmask", 12, 1, 3), None);
        assert_eq!(refused("mae", 12, 2, 3), None);
        let error = refused("beit", 12, 2, 4).unwrap();
        assert!(
            error.starts_with("train.batch = 12") && error.ends_with("can: 1, 2, 3, 6"),
            "{error}"
        );
        for kind in OBJECTIVES {
            let told = refused(kind.name, 12, 1, 2);
            match kind.name {
                "detect" => assert!(told.unwrap().starts_with("objective.kind = \"detect\": several ranks (2)")),
                name => assert_eq!(told, None, "{name}"),
            }
        }
    }
}
