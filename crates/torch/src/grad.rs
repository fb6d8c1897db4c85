//! Gradients: backward with an incoming gradient, norms and clipping, and the replay of a forward pass that
//! gradient caching and recomputation share.

use crate::rng::RngState;
use crate::{Device, Error, Tensor, ffi, no_grad};

mod checkpoint;

pub use checkpoint::checkpoint;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Backward from `outputs`, each with its incoming gradient; gradients accumulate in the leaves.
pub fn backward(outputs: &[Tensor], grads: &[Tensor]) -> Result<()> {
    let (o, g) = (ffi::pointers(outputs), ffi::pointers(grads));
    // SAFETY: both lists hold `n` valid handles for the duration of the call.
    ffi::check(unsafe { ffi::rd_backward(o.as_ptr(), g.as_ptr(), o.len().min(g.len())) })
}

/// A forward pass made without a graph, which can be repeated with one, with the same random draws.
///
/// The vector-Jacobian product of `f` at its parameters: [`Replay::forward`] now, [`Replay::backward`] once the
/// gradient of the output is known. Memory between the two is the output alone. Used by gradient caching
/// (Gao et al., 2021, arXiv 2101.06983) and layer recomputation (Chen et al., 2016, arXiv 1604.06174).
#[derive(Debug)]
pub struct Replay {
    rng: RngState,
    device: Device,
}

impl Replay {
    /// Runs `f` without a graph and remembers the generator state it started from.
    pub fn forward<E: From<Error>>(
        device: Device,
        f: impl FnOnce() -> Result<Tensor, E>,
    ) -> Result<(Tensor, Self), E> {
        let rng = RngState::get(device)?;
        let _guard = no_grad();
        Ok((f()?.detach(), Self { rng, device }))
    }

    /// Runs `f` again with a graph and backpropagates `grad`, the gradient of the loss at its output. The
    /// generators are left as they were before the call.
    pub fn backward<E: From<Error>>(
        self,
        grad: &Tensor,
        f: impl FnOnce() -> Result<Tensor, E>,
    ) -> Result<(), E> {
        let after = RngState::get(self.device)?;
        self.rng.set()?;
        let out = f();
        after.set()?;
        Ok(backward(&[out?], &[grad.shallow_clone()])?)
    }
}

/// The 2-norm of all the gradients together. Waits for the device.
pub fn norm(grads: &[Tensor]) -> Result<f64> {
    let g = ffi::pointers(grads);
    let mut out = 0.0;
    // SAFETY: `g` holds valid handles; `out` is one f64.
    ffi::check(unsafe { ffi::rd_grad_norm(g.as_ptr(), g.len(), &mut out) })?;
    Ok(out)
}

/// Drops the gradients of `params`, as `zero_grad(set_to_none=True)`.
pub fn clear(params: &[Tensor]) -> Result<()> {
    let p = ffi::pointers(params);
    // SAFETY: `p` holds valid handles for the duration of the call.
    ffi::check(unsafe { ffi::rd_clear_grads(p.as_ptr(), p.len()) })
}

/// Multiplies every gradient by `factor`, in place.
pub fn scale(grads: &[Tensor], factor: f64) -> Result<()> {
    let g = ffi::pointers(grads);
    // SAFETY: `g` holds valid handles for the duration of the call.
    ffi::check(unsafe { ffi::rd_scale_grads(g.as_ptr(), g.len(), factor) })
}

/// Scales the gradients so that their common norm is at most `max_norm`; returns the norm before.
/// As `torch.nn.utils.clip_grad_norm_`: the factor is max_norm / (norm + 1e-6), at most 1.
pub fn clip_norm(grads: &[Tensor], max_norm: f64) -> Result<f64> {
    let total = norm(grads)?;
    let factor = max_norm / (total + 1e-6);
    if factor < 1.0 {
        scale(grads, factor)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn leaf(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn replay_gives_the_gradient_of_the_plain_pass_with_dropout() {
        crate::rng::seed(1);
        let w = leaf(&[8, 8]);
        let x = Tensor::randn([5, 8], (Kind::Float, Device::Cpu));
        let f = || Ok::<_, Error>(x.matmul(&w).dropout(0.3, true).tanh());
        let start = RngState::get(Device::Cpu).unwrap();
        let plain = f().unwrap();
        plain.square().sum(Kind::Float).backward();
        let want = w.grad().copy();
        let _ = w.grad().zero_();
        start.set().unwrap();
        let (out, replay) = Replay::forward(Device::Cpu, f).unwrap();
        assert!(out.equal(&plain.detach()) && !out.requires_grad());
        let _ = Tensor::rand([100], (Kind::Float, Device::Cpu));
        replay.backward(&(&out * 2.0), f).unwrap();
        assert!(w.grad().allclose(&want, 1e-6, 1e-7, false));
    }

    #[test]
    fn clipping_scales_to_the_norm() {
        let g = [Tensor::from_slice(&[3f32, 0.0]), Tensor::from_slice(&[4f32])];
        assert!((clip_norm(&g, 1.0).unwrap() - 5.0).abs() < 1e-6);
        assert!((norm(&g).unwrap() - 1.0).abs() < 1e-5);
        assert_eq!(norm(&[]).unwrap(), 0.0);
    }

    #[test]
    fn backward_reports_a_shape_error() {
        let w = leaf(&[2]);
        let e = backward(&[&w * 2.0], &[Tensor::from_slice(&[1f32; 3])]).unwrap_err();
        assert!(e.to_string().starts_with("libtorch: "), "{e}");
    }
}
