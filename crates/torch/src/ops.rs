//! Kernels of the shim: attention over packed rows, the fused dropout + residual + LayerNorm, GELU.
//!
//! Forward code: shape errors are bugs, so these panic with the shim's message, as tch's operators do.
//!
//! Why kernels of our own on the CPU: with AMX the matrix products of a small encoder are cheap, and dropout, residual,
//! LayerNorm, GELU and softmax are what is left. Each is one pass with its own backward pass here; dropout masks are
//! made again from a hash instead of being kept. They are plain C++ loops compiled for three instruction sets
//! (`target_clones`); the program itself stays baseline x86-64. A loop that must vectorize is a function of its own
//! over `__restrict` arrays, with sums marked (`RD_REDUCE`) and without clamps against constants: inlined into a loop
//! over rows the same code stays scalar.
//!
//! Attention over packed rows is `rd_varlen_attention`: ATen's flash kernels with cumulative lengths on CUDA (bf16),
//! sequence by sequence in parallel on the CPU. ATen's CPU flash kernel has no dropout, so training with dropout goes
//! through matrix products and a fused softmax. Below AVX-512, oneDNN has no bf16 products, and `rd_linear_gelu` goes
//! through ATen.

use crate::{Device, Kind, Tensor, ffi};

mod lm;
mod maxsim;

pub use lm::{add_then_rms_norm, cache_write, cached_attention, linear, rms_norm, rope, rope_split, swiglu};
pub use maxsim::maxsim;

/// Rows of sequences laid one after another, without padding.
///
/// Sequence `i` is rows `offsets[i]..offsets[i + 1]` of every `[tokens, ..]` tensor of the batch.
#[derive(Debug)]
pub struct Segments {
    offsets: Vec<i64>,
    cu: Option<Tensor>,
    longest: i64,
}

impl Segments {
    /// From the lengths of the sequences.
    pub fn new(lengths: &[usize], device: Device) -> Self {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        offsets.push(0i64);
        let mut longest = 0;
        for &l in lengths {
            longest = longest.max(l as i64);
            offsets.push(offsets[offsets.len() - 1] + l as i64);
        }
        let cu = matches!(device, Device::Cuda(_)).then(|| {
            let small: Vec<i32> = offsets.iter().map(|&o| o as i32).collect();
            Tensor::from_slice(&small).to_device(device)
        });
        Self { offsets, cu, longest }
    }

    /// The same borders again, without a copy on the device.
    pub fn share(&self) -> Self {
        let cu = self.cu.as_ref().map(Tensor::shallow_clone);
        Self { offsets: self.offsets.clone(), cu, longest: self.longest }
    }

    /// How many sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The borders: `len() + 1` row numbers, from 0 to the number of tokens.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// All rows.
    pub fn tokens(&self) -> i64 {
        self.offsets[self.offsets.len() - 1]
    }

    /// The longest sequence.
    pub fn longest(&self) -> i64 {
        self.longest
    }

    /// Sequence lengths.
    pub fn lengths(&self) -> impl Iterator<Item = i64> + '_ {
        self.offsets.windows(2).map(|w| w[1] - w[0])
    }
}

/// How keys are seen and dropped in [`varlen_attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions {
    /// Multiplies the scores before the softmax, usually 1/sqrt(head_dim).
    pub scale: f64,
    /// Dropout on the probabilities.
    pub dropout: f64,
    /// Only keys at or before the query.
    pub causal: bool,
    /// Only keys at most this far from the query.
    pub window: Option<i64>,
}

/// softmax(scale * q k^T) v within each sequence. `q`: [tokens, heads, head_dim], as is the result; `k` and `v` likewise,
/// or with fewer heads, each for a run of query heads.
pub fn varlen_attention(q: &Tensor, k: &Tensor, v: &Tensor, segs: &Segments, o: &AttentionOptions) -> Tensor {
    let mut out = std::ptr::null_mut();
    let cu = segs.cu.as_ref().map_or(std::ptr::null_mut(), ffi::handle);
    // SAFETY: handles and the offsets slice are valid for the call; `out` is adopted only on success.
    let status = unsafe {
        ffi::rd_varlen_attention(
            ffi::handle(q),
            ffi::handle(k),
            ffi::handle(v),
            segs.offsets.as_ptr(),
            segs.offsets.len(),
            cu,
            segs.longest,
            o.dropout,
            o.causal.into(),
            o.scale,
            o.window.unwrap_or(-1),
            &mut out,
        )
    };
    expect(status);
    ffi::adopt(out)
}

/// Parameters of a LayerNorm, all f32.
#[derive(Debug)]
pub struct Norm<'a> {
    /// [n].
    pub weight: &'a Tensor,
    /// [n], where the model has one.
    pub bias: Option<&'a Tensor>,
    /// Added to the variance.
    pub eps: f64,
}

