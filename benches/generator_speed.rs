//! A generator's speed, for `scripts/bench_peers generator`: greedy decoding with a cache, or steps of supervised
//! fine-tuning (fused cross-entropy, clipping, AdamW). Prints a line of JSON; loading and warming up are not counted.
//!
//!     generator_speed generate DIR bf16|fp32 TEXTS.json NEW_TOKENS RUNS
//!     generator_speed train|lora DIR bf16|fp32 TEXTS.json STEPS
//!     generator_speed sft DIR bf16|fp32 STEPS.json packed|padded
//!
//! TEXTS.json: a list of lists of token ids, all of one batch. Training learns every token but a text's first; with
//! `lora` in an adapter of rank 16 over every linear layer. STEPS.json (of scripts/bench_packing.py): per step its
//! examples, each with `ids` and `from`, the place of its first learned token; `padded` appends to each example tokens
//! that nobody learns, up to the longest of the step: what a trainer that pads computes.

use ragduet_generator::decode::{DecodeConfig, Hooks, Request, Stepper, generate};
use ragduet_nn::peft::{Adapter, LoraConfig, PeftConfig};
use ragduet_nn::{CausalLm, KvCache, LanguageModel, Mode, PackedTokens, load_language_model};
use ragduet_torch::loss::linear_cross_entropy;
use ragduet_torch::optim::{AdamW, AdamWOptions, GroupRule};
use ragduet_torch::{Compute, Device, Kind, Tensor, grad};
use std::path::Path;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;
type Outcome<T> = Result<T, Failure>;

/// A model without a tokenizer, for `decode::generate`.
struct Bare<'a> {
    lm: &'a dyn CausalLm,
    cache: KvCache,
    mode: Mode,
}

impl Stepper for Bare<'_> {
    fn step(&mut self, tokens: &[Vec<u32>]) -> ragduet_generator::Result<Tensor> {
        let batch = PackedTokens::from_ids(tokens.iter().map(Vec::as_slice), Device::Cpu);
        let hidden = self.lm.extend(&batch, &mut self.cache);
        let last: Vec<i64> = batch.segments.offsets()[1..].iter().map(|end| end - 1).collect();
        let hidden = if batch.segments.longest() == 1 {
            hidden
        } else {
            hidden.index_select(0, &Tensor::from_slice(&last))
        };
        Ok(self.lm.logits(&hidden, self.mode))
    }

    fn reorder(&mut self, from: &[usize]) -> ragduet_generator::Result<()> {
        self.cache.reorder(from);
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        self.lm.vocab_size()
    }
}

fn decode(
    model: &LanguageModel,
    compute: Compute,
    texts: &[Vec<u32>],
    new: usize,
    runs: usize,
) -> Outcome<serde_json::Value> {
    let lm = model.causal().ok_or("not a causal model")?;
    let config = |n| DecodeConfig { max_new_tokens: Some(n), ..DecodeConfig::default() }.resolve(None, &[]);
    let requests: Vec<Request> =
        texts.iter().map(|t| Request { prompt: t.clone(), ..Request::default() }).collect();
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let once = |n: usize| -> Outcome<_> {
        let started = Instant::now();
        let mode = Mode::eval(compute);
        let cache = lm.new_cache(texts.len(), longest + n, mode, Device::Cpu);
        let out = generate(&mut Bare { lm, cache, mode }, &requests, &config(n)?, Hooks::default())?;
        let tokens: Vec<Vec<u32>> = out.into_iter().flatten().map(|g| g.tokens).collect();
        Ok((started.elapsed().as_secs_f64(), tokens))
    };
    once(8.min(new))?;
    let mut seconds = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..runs {
        let (s, t) = once(new)?;
        seconds.push(s);
        tokens = t;
    }
    let total: usize = tokens.iter().map(Vec::len).sum();
    seconds.sort_by(f64::total_cmp);
    Ok(serde_json::json!({"rate": total as f64 / seconds[runs / 2], "tokens": tokens}))
}

/// A text and the place of its first learned token.
#[derive(Debug, Clone, serde::Deserialize)]
struct Example {
    ids: Vec<u32>,
    from: usize,
}

/// A model that learns, step by step.
struct Trainer<'a> {
    lm: &'a dyn CausalLm,
    mode: Mode,
    optimizer: AdamW,
}

