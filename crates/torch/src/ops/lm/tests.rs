//! Each kernel against its definition in ATen operators: forward, gradient, odd sizes, f32 and bf16.

use super::*;
use crate::{Device, Kind, no_grad, rng};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, CPU)
}

fn leaf(shape: &[i64]) -> Tensor {
    randn(shape).set_requires_grad(true)
}

fn half(x: &Tensor) -> Tensor {
    x.to_kind(Kind::BFloat16)
}

/// Relative to the reference's norm.
fn near(got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size());
    let wide = |t: &Tensor| t.to_kind(Kind::Double);
    let d = f64::try_from((wide(got) - wide(want)).norm() / wide(want).norm().clamp_min(1e-9)).unwrap();
    assert!(d <= tolerance, "off by {d:.2e}");
}

/// Gradients of sum(out * up) for these leaves, which are cleared.
fn grads(outs: &[Tensor], ups: &[Tensor], leaves: &[&Tensor]) -> Vec<Tensor> {
    crate::grad::backward(outs, ups).unwrap();
    leaves
        .iter()
        .map(|t| {
            let g = t.grad().copy();
            let _ = t.grad().zero_();
            g
        })
        .collect()
}

#[test]
fn few_rows_times_a_matrix_in_every_shape() {
    rng::seed(1);
    let _guard = no_grad();
    for rows in [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 48, 64, 65] {
        // Inner sizes with and without tiles, outputs with remainders.
        for (inputs, outputs) in [(32, 16), (96, 64), (64, 200), (384, 77), (7, 3), (50, 130), (160, 15)] {
            let (x, w, b) = (randn(&[rows, inputs]), randn(&[outputs, inputs]), randn(&[outputs]));
            let want = x.matmul(&w.tr()) + &b;
            near(&linear(&x, &w, Some(&b), false), &want, 1e-5);
            near(&linear(&x, &w, None, true), &(&want - &b), 1e-5);
            let (x, w, b) = (half(&x), half(&w), half(&b));
            let wide = |t: &Tensor| t.to_kind(Kind::Float);
            let want = wide(&x).matmul(&wide(&w).tr());
            let got = linear(&x, &w, None, true);
            assert_eq!(got.kind(), Kind::Float);
            // The products of bf16 numbers are exact in f32; only their sums are rounded.
            near(&got, &want, if rows > 16 { 5e-3 } else { 1e-5 });
            let got = linear(&x, &w, Some(&b), false);
            assert_eq!(got.kind(), Kind::BFloat16);
            near(&got, &(want + wide(&b)), 5e-3);
        }
    }
}

#[test]
fn a_product_with_gradients_has_them() {
    rng::seed(2);
    let (x, w, b) = (leaf(&[3, 8]), leaf(&[5, 8]), leaf(&[5]));
    let up = randn(&[3, 5]);
    let got = grads(&[linear(&x, &w, Some(&b), false)], &[up.shallow_clone()], &[&x, &w, &b]);
    near(&got[0], &up.matmul(&w), 1e-6);
    near(&got[1], &up.tr().matmul(&x), 1e-6);
    near(&got[2], &up.sum_dim_intlist(0, false, Kind::Float), 1e-6);
}

fn plain_rms(x: &Tensor, w: &Tensor, eps: f64) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    &wide * (wide.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt() * w
}

#[test]
fn rms_norm_equals_its_definition_forward_and_backward() {
    rng::seed(3);
    for (rows, n) in [(1, 1), (5, 7), (600, 48), (3, 257)] {
        let (x, w, up) = (leaf(&[rows, n]), leaf(&[n]), randn(&[rows, n]));
        let (ours, plain) = (rms_norm(&x, &w, 1e-5), plain_rms(&x, &w, 1e-5));
        near(&ours, &plain, 1e-6);
        let (a, b) = (grads(&[ours], &[up.shallow_clone()], &[&x, &w]), grads(&[plain], &[up], &[&x, &w]));
        // For one number the gradient is eps alone, all rounding.
        if n > 1 {
            near(&a[0], &b[0], 1e-5);
        }
        near(&a[1], &b[1], 1e-5);
        let low = half(&x.detach());
        let got = rms_norm(&low, &w.detach(), 1e-5);
        assert_eq!(got.kind(), Kind::BFloat16);
        near(&got, &plain_rms(&low, &w.detach(), 1e-5), 4e-3);
        let _guard = no_grad();
        near(&rms_norm(&x, &w, 1e-5), &plain_rms(&x, &w, 1e-5), 1e-6);
    }
}

