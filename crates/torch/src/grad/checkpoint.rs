//! Parts of a forward pass that are made again in the backward pass instead of being kept.
//!
//! An autograd function around a Rust closure, which runs again in the backward pass from the generator state of the
//! forward pass.

use crate::rng::RngState;
use crate::{Device, Error, Tensor, ffi};
use std::cell::RefCell;
use std::ffi::{CString, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use torch_sys::C_tensor;

/// The most outputs of a part.
const MOST: usize = 16;

type Function = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// What the graph holds of a part.
struct Part {
    f: Function,
    device: Device,
    /// The generators as the forward pass found them.
    start: RefCell<Option<RngState>>,
}

impl Part {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let now = RngState::get(self.device)?;
        let again = match &*self.start.borrow() {
            Some(start) => start.set().map(|()| true)?,
            None => false,
        };
        let out = (self.f)(inputs);
        if again {
            now.set()?;
        } else {
            *self.start.borrow_mut() = Some(now);
        }
        Ok(out)
    }
}

/// f(inputs), of whose inner values nothing is kept: the backward pass runs `f` again, with the same random draws, and
/// goes through that (Chen et al., 2016, arXiv 1604.06174). Parameters that `f` holds get their gradients, too. As `f`
/// lives on in the graph, it owns what it uses; it must do the same whenever it is called.
///
/// Without gradients this is `f`. At most 16 outputs.
///
/// # Errors
/// Of the generators, and what libtorch says; a panic of `f` is such an error, in the forward pass and in the backward.
pub fn checkpoint(
    device: Device,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Vec<Tensor> + 'static,
) -> Result<Vec<Tensor>, Error> {
    if !crate::grad_enabled() {
        return Ok(f(inputs));
    }
    let part = Box::new(Part { f: Box::new(f), device, start: RefCell::new(None) });
    let given = ffi::pointers(inputs);
    let mut out = [std::ptr::null_mut(); MOST];
    let mut made = 0;
    // SAFETY: the inputs' handles are valid for the call; `part` goes over to the shim, which gives it back to `drop`
    // once the graph is gone; `out` has room for MOST results, of which `made` are adopted on success.
    ffi::check(unsafe {
        let closure = Box::into_raw(part).cast::<c_void>();
        ffi::rd_checkpoint(
            given.as_ptr(),
            given.len(),
            closure,
            run,
            drop_part,
            out.as_mut_ptr(),
            MOST,
            &mut made,
        )
    })?;
    Ok(out[..made].iter().map(|&p| ffi::adopt(p)).collect())
}

unsafe extern "C" fn run(
    closure: *mut c_void,
    inputs: *const *mut C_tensor,
    n: usize,
    sink: *mut c_void,
) -> c_int {
    // SAFETY: the shim passes back the pointer it was given, alive until `drop_part`, and n fresh handles.
    let (part, handles) = unsafe {
        (&*closure.cast::<Part>(), if n == 0 { &[] } else { std::slice::from_raw_parts(inputs, n) })
    };
    let inputs: Vec<Tensor> = handles.iter().map(|&p| ffi::adopt(p)).collect();
    // No panic may cross the border.
    let message = match catch_unwind(AssertUnwindSafe(|| part.run(&inputs))) {
        Ok(Ok(outputs)) => {
            for t in &outputs {
                // SAFETY: the sink is the shim's, valid during this call; it copies the handle's tensor.
                unsafe { ffi::rd_emit(sink, ffi::handle(t)) };
            }
            return 0;
        }
        Ok(Err(e)) => e.to_string(),
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(m), _) => m.clone(),
            (_, Some(m)) => (*m).to_string(),
            _ => "a checkpointed part panicked".into(),
        },
    };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a NUL-terminated string, which the shim copies.
    unsafe { ffi::rd_fail(message.as_ptr()) };
    1
}

unsafe extern "C" fn drop_part(closure: *mut c_void) {
    // SAFETY: the pointer of `Box::into_raw` above, given back once.
    drop(unsafe { Box::from_raw(closure.cast::<Part>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn leaf(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn parameters_get_gradients_where_inputs_need_none() {
        let (w, x) = (leaf(&[3, 3]), Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
        let inner = w.shallow_clone();
        let out = checkpoint(Device::Cpu, &[x], move |x| vec![x[0].matmul(&inner)]).unwrap();
        out[0].sum(Kind::Float).backward();
        assert!(w.grad().equal(&(w.ones_like() * 2.0).detach()));
        // One of two outputs unused; without gradients nothing is recorded.
        let inner = w.shallow_clone();
        let two = move |x: &[Tensor]| vec![&x[0] * &inner, &x[0] + 1.0];
        let inputs = [Tensor::ones([3, 3], (Kind::Float, Device::Cpu))];
        let out = checkpoint(Device::Cpu, &inputs, two).unwrap();
        assert!(out[0].requires_grad());
        let _guard = crate::no_grad();
        let inner = w.shallow_clone();
        let out = checkpoint(Device::Cpu, &inputs, move |x| vec![&x[0] * &inner]).unwrap();
        assert!(!out[0].requires_grad());
    }

    #[test]
    fn the_part_goes_when_the_graph_goes() {
        let witness = std::rc::Rc::new(());
        let inner = witness.clone();
        let x = leaf(&[2]);
        let out = checkpoint(Device::Cpu, &[x], move |x| {
            let _ = &inner;
            vec![&x[0] * 2.0]
        });
        assert_eq!(std::rc::Rc::strong_count(&witness), 2);
        drop(out);
        assert_eq!(std::rc::Rc::strong_count(&witness), 1);
    }

    #[test]
    fn a_failure_in_the_backward_pass_is_an_error() {
        let x = leaf(&[2]);
        let calls = std::cell::Cell::new(0);
        let out = checkpoint(Device::Cpu, &[x], move |x| {
            calls.set(calls.get() + 1);
            assert!(calls.get() < 2, "the second time");
            vec![&x[0] * 2.0]
        })
        .unwrap();
        let up = out[0].ones_like();
        let e = crate::grad::backward(&[out[0].shallow_clone()], &[up]).unwrap_err().to_string();
        assert!(e.contains("the second time"), "{e}");
    }
}
