//! Devices: choosing one, what it can do, its memory.
//!
//! [`use_caching_allocator`] keeps freed CPU tensors of 256 KiB and more for the next of their size, on huge pages: a
//! step allocates the same large tensors again and again, and glibc either faults their pages in anew or fragments.
//! What is kept is bounded by the peak and a quarter; `RAGDUET_ALLOCATOR=system` switches it off
//! (`csrc/allocator.cpp`).
//!
//! [`exit_now`] ends the process without libtorch's destructors: a thread that still computes (an index refresh of a
//! run that was stopped) would crash in what they have freed.

use crate::{Device, Error, Result, ffi};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::OnceLock;

/// `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
pub fn parse(name: &str) -> Result<Device> {
    let fail = |reason: String| Err(Error::Device { wanted: name.to_string(), reason });
    let index = match name {
        "auto" => return Ok(Device::cuda_if_available()),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => match name.strip_prefix("cuda:").map(str::parse::<usize>) {
            Some(Ok(i)) => i,
            _ => return fail("expected auto, cpu, cuda or cuda:N".into()),
        },
    };
    let count = tch::Cuda::device_count();
    if (index as i64) < count {
        Ok(Device::Cuda(index))
    } else {
        fail(format!(
            "libtorch sees {count} CUDA device(s); `ragduet doctor` says why, `--device cpu` works everywhere"
        ))
    }
}

/// What holds for every CUDA device, set before its first tensor: attention without cuDNN, which plans anew for each
/// shape (each token of an answer) and whose gradients can be NaN under a mask (pytorch#196678).
pub fn set_up(device: Device) {
    if matches!(device, Device::Cuda(_)) {
        // SAFETY: sets a flag of libtorch's context.
        unsafe { ffi::rd_attention_without_cudnn() }
    }
}

/// ATen's view of this CPU: instruction sets by name.
pub fn cpu_capabilities() -> &'static BTreeMap<String, String> {
    static CAPS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    CAPS.get_or_init(|| {
        // SAFETY: the shim returns a NUL-terminated string from strdup, freed right after it is copied.
        let text = unsafe {
            let p = ffi::rd_cpu_capabilities();
            let text = CStr::from_ptr(p).to_string_lossy().into_owned();
            ffi::rd_free_string(p);
            text
        };
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_string(), v.to_string())).collect()
    })
}

/// Whether bf16 matrix products are faster than f32 here.
pub fn fast_bf16(device: Device) -> bool {
    match device {
        // Every CUDA device that this libtorch supports has bf16 arithmetic from Ampere on; older ones emulate it.
        Device::Cuda(_) => true,
        Device::Cpu => {
            let caps = cpu_capabilities();
            ["avx512_bf16", "amx_bf16"].iter().any(|c| caps.get(*c).is_some_and(|v| v == "1"))
        }
        _ => false,
    }
}

/// How many threads libtorch's CPU kernels use, from this thread. Worth lowering where many threads compute at once.
pub fn set_threads(n: usize) {
    tch::set_num_threads(i32::try_from(n.max(1)).unwrap_or(i32::MAX));
}

/// How many threads libtorch computes with; sums are split by it.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Makes tensors on the CPU use a caching allocator (`csrc/allocator.cpp`): a quarter less time per step, and memory
/// that does not fragment. For `main`, before the first tensor; `RAGDUET_ALLOCATOR=system` turns it off.
pub fn use_caching_allocator() {
    // SAFETY: no arguments; installs once, and tensors made before keep the deleter they were made with.
    unsafe { ffi::rd_install_allocator() }
}

/// Bytes of large CPU tensors, as the caching allocator counts them.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct TensorMemory {
    /// In use now.
    pub in_use: u64,
    /// The most in use at once since the start or [`reset_peak`].
    pub peak: u64,
    /// Freed and kept for the next tensor of that size.
    pub kept: u64,
}

/// What CPU tensors of 256 KiB and more take; `None` without [`use_caching_allocator`].
pub fn cpu_tensor_memory() -> Option<TensorMemory> {
    let mut out = [-1i64; 3];
    // SAFETY: `out` has room for the three figures the shim writes.
    unsafe { ffi::rd_cpu_memory(out.as_mut_ptr()) };
    let [in_use, peak, kept] = out.map(|n| u64::try_from(n).ok());
    Some(TensorMemory { in_use: in_use?, peak: peak?, kept: kept? })
}

/// Device memory in bytes; `None` where the device does not say.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct DeviceMemory {
    /// Held by tensors now.
    pub allocated: Option<u64>,
    /// The most held by tensors since the start or [`reset_peak`].
    pub peak: Option<u64>,
    /// Held by the caching allocator.
    pub reserved: Option<u64>,
    /// Free on the device.
    pub free: Option<u64>,
    /// The device's total.
    pub total: Option<u64>,
}

