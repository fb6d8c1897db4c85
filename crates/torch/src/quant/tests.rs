//! Against bitsandbytes (`tests/golden/quant/make.py`).

use super::*;
use crate::weights::Weights;
use std::path::Path;

const CASES: [&str; 6] = ["odd_columns", "whole_blocks", "less_than_a_block", "one", "zero_rows", "zeros"];
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn golden() -> Weights {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quant");
    Weights::open_file(&dir.join("quant.safetensors")).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max()).unwrap()
}

#[test]
fn nf4_codes_scales_and_values_are_bitsandbytes() {
    let g = golden();
    for name in CASES {
        let get = |part: &str| g.load_as_is(&format!("{name}.{part}")).unwrap();
        let weight = get("weight");
        let q = Quantised::new(&weight, Bits::Nf4, Device::Cpu).unwrap();
        let want = get("codes");
        // Ours fill up the last block; of an odd number the last half byte is nobody's.
        let pairs = weight.numel() as i64 / 2;
        assert!(q.codes.narrow(0, 0, pairs).equal(&want.narrow(0, 0, pairs)), "{name}: codes");
        if weight.numel() % 2 == 1 {
            let last = |t: &Tensor| t.int64_value(&[pairs]) >> 4;
            assert_eq!(last(&q.codes), last(&want), "{name}: the last code");
        }
        // The reference's look-up of scale codes takes the farther of two neighbours where they are nearly as far; of a
        // group without spread (a single block) any code stands for the same.
        let codes = |t: &Tensor| t.to_kind(Kind::Int64);
        let off = (codes(&q.scales) - codes(&get("scales"))).abs();
        let flat = f64::try_from(q.nested.as_ref().unwrap().abs().max()).unwrap() < 1e-30;
        let others = off.count_nonzero(None).int64_value(&[]);
        assert!(flat || off.max().int64_value(&[]) <= 1, "{name}: scales");
        assert!(flat || others * 100 <= q.scales.numel() as i64, "{name}: {others} scales");
        assert!(apart(q.nested.as_ref().unwrap(), &get("nested")) < 1e-7, "{name}");
        assert!((q.offset - f64::try_from(get("offset")).unwrap()).abs() < 1e-7, "{name}");
        let same = if flat { off.zeros_like() } else { off }.eq(0);
        let same = same.repeat_interleave_self_int(64, 0, None).narrow(0, 0, weight.numel() as i64);
        let values = q.values(Kind::Float).view(-1);
        let want = get("nf4").view(-1);
        let of_same = |t: &Tensor| t.masked_select(&same);
        assert!(apart(&of_same(&values), &of_same(&want)) < 1e-6, "{name}: values");
        // A step of the scales at the most.
        assert!(apart(&values, &want) < 0.02 * apart(&weight, &weight.zeros_like()) + 1e-30, "{name}");
        // What operators of ATen make of it (the way of CUDA) is the same.
        let plain = Quantised::dequantise(&[&q], Kind::Float, true);
        assert!(apart(&plain, &q.values(Kind::Float)) < 1e-6, "{name}: by ATen");
        let half = q.values(Kind::BFloat16);
        assert_eq!(apart(&half, &q.values(Kind::Float).to_kind(Kind::BFloat16)), 0.0, "{name}: bf16");
    }
}

#[test]
fn int8_codes_and_scales_are_bitsandbytes() {
    let g = golden();
    for name in CASES {
        let get = |part: &str| g.load_as_is(&format!("{name}.{part}")).unwrap();
        let weight = get("weight");
        let q = Quantised::new(&weight, Bits::Int8, Device::Cpu).unwrap();
        assert!(q.codes.view_as(&weight).equal(&get("int8")), "{name}: codes");
        assert!(apart(&(&q.scales * 127.0), &get("stats")) < 1e-6, "{name}: scales");
        let want = get("int8").to_kind(Kind::Float) * (get("stats") / 127.0).unsqueeze(1);
        for plain in [false, true] {
            assert!(apart(&Quantised::dequantise(&[&q], Kind::Float, plain), &want) < 1e-6, "{name}");
        }
        // Rounding is by at most half a step.
        let step = weight.to_kind(Kind::Float).abs().amax([1], true) / 127.0;
        let off = (q.values(Kind::Float) - weight.to_kind(Kind::Float)).abs() - step * 0.5001;
        assert!(f64::try_from(off.max()).unwrap() <= 1e-7, "{name}");
    }
}

