//! `splitmask doctor`: what this machine offers, and what to do about each gap.

use clap::Args;
use torch_ext::ranks::{Backend, Ranks};

use crate::cli::answer::say;
use crate::cli::installation::installation;
use crate::exit::CliError;
use crate::tensor::multiplies_bf16;

/// Say what was found: libtorch, processor, CUDA or why not, threads, memory, tools; with advice on each gap.
#[derive(Args)]
pub(crate) struct DoctorArgs {}

/// One finding: what, its state, and what to do if it is a gap.
struct Finding {
    what: &'static str,
    state: String,
    advice: Option<String>,
}

pub(crate) fn run(_: DoctorArgs) -> Result<(), CliError> {
    let mut findings = vec![libtorch(), processor(), cuda(), threads(), memory(), disk()];
    findings.extend(nccl());
    // Who installed a package runs none of our tests.
    if installation().is_none() {
        findings.push(tool("prometheus", "the dashboards' tests"));
        findings.push(tool("promtool", "the alerts' tests"));
    }
    for finding in findings {
        let mark = if finding.advice.is_none() { "ok " } else { "gap" };
        say!("{mark}  {:<11} {}", finding.what, finding.state);
        if let Some(advice) = finding.advice {
            say!("     {:<11} → {advice}", "");
        }
    }
    Ok(())
}

fn libtorch() -> Finding {
    let found = torch_ext::version();
    let place = torch_ext::library_path().map_or_else(String::new, |p| format!(", {}", p.display()));
    let fits = found.starts_with("2.11");
    Finding {
        what: "libtorch",
        state: format!("{found}{place}"),
        advice: (!fits)
            .then(|| "this build is checked against libtorch 2.11.0: run `make setup`, or point LIBTORCH at one and build again".into()),
    }
}

fn processor() -> Finding {
    let name = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = name
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |l| l.trim_start_matches([' ', '\t', ':']));
    #[cfg(target_arch = "x86_64")]
    let features: Vec<&str> = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512-vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512-bf16", std::is_x86_feature_detected!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    let features: Vec<&str> = Vec::new();
    let advice = if features.is_empty() {
        Some("without AVX2 decoding and visual words take portable code and are several times slower".into())
    } else if !multiplies_bf16(tch::Device::Cpu) {
        Some("no bf16 instructions: train.precision = \"f32\" (or \"auto\", which chooses) is many times faster on this processor".into())
    } else {
        None
    };
    Finding {
        what: "processor",
        state: format!("{name} ({})", features.join(", ")),
        advice,
    }
}

fn cuda() -> Finding {
    match torch_ext::load_cuda() {
        Ok(devices) if devices > 0 => Finding {
            what: "CUDA",
            state: (0..devices).map(device).collect::<Vec<_>>().join("; "),
            advice: None,
        },
        Ok(_) => Finding {
            what: "CUDA",
            state: "libtorch_cuda is loaded, but no device answers".into(),
            advice: Some("check `nvidia-smi`; training uses the CPU".into()),
        },
        Err(e) => Finding {
            what: "CUDA",
            state: "off: training uses the CPU".into(),
            advice: Some(e.to_string()),
        },
    }
}

/// A device in words.
fn device(index: usize) -> String {
    torch_ext::cuda_device(index).map_or_else(
        || format!("cuda:{index}, of which the driver tells nothing"),
        |device| {
            let memory = device.memory as f64 / f64::from(1 << 30);
            format!("cuda:{index} {} ({memory:.0} GiB, {})", device.name, device.pci_address)
        },
    )
}

/// Whether several ranks could share this machine's GPUs; nothing without one.
fn nccl() -> Option<Finding> {
    if torch_ext::load_cuda().ok()? == 0 {
        return None;
    }
    let tried = Ranks::rehearse(tch::Device::Cuda(0), Backend::Nccl);
    Some(match tried {
        Ok(taken) => Finding {
            what: "NCCL",
            state: format!("a group of one rank sums 4 MB on cuda:0 in {:.2} ms", 1e3 * taken.as_secs_f64()),
            advice: None,
        },
        Err(e) => Finding {
            what: "NCCL",
            state: "off: several ranks on GPUs would take gloo, through the host's memory".into(),
            advice: Some(e.to_string()),
        },
    })
}

fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let set = std::env::var("OMP_NUM_THREADS").ok();
    let state = format!("{cores} core(s); libtorch would use {}", tch::get_num_threads());
    let advice = set.map(|n| format!("OMP_NUM_THREADS={n} is set; train.threads overrules it"));
    Finding {
        what: "threads",
        state,
        advice,
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().ok())
            .map_or(0.0, |kb| kb / 1_048_576.0)
    };
    let available = gib("MemAvailable");
    Finding {
        what: "memory",
        state: format!("{available:.1} GiB free of {:.1} GiB", gib("MemTotal")),
        advice: (available < 2.0)
            .then(|| "the demo takes up to 2 GiB: close something, or lower data.shuffle_window and pipeline.queue_mib".into()),
    }
}

fn disk() -> Finding {
    match rustix::fs::statvfs(".") {
        Ok(disk) => {
            let gib = disk.f_bavail as f64 * disk.f_frsize as f64 / (1u64 << 30) as f64;
            Finding {
                what: "disk",
                state: format!("{gib:.1} GiB free here"),
                advice: (gib < 5.0).then(|| "a build and the demo need about 5 GiB".into()),
            }
        }
        Err(e) => Finding {
            what: "disk",
            state: format!("unknown ({e})"),
            advice: None,
        },
    }
}

fn tool(name: &'static str, used_for: &str) -> Finding {
    let found = std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|p| p.join(name).is_file()));
    Finding {
        what: name,
        state: if found { "found".into() } else { "not found".into() },
        advice: (!found).then(|| format!("needed for {used_for} only: `make setup`, or apt-get install prometheus")),
    }
}