/// Memory of a CUDA device, or of this process (peak resident set, and the machine's total) on the CPU.
pub fn memory(device: Device) -> Result<DeviceMemory> {
    let Device::Cuda(index) = device else { return Ok(host_memory()) };
    let mut out = [-1i64; 5];
    // SAFETY: `out` has room for the five figures the shim writes.
    ffi::check(unsafe { ffi::rd_cuda_memory(index as i32, out.as_mut_ptr()) })?;
    let get = |i: usize| u64::try_from(out[i]).ok();
    Ok(DeviceMemory { allocated: get(0), peak: get(1), reserved: get(2), free: get(3), total: get(4) })
}

/// Gives the CUDA allocator's unused blocks back (no effect on the CPU, whose allocator keeps little beyond the peak).
pub fn empty_cache(device: Device) -> Result<()> {
    match device {
        // SAFETY: no arguments; needs a CUDA allocator, which a CUDA device implies.
        Device::Cuda(_) => ffi::check(unsafe { ffi::rd_cuda_empty_cache() }),
        _ => Ok(()),
    }
}

/// Starts the peak figure anew (on the CPU that of [`cpu_tensor_memory`]).
pub fn reset_peak(device: Device) -> Result<()> {
    match device {
        // SAFETY: plain integer argument.
        Device::Cuda(i) => ffi::check(unsafe { ffi::rd_cuda_reset_peak(i as i32) }),
        _ => {
            // SAFETY: no arguments.
            unsafe { ffi::rd_cpu_reset_peak() };
            Ok(())
        }
    }
}

/// Ends the process at once, whatever its threads are doing. [`std::process::exit`] runs libtorch's destructors, and a
/// thread that still computes then reads what they have freed: a segmentation fault instead of an exit code.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { ffi::_exit(code) }
}

fn host_memory() -> DeviceMemory {
    let field = |text: &str, key: &str| -> Option<u64> {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let info = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    DeviceMemory {
        allocated: field(&status, "VmRSS:"),
        peak: field(&status, "VmHWM:"),
        reserved: None,
        free: field(&info, "MemAvailable:"),
        total: field(&info, "MemTotal:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
        assert!(parse("tpu").unwrap_err().to_string().contains("expected auto"));
        let many = parse("cuda:4096").unwrap_err().to_string();
        assert!(many.contains("doctor"), "{many}");
    }

    #[test]
    fn a_model_on_cuda_attends_without_cudnn() {
        // SAFETY: reads a flag.
        let cudnn = || unsafe { ffi::rd_attention_may_use_cudnn() } != 0;
        set_up(Device::Cpu);
        assert!(cudnn(), "libtorch's default");
        let _ = crate::ParamBuilder::fresh(Device::Cuda(0));
        assert!(!cudnn());
    }

    #[test]
    fn the_caching_allocator_reuses_blocks_and_keeps_little_beyond_the_peak() {
        use_caching_allocator();
        let tensor = |n: i64| tch::Tensor::zeros([n], (tch::Kind::Float, Device::Cpu));
        let bytes = |n: i64| (n * 4) as u64;
        let n = 3_000_000;
        let first = tensor(n);
        let (at, before) = (first.data_ptr(), cpu_tensor_memory().unwrap());
        assert!(before.in_use >= bytes(n) && before.peak >= before.in_use);
        drop(first);
        assert!(cpu_tensor_memory().unwrap().kept >= bytes(n));
        // A little smaller: the same class, the same block, and what is written in it is right.
        let again = tensor(n - 1000);
        assert_eq!(again.data_ptr(), at);
        assert_eq!(f64::try_from(again.sum(tch::Kind::Double)).unwrap(), 0.0);
        // Many sizes, one after another: what is kept does not pass the most that was in use and a quarter.
        for i in 0..40 {
            drop(tensor(n + i * 700_000));
            let m = cpu_tensor_memory().unwrap();
            assert!(m.kept <= (m.peak + m.in_use) * 5 / 4, "{m:?}");
        }
        // From several threads at once.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..50i64 {
                        let t = tensor(100_000 + i * 9_000) + 1.0;
                        let sum = f64::try_from(t.sum(tch::Kind::Double)).unwrap();
                        assert_eq!(sum, (100_000 + i * 9_000) as f64);
                    }
                });
            }
        });
    }

    #[test]
    fn host_memory_is_known_on_linux() {
        let m = memory(Device::Cpu).unwrap();
        assert!(m.peak.unwrap() >= m.allocated.unwrap() / 2 && m.total.unwrap() > 0);
        assert!(cpu_capabilities().contains_key("capability"));
    }
}