#[test]
fn a_zero_stays_zero() {
    let g = golden();
    let weight = g.load("zero_rows.weight", Device::Cpu).unwrap();
    for bits in [Bits::Int8, Bits::Nf4] {
        let values = Quantised::new(&weight, bits, Device::Cpu).unwrap().values(Kind::Float);
        assert_eq!(f64::try_from(values.narrow(0, 3, 6).abs().max()).unwrap(), 0.0);
    }
}

#[test]
fn four_bits_take_at_most_three_tenths_of_bf16() {
    for (rows, columns) in [(384, 384), (2048, 512), (300, 70)] {
        let weight = Tensor::randn([rows, columns], CPU);
        let share = |bits| {
            let q = Quantised::new(&weight, bits, Device::Cpu).unwrap();
            q.bytes() as f64 / (2 * rows * columns) as f64
        };
        assert!(share(Bits::Nf4) <= 0.26, "{}", share(Bits::Nf4));
        assert!(share(Bits::Int8) <= 0.53, "{}", share(Bits::Int8));
    }
}

#[test]
fn products_and_gradients_are_those_of_the_values() {
    crate::device::set_threads(1);
    for bits in [Bits::Int8, Bits::Nf4] {
        let make = |rows: i64| Quantised::new(&Tensor::randn([rows, 70], CPU), bits, Device::Cpu).unwrap();
        let (a, b) = (make(33), make(7));
        let x = Tensor::randn([9, 70], CPU).set_requires_grad(true);
        let bias = Tensor::randn([40], CPU).set_requires_grad(true);
        let up = Tensor::randn([9, 40], CPU);
        let grads = |y: &Tensor| {
            crate::grad::backward(&[y.shallow_clone()], &[up.shallow_clone()]).unwrap();
            [&x, &bias].map(|t| {
                let g = t.grad().copy();
                let _ = t.grad().zero_();
                g
            })
        };
        let ours = linear(&x, &[&a, &b], Some(&bias));
        let values = Tensor::cat(&[a.values(Kind::Float), b.values(Kind::Float)], 0);
        let want = x.linear(&values, Some(&bias));
        assert!(apart(&ours, &want) < 1e-5);
        for (g, w) in grads(&ours).iter().zip(&grads(&want)) {
            assert!(apart(g, w) < 1e-5);
        }
        // Nothing to learn, nothing to keep.
        assert!(!linear(&x.detach(), &[&a], None).requires_grad());
        let half = linear(&x.to_kind(Kind::BFloat16), &[&a], None);
        assert_eq!(half.kind(), Kind::BFloat16);
        half.sum(Kind::Float).backward();
        assert!(x.grad().isfinite().all().int64_value(&[]) == 1);
    }
}

#[test]
fn what_cannot_be_quantised_is_an_error() {
    let e = |t: &Tensor| Quantised::new(t, Bits::Nf4, Device::Cpu).unwrap_err().to_string();
    assert!(e(&Tensor::ones([3], CPU)).contains("matrix"));
    let infinite = Tensor::from_slice(&[1.0f32, f32::INFINITY]).view([1, 2]);
    assert!(e(&infinite).contains("not finite"));
    let nan = Tensor::from_slice(&[f32::NAN, 1.0]).view([1, 2]);
    assert!(e(&nan).contains("not finite"));
}