#[test]
fn rms_norm_of_a_sum_equals_its_parts() {
    rng::seed(4);
    for (rows, n) in [(1, 3), (600, 48)] {
        let (x, r, w) = (leaf(&[rows, n]), leaf(&[rows, n]), leaf(&[n]));
        let ups = [randn(&[rows, n]), randn(&[rows, n])];
        let (sum, normed) = add_then_rms_norm(&x, &r, &w, 1e-6, 0.0);
        let plain = &x + &r;
        let plain_normed = plain_rms(&plain, &w, 1e-6);
        near(&sum, &plain, 1e-6);
        near(&normed, &plain_normed, 1e-6);
        let a = grads(&[sum.shallow_clone(), normed], &ups, &[&x, &r, &w]);
        let b = grads(&[plain, plain_normed], &ups, &[&x, &r, &w]);
        for (a, b) in a.iter().zip(&b) {
            near(a, b, 1e-5);
        }
        // One of the two outputs unused.
        let (_, normed) = add_then_rms_norm(&x, &r, &w, 1e-6, 0.0);
        let a = grads(&[normed], &ups[..1], &[&x, &w]);
        let b = grads(&[plain_rms(&(&x + &r), &w, 1e-6)], &ups[..1], &[&x, &w]);
        near(&a[0], &b[0], 1e-5);
        near(&a[1], &b[1], 1e-5);
        let (sum, _) = add_then_rms_norm(&x, &r, &w, 1e-6, 0.0);
        near(&grads(&[sum], &ups[..1], &[&x])[0], &ups[0], 1e-6);
    }
    let (x, r, w) = (half(&randn(&[20, 64])), randn(&[20, 64]), randn(&[64]));
    let (sum, normed) = add_then_rms_norm(&x, &r, &w, 1e-6, 0.0);
    assert_eq!((sum.kind(), normed.kind()), (Kind::Float, Kind::BFloat16));
    near(&sum, &(x.to_kind(Kind::Float) + &r), 1e-6);
    near(&normed, &plain_rms(&sum, &w, 1e-6), 4e-3);
}

#[test]
fn the_norm_drops_the_same_elements_backward() {
    rng::seed(5);
    let (x, r, w) = (leaf(&[50, 32]), randn(&[50, 32]), Tensor::ones([32], CPU));
    let (sum, normed) = add_then_rms_norm(&x, &r, &w, 1e-6, 0.4);
    let kept = (sum.detach() - &r).abs().gt(1e-6);
    near(&(sum.detach() - &r), &(x.detach() * &kept / 0.6), 1e-5);
    let share = f64::try_from(kept.to_kind(Kind::Float).mean(Kind::Float)).unwrap();
    assert!((share - 0.6).abs() < 0.05, "{share}");
    let up = randn(&[50, 32]);
    let got = grads(&[normed], &[up.shallow_clone()], &[&x]);
    let mask = &kept / 0.6;
    let want = grads(&[plain_rms(&(&x * &mask + &r), &w, 1e-6)], &[up], &[&x]);
    near(&got[0], &want[0], 1e-5);
}

fn plain_rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let n = cos.size()[1];
    let (cos, sin) = (cos.unsqueeze(1), sin.unsqueeze(1));
    let part = |at, len| x.narrow(-1, at, len).to_kind(Kind::Float);
    let (a, b) = (part(0, n), part(n, n));
    Tensor::cat(&[&a * &cos - &b * &sin, &b * &cos + &a * &sin, part(2 * n, x.size()[2] - 2 * n)], -1)
}

