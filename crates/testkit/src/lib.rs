//! What the workspace's tests share: tolerances whose failures say how far off, a finite-difference gradient check, and
//! ways to be alone in a process.

mod process;

pub use process::{alone, done_elsewhere};
use ragduet_torch::{Kind, Tensor, no_grad};

/// The largest absolute difference.
pub fn max_diff(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size(), "shapes differ");
    f64::try_from((a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max()).unwrap_or(f64::INFINITY)
}

/// ||a - b|| / ||b||.
pub fn relative_diff(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size(), "shapes differ");
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let scale = f64::try_from(b.norm()).unwrap_or(0.0).max(1e-30);
    f64::try_from((a - &b).norm()).unwrap_or(f64::INFINITY) / scale
}

/// Asserts an absolute tolerance, elementwise.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    let d = max_diff(a, b);
    assert!(d <= tolerance, "{what}: largest difference {d:.3e}, allowed {tolerance:.1e}");
}

/// Asserts a tolerance relative to the whole tensor's norm.
#[track_caller]
pub fn assert_relative(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    let d = relative_diff(a, b);
    assert!(d <= tolerance, "{what}: relative difference {d:.3e}, allowed {tolerance:.1e}");
}

/// Compares the gradient of `f` at `inputs` (f64 leaves) with central differences, at every element.
///
/// # Panics
/// Where they differ by more than `tolerance` relative to 1 + |gradient|.
#[track_caller]
pub fn check_gradient(inputs: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Tensor) {
    let leaves: Vec<Tensor> =
        inputs.iter().map(|t| t.detach().copy().to_kind(Kind::Double).set_requires_grad(true)).collect();
    f(&leaves).backward();
    let _guard = no_grad();
    let step = 1e-5;
    for (which, leaf) in leaves.iter().enumerate() {
        let grad = leaf.grad();
        for i in 0..leaf.numel() as i64 {
            let value = |delta: f64| {
                let moved: Vec<Tensor> = leaves.iter().map(|t| t.detach().copy()).collect();
                let mut at = moved[which].view(-1).get(i);
                let _ = at.g_add_scalar_(delta);
                f64::try_from(f(&moved)).unwrap_or(f64::NAN)
            };
            let numeric = (value(step) - value(-step)) / (2.0 * step);
            let exact = f64::try_from(grad.view(-1).get(i)).unwrap_or(f64::NAN);
            let off = (numeric - exact).abs();
            assert!(
                off <= tolerance * (1.0 + exact.abs()),
                "input {which}, element {i}: gradient {exact:.6e}, by differences {numeric:.6e}"
            );
        }
    }
}