impl Trainer<'_> {
    /// One step; its loss.
    fn step(&mut self, texts: &[Example]) -> Outcome<f64> {
        self.optimizer.clear_grads()?;
        let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for t in texts {
            let learned = t.from.max(1)..t.ids.len();
            rows.extend(learned.clone().map(|i| (start + i - 1) as i64));
            targets.extend(t.ids[learned].iter().map(|&id| i64::from(id)));
            start += t.ids.len();
        }
        self.learn(texts, &Tensor::from_slice(&rows), &Tensor::from_slice(&targets))
    }

    fn learn(&mut self, texts: &[Example], rows: &Tensor, targets: &Tensor) -> Outcome<f64> {
        let batch = PackedTokens::from_ids(texts.iter().map(|t| t.ids.as_slice()), Device::Cpu);
        let hidden = self.lm.forward(&batch, self.mode).index_select(0, rows);
        let head = self.lm.head(self.mode);
        let (nll, _) = linear_cross_entropy(&hidden, &head.weight, targets, head.scale, self.mode.compute);
        let loss = nll.mean(Kind::Float);
        loss.backward();
        grad::clip_norm(&self.optimizer.grads(), 1.0)?;
        self.optimizer.step(1e-4)?;
        Ok(f64::try_from(&loss)?)
    }

    /// The same step with every text as long as the longest.
    fn padded_step(&mut self, texts: &[Example]) -> Outcome<f64> {
        let longest = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0);
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let mut padded = texts.to_vec();
        for (i, t) in padded.iter_mut().enumerate() {
            let learned = t.from.max(1)..t.ids.len();
            rows.extend(learned.clone().map(|at| (i * longest + at - 1) as i64));
            targets.extend(t.ids[learned].iter().map(|&id| i64::from(id)));
            t.ids.resize(longest, 0);
        }
        self.learn(&padded, &Tensor::from_slice(&rows), &Tensor::from_slice(&targets))
    }
}

fn trainer<'a>(
    model: &'a LanguageModel,
    compute: Compute,
    adapter: Option<&Adapter>,
) -> Outcome<Trainer<'a>> {
    let lm = model.causal().ok_or("not a causal model")?;
    let rule = |_: &str| GroupRule { lr_scale: 1.0, weight_decay: 0.01 };
    let trained = adapter.map_or(&model.params, |a| &a.params).trainable();
    let mode = Mode::train(compute).with(adapter.map(|a| a.id));
    Ok(Trainer { lm, mode, optimizer: AdamW::new(&trained, AdamWOptions::default(), rule) })
}

fn train(
    model: &LanguageModel,
    compute: Compute,
    texts: &[Vec<u32>],
    steps: usize,
    lora: bool,
) -> Outcome<serde_json::Value> {
    let mut adapter = None;
    if lora {
        model.params.set_trainable(|_| false);
        let config = PeftConfig::Lora(LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() });
        adapter = Some(Adapter::fresh(model.base(Device::Cpu)?, &config)?);
    }
    let mut trainer = trainer(model, compute, adapter.as_ref())?;
    let examples: Vec<Example> = texts.iter().map(|t| Example { ids: t.clone(), from: 1 }).collect();
    let mut losses = vec![trainer.step(&examples)?];
    let started = Instant::now();
    for _ in 0..steps {
        losses.push(trainer.step(&examples)?);
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let rate = (steps * tokens) as f64 / started.elapsed().as_secs_f64();
    Ok(serde_json::json!({"rate": rate, "losses": losses}))
}

/// Learned tokens per second over steps of examples; the first warms up.
fn sft(
    model: &LanguageModel,
    compute: Compute,
    steps: &[Vec<Example>],
    how: &str,
) -> Outcome<serde_json::Value> {
    let mut trainer = trainer(model, compute, None)?;
    let mut started = Instant::now();
    let (mut losses, mut learned) = (Vec::new(), 0);
    for (i, step) in steps.iter().enumerate() {
        losses.push(match how {
            "packed" => trainer.step(step)?,
            "padded" => trainer.padded_step(step)?,
            other => return Err(format!("{other}: packed or padded").into()),
        });
        if i == 0 {
            started = Instant::now();
        } else {
            learned += step.iter().map(|t| t.ids.len() - t.from).sum::<usize>();
        }
    }
    let rate = learned as f64 / started.elapsed().as_secs_f64();
    Ok(serde_json::json!({"rate": rate, "losses": losses}))
}

fn run() -> Outcome<()> {
    ragduet_torch::device::use_caching_allocator();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, dir, precision, texts, rest @ ..] = args.as_slice() else {
        return Err("generator_speed generate|train|lora|sft DIR bf16|fp32 TEXTS.json ...".into());
    };
    let count = |i: usize| rest.get(i).ok_or("a number is missing")?.parse::<usize>().map_err(Failure::from);
    let compute = if precision == "bf16" { Compute::Bf16 } else { Compute::F32 };
    let text = std::fs::read_to_string(texts)?;
    let model = load_language_model(Path::new(dir), Device::Cpu)?;
    if what == "sft" {
        let how = rest.first().ok_or("packed or padded is missing")?;
        println!("{}", sft(&model, compute, &serde_json::from_str::<Vec<Vec<Example>>>(&text)?, how)?);
        return Ok(());
    }
    let texts: Vec<Vec<u32>> = serde_json::from_str(&text)?;
    let result = match what.as_str() {
        "generate" => decode(&model, compute, &texts, count(0)?, count(1)?.max(1))?,
        "train" | "lora" => train(&model, compute, &texts, count(0)?.max(1), what == "lora")?,
        other => return Err(format!("{other}: generate, train, lora or sft").into()),
    };
    println!("{result}");
    Ok(())
}

fn main() {
    if let Err(e) = run() {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