#[test]
fn rotations_equal_their_definition_forward_and_backward() {
    rng::seed(6);
    for (tokens, heads, d, n) in [(1, 1, 2, 1), (9, 3, 16, 8), (13, 2, 10, 3), (700, 4, 32, 16)] {
        let (x, angle) = (leaf(&[tokens, heads, d]), randn(&[tokens, n]));
        let (cos, sin) = (angle.cos(), angle.sin());
        let up = randn(&[tokens, heads, d]);
        let (ours, plain) = (rope(&x, &cos, &sin), plain_rope(&x, &cos, &sin));
        near(&ours, &plain, 1e-6);
        let (a, b) = (grads(&[ours], &[up.shallow_clone()], &[&x]), grads(&[plain], &[up], &[&x]));
        near(&a[0], &b[0], 1e-6);
        let low = half(&x.detach());
        near(&rope(&low, &cos, &sin), &plain_rope(&low, &cos, &sin), 4e-3);
        // A view whose heads lie apart.
        let wide = randn(&[tokens, heads + 2, d]);
        let view = wide.narrow(1, 1, heads);
        near(&rope(&view, &cos, &sin), &plain_rope(&view, &cos, &sin), 1e-6);
    }
}

#[test]
fn a_joined_projection_is_split_and_turned() {
    rng::seed(7);
    let (tokens, heads, kv_heads, d) = (11, 4, 2, 12);
    let x = leaf(&[tokens, heads + 2 * kv_heads, d]);
    for n in [6, 4] {
        let angle = randn(&[tokens, n]);
        let (cos, sin) = (angle.cos(), angle.sin());
        let plain = |x: &Tensor| {
            [
                plain_rope(&x.narrow(1, 0, heads), &cos, &sin),
                plain_rope(&x.narrow(1, heads, kv_heads), &cos, &sin),
                x.narrow(1, heads + kv_heads, kv_heads),
            ]
        };
        let ups = [heads, kv_heads, kv_heads].map(|h| randn(&[tokens, h, d]));
        let (q, k, v) = rope_split(x.shallow_clone(), &cos, &sin, heads, kv_heads);
        let want = plain(&x);
        for (a, b) in [&q, &k, &v].into_iter().zip(&want) {
            near(a, b, 1e-6);
        }
        let (a, b) = (grads(&[q, k, v], &ups, &[&x]), grads(&want, &ups, &[&x]));
        near(&a[0], &b[0], 1e-6);
        let _guard = no_grad();
        let low = half(&x);
        let want = plain(&low.copy());
        let (q, k, v) = rope_split(low, &cos, &sin, heads, kv_heads);
        for (a, b) in [q, k, v].iter().zip(&want) {
            near(a, b, 4e-3);
        }
    }
}

