//! Generator state: seeding, saving and restoring, so that a resumed run draws the same dropout masks and a
//! recomputed segment repeats its own.

use crate::ffi;
use crate::{Device, Result, Tensor};

/// The states of the CPU generator and, on CUDA, of that device's.
#[derive(Debug)]
pub struct RngState {
    cpu: Tensor,
    cuda: Option<(usize, Tensor)>,
}

impl RngState {
    /// The current state of the generators that work on `device` draws from.
    pub fn get(device: Device) -> Result<Self> {
        let cuda = match device {
            Device::Cuda(i) => Some((i, get(i as i32)?)),
            _ => None,
        };
        Ok(Self { cpu: get(-1)?, cuda })
    }

    /// Restores the state.
    pub fn set(&self) -> Result<()> {
        set(-1, &self.cpu)?;
        if let Some((i, state)) = &self.cuda {
            set(*i as i32, state)?;
        }
        Ok(())
    }

    /// The state as named byte tensors, for a checkpoint.
    pub fn to_named(&self) -> Vec<(String, Tensor)> {
        let mut out = vec![("rng.cpu".to_string(), self.cpu.shallow_clone())];
        if let Some((_, state)) = &self.cuda {
            out.push(("rng.cuda".to_string(), state.shallow_clone()));
        }
        out
    }

    /// The inverse of [`RngState::to_named`]. A state saved on another kind of device restores what it can.
    pub fn from_named(get: impl Fn(&str) -> Option<Tensor>, device: Device) -> Option<Self> {
        let cuda = match device {
            Device::Cuda(i) => get("rng.cuda").map(|s| (i, s)),
            _ => None,
        };
        Some(Self { cpu: get("rng.cpu")?, cuda })
    }
}

/// Seeds all generators.
pub fn seed(seed: u64) {
    tch::manual_seed(seed as i64);
    if tch::Cuda::is_available() {
        tch::Cuda::manual_seed_all(seed);
    }
}

fn get(index: i32) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: `out` is a valid place for one pointer; it is adopted only on success.
    ffi::check(unsafe { ffi::rd_rng_get_state(index, &mut out) })?;
    Ok(ffi::adopt(out))
}

fn set(index: i32, state: &Tensor) -> Result<()> {
    // SAFETY: the handle is valid for the duration of the call.
    ffi::check(unsafe { ffi::rd_rng_set_state(index, ffi::handle(state)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn restored_state_repeats_the_draws() {
        seed(3);
        let _ = Tensor::rand([7], (Kind::Float, Device::Cpu));
        let state = RngState::get(Device::Cpu).unwrap();
        let a = Tensor::randn([33], (Kind::Float, Device::Cpu)).dropout(0.5, true);
        state.set().unwrap();
        let b = Tensor::randn([33], (Kind::Float, Device::Cpu)).dropout(0.5, true);
        let c = Tensor::randn([33], (Kind::Float, Device::Cpu)).dropout(0.5, true);
        assert!(a.equal(&b));
        assert!(!a.equal(&c));
    }
}