/// LayerNorm(dropout(x) + residual) for post-norm models. `x` in the compute dtype, `residual` in f32.
/// Returns (f32 rows for the next residual, the same rows in the compute dtype).
pub fn add_norm(x: &Tensor, residual: &Tensor, norm: &Norm<'_>, dropout: f64) -> (Tensor, Tensor) {
    fused_norm(x, residual, norm, dropout, false)
}

/// The pre-norm form: returns (the f32 sum, the normalised rows in the compute dtype).
pub fn add_then_norm(x: &Tensor, residual: &Tensor, norm: &Norm<'_>, dropout: f64) -> (Tensor, Tensor) {
    fused_norm(x, residual, norm, dropout, true)
}

fn fused_norm(x: &Tensor, residual: &Tensor, norm: &Norm<'_>, dropout: f64, pre: bool) -> (Tensor, Tensor) {
    let (mut carry, mut normed) = (std::ptr::null_mut(), std::ptr::null_mut());
    let bias = norm.bias.map_or(std::ptr::null_mut(), ffi::handle);
    // SAFETY: handles are valid for the call; the two results are adopted only on success.
    let status = unsafe {
        ffi::rd_dropout_add_layer_norm(
            ffi::handle(x),
            ffi::handle(residual),
            ffi::handle(norm.weight),
            bias,
            norm.eps,
            dropout,
            pre.into(),
            &mut carry,
            &mut normed,
        )
    };
    expect(status);
    (ffi::adopt(carry), ffi::adopt(normed))
}

/// x * Phi(x), the exact GELU.
pub fn gelu(x: &Tensor) -> Tensor {
    let mut out = std::ptr::null_mut();
    // SAFETY: as above.
    expect(unsafe { ffi::rd_gelu(ffi::handle(x), &mut out) });
    ffi::adopt(out)
}

/// gelu(x w^T + b) in one pass: for the CPU, where no gradient is wanted. `x` [.., in], `w` [out, in], `b` [out], of
/// one dtype.
pub fn linear_gelu(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    let mut out = std::ptr::null_mut();
    let b = b.map_or(std::ptr::null_mut(), ffi::handle);
    // SAFETY: as above.
    expect(unsafe { ffi::rd_linear_gelu(ffi::handle(x), ffi::handle(w), b, &mut out) });
    ffi::adopt(out)
}

/// How often a tensor was changed in place, by any view of it: tells whether something derived from it still holds.
pub fn version(t: &Tensor) -> i64 {
    // SAFETY: reads a counter of a live tensor.
    unsafe { ffi::rd_version(ffi::handle(t)) }
}

/// The mean of each sequence's rows: [tokens, n] -> [sequences, n], in f32.
pub fn segment_mean(x: &Tensor, segs: &Segments) -> Tensor {
    let n = segs.len() as i64;
    let mut owner = Vec::with_capacity(segs.tokens() as usize);
    let mut inverse = Vec::with_capacity(segs.len());
    for (i, l) in segs.lengths().enumerate() {
        owner.extend(std::iter::repeat_n(i as i64, l as usize));
        inverse.push(1.0 / (l.max(1) as f32));
    }
    let owner = Tensor::from_slice(&owner).to_device(x.device());
    let inverse = Tensor::from_slice(&inverse).to_device(x.device()).unsqueeze(1);
    let zeros = Tensor::zeros([n, x.size()[1]], (Kind::Float, x.device()));
    zeros.index_add(0, &owner, &x.to_kind(Kind::Float)) * inverse
}

