//! One `precision` key: masters are f32, matrix products run in bf16 where the device does that faster.

use crate::{Device, Kind, device};

/// The precision a user asks for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 on CUDA (Ampere and later) and on CPUs with AVX512-BF16 or AMX; fp32 elsewhere.
    #[default]
    Auto,
    /// f32 throughout.
    Fp32,
    /// bf16 matrix products and attention; norms, softmax, losses and master weights in f32.
    Bf16,
}

impl std::str::FromStr for Precision {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "fp32" | "f32" | "float32" => Ok(Self::Fp32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err(format!("unknown precision `{s}`: expected auto, fp32 or bf16")),
        }
    }
}

/// The resolved compute dtype of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// f32.
    F32,
    /// bf16 with f32 masters.
    Bf16,
}

impl Precision {
    /// What `Auto` means on this device.
    pub fn resolve(self, on: Device) -> Compute {
        match self {
            Precision::Fp32 => Compute::F32,
            Precision::Bf16 => Compute::Bf16,
            Precision::Auto if device::fast_bf16(on) => Compute::Bf16,
            Precision::Auto => Compute::F32,
        }
    }
}

impl Compute {
    /// The dtype of activations that enter a matrix product.
    pub fn kind(self) -> Kind {
        match self {
            Compute::F32 => Kind::Float,
            Compute::Bf16 => Kind::BFloat16,
        }
    }
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compute::F32 => "fp32",
            Compute::Bf16 => "bf16",
        })
    }
}