#[test]
fn swiglu_equals_its_definition_forward_and_backward() {
    rng::seed(8);
    let plain = |x: &Tensor| {
        let parts = x.to_kind(Kind::Float).chunk(2, -1);
        parts[0].silu() * &parts[1]
    };
    for (rows, n) in [(1, 1), (7, 33), (300, 64)] {
        let x = (randn(&[rows, 2 * n]) * 4.0).set_requires_grad(true);
        let up = randn(&[rows, n]);
        let (ours, want) = (swiglu(&x), plain(&x));
        near(&ours, &want, 1e-6);
        let (a, b) = (grads(&[ours], &[up.shallow_clone()], &[&x]), grads(&[want], &[up], &[&x]));
        near(&a[0], &b[0], 1e-5);
        let low = half(&x.detach());
        near(&swiglu(&low), &plain(&low), 4e-3);
        let _guard = no_grad();
        near(&swiglu(&x), &plain(&x), 1e-6);
    }
    // Where the sigmoid is 0 or 1.
    let far = Tensor::from_slice(&[-1e4f32, -200.0, -90.0, 90.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let got = Vec::<f32>::try_from(swiglu(&far)).unwrap();
    assert!(got[..3].iter().all(|x| x.abs() < 1e-30) && got[3..] == [90.0, 1e4], "{got:?}");
}

#[test]
fn attention_over_a_cache_sees_what_it_should() {
    rng::seed(9);
    let _guard = no_grad();
    for (heads, kv_heads, d) in [(6, 2, 16), (4, 4, 7), (8, 1, 64)] {
        for lengths in [vec![1i64], vec![9, 30, 1], vec![30; 5]] {
            let rows = lengths.len() as i64;
            let (k, v) = (randn(&[rows, 31, kv_heads, d]), randn(&[rows, 31, kv_heads, d]));
            let q = randn(&[rows, heads + 3, d]).narrow(1, 0, heads);
            for window in [None, Some(0), Some(8), Some(100)] {
                let expected: Vec<Tensor> = lengths
                    .iter()
                    .enumerate()
                    .map(|(row, &length)| {
                        let n = window.map_or(length, |w| (w + 1).min(length));
                        let cut = |t: &Tensor| {
                            let own = t.get(row as i64).narrow(0, length - n, n);
                            own.repeat_interleave_self_int(heads / kv_heads, 1, None).transpose(0, 1)
                        };
                        let scores = cut(&k).matmul(&q.get(row as i64).unsqueeze(2)).squeeze_dim(2) * 0.3;
                        let p = scores.softmax(-1, Kind::Float);
                        p.unsqueeze(1).matmul(&cut(&v)).squeeze_dim(1)
                    })
                    .collect();
                let want = Tensor::stack(&expected, 0);
                near(&cached_attention(&q, &k, &v, &lengths, 0.3, window), &want, 1e-5);
                let low = cached_attention(&half(&q), &half(&k), &half(&v), &lengths, 0.3, window);
                near(&low, &want, 2e-2);
            }
        }
    }
}

#[test]
fn rows_are_written_to_their_places() {
    rng::seed(10);
    for kind in [Kind::Float, Kind::BFloat16] {
        let cache = || Tensor::zeros([3, 5, 2, 4], (kind, Device::Cpu));
        let (k_cache, v_cache) = (cache(), cache());
        let slots = Tensor::from_slice(&[14i64, 0, 6]);
        // Rows of a wider tensor, as the joined projection has them.
        let joined = randn(&[3, 8, 4]).to_kind(kind);
        let (k, v) = (joined.narrow(1, 4, 2), joined.narrow(1, 6, 2));
        cache_write(&k_cache, &v_cache, &slots, &k, &v);
        for (cache, rows) in [(&k_cache, &k), (&v_cache, &v)] {
            let want = Tensor::zeros([15, 2, 4], (kind, Device::Cpu)).index_copy(0, &slots, rows);
            assert!(cache.flatten(0, 1).equal(&want));
        }
    }
}

#[test]
#[should_panic(expected = "length 6 in a cache for 5")]
fn a_length_beyond_the_cache_is_refused() {
    let cache = randn(&[1, 5, 1, 4]);
    let _ = cached_attention(&randn(&[1, 2, 4]), &cache, &cache, &[6], 1.0, None);
}

/// Kinds that have no kernel of ours take the ATen operators that CUDA takes.
#[test]
fn the_way_in_aten_operators_gives_the_same() {
    rng::seed(11);
    let wide = |t: &Tensor| t.to_kind(Kind::Double);
    let (x, r, w) = (randn(&[6, 20]), randn(&[6, 20]), randn(&[20]));
    near(&rms_norm(&wide(&x), &w, 1e-5), &rms_norm(&x, &w, 1e-5), 1e-5);
    let (a, b) = (add_then_rms_norm(&wide(&x), &r, &w, 1e-5, 0.0), add_then_rms_norm(&x, &r, &w, 1e-5, 0.0));
    near(&a.0, &b.0, 1e-5);
    near(&a.1, &b.1, 1e-5);
    near(&swiglu(&wide(&x)), &swiglu(&x), 1e-5);
    near(&linear(&wide(&x), &wide(&r), None, true), &linear(&x, &r, None, true), 1e-5);
    let (qkv, angle) = (randn(&[5, 8, 6]), randn(&[5, 2]));
    let (cos, sin) = (angle.cos(), angle.sin());
    near(&rope(&wide(&qkv), &cos, &sin), &rope(&qkv, &cos, &sin), 1e-5);
    let (a, b) = (rope_split(wide(&qkv), &cos, &sin, 4, 2), rope_split(qkv, &cos, &sin, 4, 2));
    for (a, b) in [(a.0, b.0), (a.1, b.1), (a.2, b.2)] {
        near(&a, &b, 1e-5);
    }
    let _guard = no_grad();
    let (q, k, v) = (randn(&[3, 4, 8]), randn(&[3, 9, 2, 8]), randn(&[3, 9, 2, 8]));
    for lengths in [[9i64, 9, 9], [2, 9, 5]] {
        for window in [None, Some(3)] {
            let got = cached_attention(&wide(&q), &wide(&k), &wide(&v), &lengths, 0.4, window);
            near(&got, &cached_attention(&q, &k, &v, &lengths, 0.4, window), 1e-5);
        }
    }
}