fn expect(status: i32) {
    if let Err(e) = ffi::check(status) {
        panic!("{e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn leaf(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, CPU).set_requires_grad(true)
    }

    /// The definition, sequence by sequence.
    fn plain(q: &Tensor, k: &Tensor, v: &Tensor, segs: &Segments, o: &AttentionOptions) -> Tensor {
        let wide = |t: &Tensor| t.repeat_interleave_self_int(q.size()[1] / t.size()[1], 1, None);
        let (k, v) = (&wide(k), &wide(v));
        let rows: Vec<Tensor> = segs
            .offsets()
            .windows(2)
            .map(|w| {
                let cut = |t: &Tensor| t.narrow(0, w[0], w[1] - w[0]).transpose(0, 1);
                let n = w[1] - w[0];
                let i = Tensor::arange(n, CPU).unsqueeze(1);
                let j = Tensor::arange(n, CPU).unsqueeze(0);
                let mut hidden = (&i - &j).abs().gt(o.window.map_or(f64::INFINITY, |w| w as f64));
                if o.causal {
                    hidden = hidden.logical_or(&j.gt_tensor(&i));
                }
                let s = cut(q).matmul(&cut(k).transpose(1, 2)) * o.scale;
                let p = s.masked_fill(&hidden, f64::NEG_INFINITY).softmax(-1, Kind::Float);
                p.matmul(&cut(v)).transpose(0, 1)
            })
            .collect();
        Tensor::cat(&rows, 0)
    }

    fn close(a: &Tensor, b: &Tensor, tolerance: f64) {
        let d = f64::try_from((a - b).abs().max()).unwrap();
        assert!(d <= tolerance, "max difference {d}");
    }

    #[test]
    fn attention_equals_its_definition_forward_and_backward() {
        crate::rng::seed(5);
        let masks = [(false, None), (true, None), (false, Some(3)), (true, Some(4))];
        for ((causal, window), (heads, kv_heads, dropout)) in masks
            .into_iter()
            // A dropout too small to drop anything: the path with dropout, without its randomness.
            .flat_map(|m| [(2, 2, 0.0), (6, 2, 0.0), (3, 1, 0.0), (6, 2, 1e-9)].map(|h| (m, h)))
        {
            let segs = Segments::new(&[1, 9, 0, 4, 20], Device::Cpu);
            let o = AttentionOptions { scale: 0.3, dropout, causal, window };
            let (q, k, v) = (leaf(&[34, heads, 8]), leaf(&[34, kv_heads, 8]), leaf(&[34, kv_heads, 8]));
            let up = Tensor::randn([34, heads, 8], CPU);
            let grads = |out: &Tensor| {
                crate::grad::backward(&[out.shallow_clone()], &[up.shallow_clone()]).unwrap();
                [&q, &k, &v].map(|t| {
                    let g = t.grad().copy();
                    let _ = t.grad().zero_();
                    g
                })
            };
            let ours = varlen_attention(&q, &k, &v, &segs, &o);
            let theirs = plain(&q, &k, &v, &segs, &o);
            close(&ours, &theirs, 1e-5);
            let (a, b) = (grads(&ours), grads(&theirs));
            for (x, y) in a.iter().zip(&b) {
                close(x, y, 1e-5);
            }
        }
    }

    #[test]
    fn dropped_attention_keeps_the_expectation_and_its_gradient_is_the_numerical_one() {
        crate::rng::seed(6);
        let segs = Segments::new(&[7, 12], Device::Cpu);
        let o = AttentionOptions { scale: 0.35, dropout: 0.25, causal: false, window: None };
        let (q, k, v) = (leaf(&[19, 2, 8]), leaf(&[19, 2, 8]), leaf(&[19, 2, 8]));
        let start = crate::rng::RngState::get(Device::Cpu).unwrap();
        let run = |q: &Tensor| {
            start.set().unwrap();
            varlen_attention(q, &k, &v, &segs, &o)
        };
        let weights = Tensor::randn([19, 2, 8], CPU);
        (run(&q) * &weights).sum(Kind::Float).backward();
        let grad = q.grad().copy();
        let step = 1e-2;
        for at in [0i64, 37, 150, 300] {
            let mut bump = Tensor::zeros([19 * 2 * 8], CPU);
            let _ = bump.get(at).fill_(step);
            bump = bump.view([19, 2, 8]);
            let f = |q: Tensor| f64::try_from((run(&q) * &weights).sum(Kind::Double)).unwrap();
            let numeric = (f(q.detach() + &bump) - f(q.detach() - &bump)) / (2.0 * step);
            let analytic = f64::try_from(grad.view(-1).get(at)).unwrap();
            assert!((numeric - analytic).abs() < 2e-3 * (1.0 + analytic.abs()), "{numeric} {analytic}");
        }
        // Over many draws the mean is the output without dropout.
        let _g = crate::no_grad();
        let mut mean = Tensor::zeros([19, 2, 8], CPU);
        for _ in 0..3000 {
            mean += varlen_attention(&q, &k, &v, &segs, &o) / 3000.0;
        }
        close(&mean, &plain(&q, &k, &v, &segs, &o), 0.08);
    }

    #[test]
    fn bf16_attention_is_close_to_f32() {
        crate::rng::seed(7);
        let segs = Segments::new(&[64, 200, 3], Device::Cpu);
        let o = AttentionOptions { scale: 0.17, dropout: 0.0, causal: false, window: None };
        let t = |heads| Tensor::randn([267, heads, 32], CPU);
        let (q, k, v) = (t(4), t(2), t(2));
        let half = |t: &Tensor| t.to_kind(Kind::BFloat16);
        let low = varlen_attention(&half(&q), &half(&k), &half(&v), &segs, &o).to_kind(Kind::Float);
        close(&low, &plain(&q, &k, &v, &segs, &o), 3e-2);
    }

    #[test]
    fn fused_norm_equals_its_parts() {
        crate::rng::seed(8);
        for pre in [false, true] {
            let (x, r) = (leaf(&[600, 48]), leaf(&[600, 48]));
            let (w, b) = (leaf(&[48]), leaf(&[48]));
            let norm = Norm { weight: &w, bias: Some(&b), eps: 1e-5 };
            let (carry, normed) = fused_norm(&x, &r, &norm, 0.0, pre);
            let sum = &x + &r;
            let y = sum.layer_norm([48], Some(&w), Some(&b), 1e-5, false);
            let want = if pre { &sum } else { &y };
            close(&carry, want, 1e-5);
            close(&normed, &y, 1e-5);
            let (u1, u2) = (Tensor::randn([600, 48], CPU), Tensor::randn([600, 48], CPU));
            let grads = |a: &Tensor, b_out: &Tensor| {
                (a * &u1 + b_out * &u2).sum(Kind::Float).backward();
                [&x, &r, &w, &b].map(|t| {
                    let g = t.grad().copy();
                    let _ = t.grad().zero_();
                    g
                })
            };
            let (ours, theirs) = (grads(&carry, &normed), grads(want, &y));
            for (a, b) in ours.iter().zip(&theirs) {
                close(a, b, 2e-4);
            }
        }
    }

    #[test]
    fn fused_norm_drops_the_same_elements_backward() {
        crate::rng::seed(9);
        let (x, r) = (leaf(&[50, 32]), Tensor::zeros([50, 32], CPU));
        let w = Tensor::ones([32], CPU);
        let norm = Norm { weight: &w, bias: None, eps: 1e-5 };
        let (sum, _) = add_then_norm(&x, &r, &norm, 0.4);
        sum.sum(Kind::Float).backward();
        let kept = sum.detach().ne(0.0);
        assert!(x.grad().ne(0.0).equal(&kept));
        let share = f64::try_from(kept.to_kind(Kind::Float).mean(Kind::Float)).unwrap();
        assert!((share - 0.6).abs() < 0.05, "{share}");
        close(&sum.detach(), &(x.detach() * kept / 0.6), 1e-5);
    }

    #[test]
    fn gelu_equals_aten_forward_and_backward() {
        let x = (Tensor::arange(4001, CPU) / 200.0 - 10.0).set_requires_grad(true);
        let y = gelu(&x);
        let want = x.gelu("none");
        close(&y, &want, 2e-6);
        y.sum(Kind::Float).backward();
        let ours = x.grad().copy();
        let _ = x.grad().zero_();
        want.sum(Kind::Float).backward();
        close(&ours, &x.grad(), 2e-6);
    }

    #[test]
    fn a_fused_linear_and_gelu_equals_the_two() {
        crate::rng::seed(10);
        let t = |s: &[i64]| Tensor::randn(s, CPU);
        for rows in [5, 37] {
            let (x, w, b) = (t(&[rows, 48]), t(&[96, 48]), t(&[96]));
            let want = x.linear(&w, Some(&b)).gelu("none");
            close(&linear_gelu(&x, &w, Some(&b)), &want, 1e-4);
            close(&linear_gelu(&x, &w, None), &x.linear(&w, None::<&Tensor>).gelu("none"), 1e-4);
            let half = |t: &Tensor| t.to_kind(Kind::BFloat16);
            let low = linear_gelu(&half(&x), &half(&w), Some(&half(&b))).to_kind(Kind::Float);
            close(&low, &want, 0.2);
        }
    }

    #[test]
    fn a_change_in_place_shows_in_the_version_also_by_the_optimiser() {
        let mut w = Tensor::ones([4], CPU).set_requires_grad(true);
        let start = version(&w);
        (&w * 2.0).sum(Kind::Float).backward();
        assert_eq!(version(&w), start);
        {
            let _g = crate::no_grad();
            let _ = w.fill_(3.0);
        }
        let filled = version(&w);
        assert_ne!(filled, start);
        let rule = |_: &str| crate::optim::GroupRule { lr_scale: 1.0, weight_decay: 0.0 };
        let mut adam = crate::optim::AdamW::new(&[("w".into(), w.shallow_clone())], Default::default(), rule);
        adam.step(0.1).unwrap();
        assert_ne!(version(&w), filled);
    }

    #[test]
    fn segment_mean_is_the_mean() {
        let x = Tensor::arange(12, CPU).view([6, 2]);
        let m = segment_mean(&x, &Segments::new(&[1, 3, 2], Device::Cpu));
        assert_eq!(Vec::<f32>::try_from(m.view(-1)).unwrap(), [0., 1., 4., 5., 9., 10.]);
    }
}
