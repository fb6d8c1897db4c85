//! Where the time of an encoder goes: a training step and an encoding pass of MiniLM's shape (6 layers, 384 wide,
//! 12 heads, 1536 inner) on a batch like COVID-QA's, part by part, and how far the matrix products are from what
//! this machine can do.
//!
//!     cargo run --release -p ragduet-benches --bin breakdown -- [bf16|fp32]
//!
//! Parts are timed alone, forward (and backward) on tensors of the batch's size, and multiplied by how often a pass
//! has them; the last line compares their sum with the whole pass.

use ragduet_nn::{Mode, PackedTokens, fresh_encoder};
use ragduet_torch::ops::{AttentionOptions, Norm, Segments, add_norm, gelu, varlen_attention};
use ragduet_torch::optim::{AdamW, AdamWOptions, GroupRule};
use ragduet_torch::{Compute, Device, Kind, Tensor, no_grad, rng};
use std::time::Instant;

const LAYERS: i64 = 6;
const HIDDEN: i64 = 384;
const INNER: i64 = 1536;
const HEADS: i64 = 12;
const VOCAB: i64 = 30522;
const DROPOUT: f64 = 0.1;

/// 32 questions and 32 passages, of lengths as in COVID-QA.
fn lengths() -> Vec<usize> {
    (0..32).map(|i| 10 + i % 13).chain((0..32).map(|i| 150 + (i * 37) % 107)).collect()
}

/// Median seconds of `f` over some runs.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let mut runs: Vec<f64> = (0..7)
        .map(|_| {
            let started = Instant::now();
            f();
            started.elapsed().as_secs_f64()
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn random(shape: &[i64], kind: Kind) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1).to_kind(kind)
}

fn leaf(shape: &[i64], kind: Kind) -> Tensor {
    random(shape, kind).set_requires_grad(true)
}

/// Seconds forward alone (no graph), and forward with backward.
fn both(f: impl Fn() -> Tensor) -> (f64, f64) {
    let forward = time(|| {
        let _guard = no_grad();
        let _ = f();
    });
    let up = f().ones_like().detach();
    let train = time(|| {
        // Failing here is a bug of the bench; the message says which.
        if let Err(e) = ragduet_torch::grad::backward(&[f()], &[up.shallow_clone()]) {
            eprintln!("backward: {e}");
        }
    });
    (forward, train)
}

struct Part {
    name: &'static str,
    encode: f64,
    train: f64,
    flops: f64,
}

