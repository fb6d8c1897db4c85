//! Everything that tames tch: parameters and strict weight loading, precision, gradients, optimiser state,
//! generator state, device memory, and kernels that ATen has but tch does not bind (or that neither has).
//!
//! The only crate of the workspace with `unsafe` and C++ (`csrc/`). Grad mode is always changed through
//! [`no_grad`], which restores it on unwind; tch's closure form does not.
//!
//! tch's optimizers and `VarStore` are not used: [`ParamStore`], [`optim`] (ATen's fused AdamW through the shim) and
//! [`weights`] replace them, for strict loading, state by name and exact resume.

pub mod device;
mod error;
mod ffi;
pub mod grad;
mod guard;
pub mod loss;
pub mod ops;
pub mod optim;
pub mod params;
pub mod precision;
pub mod quant;
pub mod rng;
pub mod weights;

pub use error::{Error, Result, is_oom};
pub use guard::catch;
pub use params::{FrozenWeights, Init, LoadReport, Matrix, Param, ParamBuilder, ParamStore};
pub use precision::{Compute, Precision};
pub use quant::{Bits, Quantised, Quantize};
pub use tch::{Device, IndexOp, Kind, Tensor};

/// Turns gradient tracking off on this thread until the guard is dropped, also by a panic.
#[must_use = "gradients are on again as soon as the guard is dropped"]
pub fn no_grad() -> tch::NoGradGuard {
    tch::no_grad_guard()
}

/// Whether gradients are being tracked on this thread.
pub fn grad_enabled() -> bool {
    // SAFETY: reads a thread-local flag.
    unsafe { ffi::rd_grad_enabled() != 0 }
}
