//! `ragduet doctor`: what there is, what is missing, how to mend it.

use crate::common;
use anyhow::Result;
use ragduet_torch::{Compute, Device, Precision, device};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    ragduet: &'static str,
    libtorch: Option<PathBuf>,
    libtorch_version: Option<String>,
    cuda_in_libtorch: bool,
    cuda_devices: i64,
    cpu: String,
    cpu_capability: String,
    bf16_on_cpu: bool,
    default_device: String,
    default_precision: String,
    threads: i32,
    cores: usize,
    memory_total_gib: f64,
    memory_available_gib: f64,
    hub_cache: PathBuf,
    hub_offline: bool,
    hub_token: bool,
    advice: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let r = examine();
        if self.json {
            return common::print_json(&r);
        }
        let libtorch = r
            .libtorch
            .as_ref()
            .map_or("not found among this process's libraries".into(), |p| p.display().to_string());
        let rows = [
            ("ragduet", r.ragduet.to_string()),
            (
                "libtorch",
                format!("{} ({libtorch})", r.libtorch_version.as_deref().unwrap_or("version unknown")),
            ),
            (
                "CUDA",
                format!(
                    "{}, {} device(s)",
                    if r.cuda_in_libtorch { "in this libtorch" } else { "not in this libtorch" },
                    r.cuda_devices
                ),
            ),
            (
                "CPU",
                format!(
                    "{} ({}; bf16 {})",
                    r.cpu,
                    r.cpu_capability,
                    if r.bf16_on_cpu { "fast" } else { "not accelerated" }
                ),
            ),
            ("threads", format!("{} of {} cores", r.threads, r.cores)),
            ("memory", format!("{:.1} of {:.1} GiB free", r.memory_available_gib, r.memory_total_gib)),
            ("by default", format!("{}, {}", r.default_device, r.default_precision)),
            (
                "hub cache",
                format!(
                    "{}{}{}",
                    r.hub_cache.display(),
                    if r.hub_offline { ", offline" } else { "" },
                    if r.hub_token { ", token set" } else { "" }
                ),
            ),
        ];
        for (name, value) in rows {
            println!("{name:<11} {value}");
        }
        for line in &r.advice {
            println!("! {line}");
        }
        if r.advice.is_empty() {
            println!("nothing is missing");
        }
        Ok(())
    }
}

fn examine() -> Report {
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap_or_default();
    let loaded = |name: &str| {
        maps.lines()
            .filter_map(|l| l.split_whitespace().last())
            .find(|p| p.ends_with(name))
            .map(PathBuf::from)
    };
    let libtorch = loaded("/libtorch_cpu.so").and_then(|p| Some(p.parent()?.to_path_buf()));
    let cuda_in_libtorch = loaded("/libtorch_cuda.so").is_some();
    let version = libtorch.as_ref().and_then(|lib| {
        let text = fs_err::read_to_string(lib.parent()?.join("version.py")).ok()?;
        let line = text.lines().find(|l| l.starts_with("__version__"))?;
        line.split('\'').nth(1).map(str::to_string)
    });
    let cpuinfo = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split(':').nth(1));
    let memory = device::memory(Device::Cpu).unwrap_or_default();
    let gib = |b: Option<u64>| b.unwrap_or(0) as f64 / (1u64 << 30) as f64;
    let devices = tch::Cuda::device_count();
    let default_device = Device::cuda_if_available();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let env_is = |k: &str| std::env::var_os(k).is_some();

    let mut advice = Vec::new();
    if version.as_ref().is_some_and(|v| !v.starts_with("2.11.")) {
        advice.push("this binary was made for libtorch 2.11; run scripts/setup and build again".to_string());
    }
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    if driver && devices == 0 && !cuda_in_libtorch {
        advice.push("there is an NVIDIA driver, but this libtorch has no CUDA: delete .venv, run RAGDUET_TORCH=cuda scripts/setup and build again".into());
    } else if driver && devices == 0 {
        advice.push("there is an NVIDIA driver, but CUDA finds no device: the driver may be older than this libtorch's CUDA, or CUDA_VISIBLE_DEVICES hides the devices".into());
    }
    if gib(memory.free) < 4.0 {
        advice.push("less than 4 GiB of memory are free: use small batches and gradient caching".into());
    }
    let caps = device::cpu_capabilities();
    Report {
        ragduet: env!("CARGO_PKG_VERSION"),
        libtorch,
        libtorch_version: version,
        cuda_in_libtorch,
        cuda_devices: devices,
        cpu: cpu.unwrap_or("unknown").trim().to_string(),
        cpu_capability: caps.get("capability").cloned().unwrap_or_default(),
        bf16_on_cpu: device::fast_bf16(Device::Cpu),
        default_device: format!("{default_device:?}").to_lowercase(),
        default_precision: match Precision::Auto.resolve(default_device) {
            Compute::Bf16 => "bf16 compute with fp32 masters".into(),
            Compute::F32 => "fp32".into(),
        },
        threads: tch::get_num_threads(),
        cores,
        memory_total_gib: gib(memory.total),
        memory_available_gib: gib(memory.free),
        hub_cache: ragduet_nn::hub::cache_dir(),
        hub_offline: ragduet_nn::hub::offline(),
        hub_token: env_is("HF_TOKEN") || env_is("HUGGING_FACE_HUB_TOKEN"),
        advice,
    }
}
