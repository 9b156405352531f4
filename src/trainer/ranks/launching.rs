//! How a trainer comes to the other ranks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tch::Device;
use torch_ext::ranks::{Greeting, LastWords, Launch, Options, Ranks};

use super::config::RanksBackend;
use super::peers::{Peers, Reread};
use super::processors;
use crate::trainer::error::TrainError;
use crate::trainer::feed::Share;
use crate::trainer::gpu::{Gpu, gpu};
use crate::trainer::spec::TrainerSpec;

/// This process's place among the ranks, and what a trainer needs to take it.
#[derive(Clone)]
pub struct Launching {
    launch: Launch,
    reread: Arc<Reread>,
    met: Arc<OnceLock<Met>>,
}

/// What a process knows of the others once it has met them.
struct Met {
    words: LastWords,
    /// Ranks that may use the same processors, this one among them.
    sharing: usize,
}

impl Launching {
    /// For a process that its launcher gave the place `launch`.
    pub fn new(launch: Launch, reread: impl Fn(&str) -> Result<TrainerSpec, String> + Send + Sync + 'static) -> Self {
        Self {
            launch,
            reread: Arc::new(reread),
            met: Arc::default(),
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
        if let Some(met) = self.met.get() {
            // The others then learn from their broken connections that this rank is gone, though not why.
            let _ = met.words.say(why);
        }
    }

    /// Tells the other ranks, who wait for this one, that it cannot start, and why: nothing where it has met them, or where there are none. Waits a while
    /// for those that are still to come, and not longer than `go_on` answers true.
    pub fn decline(&self, why: &str, go_on: &dyn Fn() -> bool) {
        if !self.several() || self.met.get().is_some() {
            return;
        }
        let seconds = DECLINE.as_secs();
        tracing::error!(
            rank = self.launch.rank,
            "this rank cannot start: {why}. The other ranks are told, for {seconds} s or until a signal to stop"
        );
        let mut options = Options::new(self.launch.clone());
        options.join_timeout = DECLINE;
        options.greeting.refusal = Some(why.to_owned());
        // Nobody fits together with a rank that refuses: all learn of it in this way, and this one has told why it ends.
        let _ = Ranks::join_while(&options, go_on);
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

    /// Processes among which the processors that this one may use are divided; known when the ranks have met.
    pub(in crate::trainer) fn sharing(&self) -> usize {
        self.met.get().map_or(1, |met| met.sharing)
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
        options.greeting = greeting(device, spec.ranks.backend, gpu);
        tracing::info!(rank = self.launch.rank, world = self.launch.world, by = ?self.launch.by, "waiting for the other ranks");
        let ranks = Ranks::join(&options)?;
        let hosts: Vec<&str> = ranks.members().iter().map(|m| m.host.as_str()).collect();
        let lists = ranks.gather_bytes(processors::own().as_bytes())?;
        let most = self.launch.local_world.unwrap_or(self.launch.world);
        let sharing = processors::sharing(&hosts, &lists, ranks.rank()).min(most).max(1);
        tracing::info!(rank = ranks.rank(), world = ranks.world(), ?hosts, sharing, "all ranks are there");
        let words = ranks.last_words();
        // A process joins once.
        let _ = self.met.set(Met { words, sharing });
        Ok(Some(Peers::new(ranks, Arc::clone(&self.reread))))
    }
}

/// How long a rank that cannot start waits for those that are to hear why.
const DECLINE: Duration = Duration::from_secs(30);

/// What all ranks must have alike before anything of the config is compared, and what none may share. GPUs of different models would train, each step as
/// slow as the slowest, with the rounding of each; two ranks on one GPU are what NCCL refuses in its own words, and gloo does not.
fn greeting(device: Device, backend: RanksBackend, gpu: impl FnOnce(usize) -> Option<Gpu>) -> Greeting {
    let greeting = Greeting::default()
        .with("version", concat!(env!("CARGO_PKG_VERSION"), " (", env!("SPLITMASK_REVISION"), ")"))
        .with("libtorch", torch_ext::version());
    let Device::Cuda(index) = device else {
        return greeting.with("device", "cpu");
    };
    let greeting = greeting.with("device", "cuda");
    match gpu(index) {
        None => greeting,
        Some(Gpu { model, uuid }) => Greeting {
            device_id: uuid.filter(|_| backend != RanksBackend::Gloo),
            ..greeting.with("GPU model", &model)
        },
    }
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
    use splitmask_pipeline::request::SampleRequest;
    use tch::nn::Path;

    use super::*;
    use crate::objective::{Kind, OBJECTIVES, Objective, ObjectiveConfig, Plan, Scope};
    use crate::setting::Violation;

    fn refused(kind: &str, batch: u32, accumulate: u32, world: usize) -> Option<String> {
        let objective = ObjectiveConfig::default_of(crate::objective::kind(kind).unwrap());
        refused_plan(objective, batch, accumulate, world)
    }

    fn refused_plan(objective: ObjectiveConfig, batch: u32, accumulate: u32, world: usize) -> Option<String> {
        let mut spec = crate::trainer::step::pass::tests::spec(objective);
        (spec.train.batch, spec.train.accumulate) = (batch, accumulate);
        check(&spec, world).err().map(|e| format!("{e}; {}", e.hint().unwrap_or_default()))
    }

    /// MAE, whose author has not said that it is the same on several ranks.
    #[derive(Debug)]
    struct Unshown(ObjectiveConfig);

    impl Plan for Unshown {
        fn kind(&self) -> &'static Kind {
            self.0.kind()
        }

        fn table(&self) -> toml::Table {
            self.0.table()
        }

        fn check(&self, at: &Scope<'_>) -> Vec<Violation> {
            self.0.check(at)
        }

        fn request(&self, at: &Scope<'_>) -> SampleRequest {
            self.0.request(at)
        }

        fn build(&self, vs: &Path<'_>, at: &Scope<'_>) -> Box<dyn Objective> {
            self.0.build(vs, at)
        }

        fn forward_flops(&self, at: &Scope<'_>) -> f64 {
            self.0.forward_flops(at)
        }
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
    fn a_rank_tells_its_own_gpu_which_no_other_may_have_by_nccl() {
        let of = |backend, index| {
            greeting(Device::Cuda(index), backend, |index| {
                Some(Gpu {
                    model: ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"][index].into(),
                    uuid: Some(format!("GPU-{index}")),
                })
            })
        };
        let [first, second] = [0, 1].map(|index| of(RanksBackend::Auto, index));
        assert_eq!(first.alike["GPU model"], "NVIDIA H100 80GB HBM3");
        assert_eq!(second.alike["GPU model"], "NVIDIA A100-SXM4-80GB");
        assert_eq!(second.device_id.as_deref(), Some("GPU-1"));
        assert!(of(RanksBackend::Nccl, 0).device_id.is_some() && of(RanksBackend::Gloo, 0).device_id.is_none());
        let untold = greeting(Device::Cuda(0), RanksBackend::Auto, |_| None);
        assert!(untold.alike["device"] == "cuda" && !untold.alike.contains_key("GPU model") && untold.device_id.is_none());
        let cpu = greeting(Device::Cpu, RanksBackend::Auto, |_| {
            unreachable!("a rank on the CPU asks for no GPU")
        });
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
            assert_eq!(refused(kind.name, 12, 1, 2), None, "{}", kind.name);
        }
        let unshown = Unshown(ObjectiveConfig::default_of(crate::objective::kind("mae").unwrap()));
        let error = refused_plan(unshown.into(), 12, 1, 2).unwrap();
        assert!(error.starts_with("objective.kind = \"mae\": several ranks (2)"), "{error}");
    }
}
