//! Where and how models compute.

use crate::{Error, Result};
use ragduet_nn::hub;
use ragduet_torch::{Compute, Precision, Quantize, device};
use std::path::{Path, PathBuf};

/// The device of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number, from 0.
    Cuda(usize),
}

/// As configs and the command line write it.
impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// Device, precision and quantization of a model that is loaded. The default is `auto` for device and precision, and no
/// quantization.
///
/// ```no_run
/// use ragduet::{Device, Generator, LoadOptions, Precision, Quantize};
///
/// let on = LoadOptions::new().device(Device::Cuda(0)).precision(Precision::Bf16).quantize(Quantize::Nf4);
/// let generator = Generator::load_with("runs/reader/best", &on)?;
/// # Ok::<(), ragduet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    device: Device,
    precision: Precision,
    pub(crate) quantize: Quantize,
}

impl LoadOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Computes on this device.
    #[must_use]
    pub fn device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Matrix products in this precision. `auto`: bf16 where the device is faster with it.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Keeps the layers' weights in 8 or 4 bits: less memory, slower. For retrievers and generators.
    #[must_use]
    pub fn quantize(self, quantize: Quantize) -> Self {
        Self { quantize, ..self }
    }

    /// # Errors
    /// A device that is not there.
    pub(crate) fn resolve(&self) -> Result<(ragduet_torch::Device, Compute)> {
        let device = device::parse(&self.device.to_string())?;
        Ok((device, self.precision.resolve(device)))
    }
}

/// The folder of a model: `id` itself, or the hub's snapshot.
pub(crate) fn folder(id: &Path) -> Result<PathBuf> {
    if id.is_dir() { Ok(id.into()) } else { Ok(hub::resolve(&id.to_string_lossy())?) }
}

/// Says what did not load.
pub(crate) fn loading<T>(what: &'static str, id: &Path, load: impl FnOnce() -> Result<T>) -> Result<T> {
    load().map_err(|e| Error::Load { what, name: id.display().to_string(), cause: Box::new(e) })
}