fn main() {
    ragduet_torch::device::use_caching_allocator();
    let compute = match std::env::args().nth(1).as_deref() {
        Some("fp32") => Compute::F32,
        _ => Compute::Bf16,
    };
    let kind = compute.kind();
    rng::seed(0);
    let lengths = lengths();
    let segs = Segments::new(&lengths, Device::Cpu);
    let n = segs.tokens();
    println!("{n} tokens in {} texts, {compute}, {} threads", segs.len(), tch_threads());

    // What the machine can do: a large product.
    let (a, b) = (random(&[4096, 4096], kind), random(&[4096, 4096], kind));
    let peak = 2.0 * 4096f64.powi(3) / time(|| drop(a.matmul(&b))) / 1e9;

    let mut parts = Vec::new();
    let mut products = |name, inputs: i64, outputs: i64| {
        let x = leaf(&[n, inputs], kind);
        let (w, bias) = (leaf(&[outputs, inputs], Kind::Float), leaf(&[outputs], Kind::Float));
        let (encode, train) = both(|| x.linear(&w.to_kind(kind), Some(&bias.to_kind(kind))));
        let flops = 2.0 * (n * inputs * outputs) as f64;
        let l = LAYERS as f64;
        parts.push(Part { name, encode: encode * l, train: train * l, flops: flops * l });
    };
    products("product q, k, v", HIDDEN, 3 * HIDDEN);
    products("product out", HIDDEN, HIDDEN);
    products("product up", HIDDEN, INNER);
    products("product down", INNER, HIDDEN);
    let product_count = parts.len();

    let head = [n, HEADS, HIDDEN / HEADS];
    let (q, k, v) = (leaf(&head, kind), leaf(&head, kind), leaf(&head, kind));
    let attention = |dropout| {
        let o = AttentionOptions { scale: 0.177, dropout, causal: false, window: None };
        both(|| varlen_attention(&q, &k, &v, &segs, &o))
    };
    let ((encode, _), (_, train)) = (attention(0.0), attention(DROPOUT));
    let l = LAYERS as f64;
    parts.push(Part { name: "attention", encode: encode * l, train: train * l, flops: 0.0 });

    let (x, r) = (leaf(&[n, HIDDEN], kind), leaf(&[n, HIDDEN], Kind::Float));
    let (w, bias) = (leaf(&[HIDDEN], Kind::Float), leaf(&[HIDDEN], Kind::Float));
    let norm = |p| both(|| add_norm(&x, &r, &Norm { weight: &w, bias: Some(&bias), eps: 1e-12 }, p).1);
    let ((encode, _), (_, train)) = (norm(0.0), norm(DROPOUT));
    parts.push(Part { name: "norms", encode: encode * 2.0 * l, train: train * 2.0 * l, flops: 0.0 });

    let x = leaf(&[n, INNER], kind);
    let (encode, train) = both(|| gelu(&x));
    parts.push(Part { name: "GELU", encode: encode * l, train: train * l, flops: 0.0 });

    let table = leaf(&[VOCAB, HIDDEN], Kind::Float);
    let ids = Tensor::randint(VOCAB, [n], (Kind::Int64, Device::Cpu));
    let (encode, train) = both(|| Tensor::embedding(&table, &ids, -1, false, false));
    parts.push(Part { name: "embeddings", encode, train, flops: 0.0 });

    // The whole, and the optimiser.
    let config = serde_json::json!({"model_type": "bert", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER});
    let model = match fresh_encoder(config, Device::Cpu) {
        Ok(m) => m,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::exit(1);
        }
    };
    let texts: Vec<Vec<u32>> = lengths.iter().map(|&l| (0..l as u32).map(|i| 1000 + i).collect()).collect();
    let types: Vec<Vec<u32>> = lengths.iter().map(|&l| vec![0; l]).collect();
    let batch =
        PackedTokens::new(texts.iter().zip(&types).map(|(t, z)| (t.as_slice(), z.as_slice())), Device::Cpu);
    let whole_encode = both_once(|| model.encoder.forward(&batch, Mode::eval(compute)), false);
    let whole_train = both_once(|| model.encoder.forward(&batch, Mode::train(compute)), true);
    let rule = |_: &str| GroupRule { lr_scale: 1.0, weight_decay: 0.01 };
    let mut optimizer = AdamW::new(&model.params.trainable(), AdamWOptions::default(), rule);
    let step = time(|| {
        if let Err(e) = optimizer.step(1e-5) {
            eprintln!("optimizer: {e}");
        }
    });

    println!("{:<18}{:>12}{:>8}{:>14}{:>8}", "", "encode ms", "%", "train ms", "%");
    let row = |name: &str, e: f64, t: f64| {
        let share = |x: f64, of: f64| 100.0 * x / of;
        println!(
            "{name:<18}{:>12.1}{:>8.1}{:>14.1}{:>8.1}",
            e * 1e3,
            share(e, whole_encode),
            t * 1e3,
            share(t, whole_train + step)
        );
    };
    for p in &parts {
        row(p.name, p.encode, p.train);
    }
    row("optimizer", 0.0, step);
    let sum = |f: fn(&Part) -> f64| parts.iter().map(f).sum::<f64>();
    row("sum of parts", sum(|p| p.encode), sum(|p| p.train) + step);
    row("whole", whole_encode, whole_train + step);
    let products = &parts[..product_count];
    let flops: f64 = products.iter().map(|p| p.flops).sum();
    let rate = |seconds: f64, times: f64| times * flops / seconds / 1e9;
    println!(
        "matrix products: {:.0} GFLOP/s encoding, {:.0} training; a 4096^3 product reaches {peak:.0}",
        rate(products.iter().map(|p| p.encode).sum(), 1.0),
        // Backward has two products for each of the forward pass.
        rate(products.iter().map(|p| p.train).sum(), 3.0),
    );
    println!(
        "encoding {:.0} texts/s, {:.0} tokens/s; training {:.1} pairs/s",
        segs.len() as f64 / whole_encode,
        n as f64 / whole_encode,
        32.0 / (whole_train + step)
    );
}

fn both_once(f: impl Fn() -> Tensor, train: bool) -> f64 {
    let (encode, with_backward) = both(f);
    if train { with_backward } else { encode }
}

fn tch_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
