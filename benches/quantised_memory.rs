//! What a quantised base takes: resident memory after loading and at its peak, and the time of a step of LoRA over it.
//!
//!     cargo run --release -p ragduet-benches --bin quantised_memory -- make DIR [layers]
//!     cargo run --release -p ragduet-benches --bin quantised_memory -- DIR none|int8|nf4 [tokens]
//!
//! `make` writes a Llama with random weights (about 12M a layer). Each measurement is a process of its own.

use ragduet_nn::peft::{Adapter, LoraConfig, PeftConfig};
use ragduet_nn::{
    Mode, PackedTokens, fresh_language_model, load_quantised_language_model, save_language_model,
};
use ragduet_torch::{Compute, Device, Kind, Quantize, device, grad};
use std::path::Path;
use std::time::Instant;

/// A line of /proc/self/status in MB.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        >> 10
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    device::use_caching_allocator();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u32| args.get(i).and_then(|n| n.parse().ok()).unwrap_or(default);
    match args.as_slice() {
        [make, dir, ..] if make == "make" => {
            let config = serde_json::json!({
                "model_type": "llama", "vocab_size": 1024, "hidden_size": 1024, "intermediate_size": 2816,
                "num_hidden_layers": number(2, 16), "num_attention_heads": 16, "num_key_value_heads": 16,
                "tie_word_embeddings": true,
            });
            Ok(save_language_model(&fresh_language_model(config, Device::Cpu)?, Path::new(dir))?)
        }
        [dir, quantize, ..] => {
            let bits = quantize.parse::<Quantize>()?.bits();
            let start = Instant::now();
            let model = load_quantised_language_model(Path::new(dir), Device::Cpu, bits)?;
            let loaded = start.elapsed().as_secs_f64();
            let tensors = device::cpu_tensor_memory().ok_or("no counters")?;
            let parameters = model.params.count().0;
            println!(
                "{quantize}: {}M parameters, {} MB counted, {} MB of tensors (peak {}), RssAnon {} MB; loaded in {loaded:.2} s",
                parameters / 1_000_000,
                model.params.bytes() >> 20,
                tensors.in_use >> 20,
                tensors.peak >> 20,
                status("RssAnon"),
            );
            model.params.set_trainable(|_| false);
            let config = PeftConfig::Lora(LoraConfig::default());
            let adapter = Adapter::fresh(model.base(Device::Cpu)?, &config)?;
            let ids: Vec<u32> = (0..number(2, 256)).map(|i| i * 31 % 1000).collect();
            let batch = PackedTokens::from_ids([ids.as_slice()], Device::Cpu);
            let lm = model.causal().ok_or("not decoder-only")?;
            let params: Vec<_> = adapter.params.trainable().into_iter().map(|(_, t)| t).collect();
            let mut times = Vec::new();
            for _ in 0..4 {
                let start = Instant::now();
                let y = lm.forward(&batch, Mode::train(Compute::Bf16).with(Some(adapter.id)));
                grad::backward(&[y.square().mean(Kind::Float)], &[ragduet_torch::Tensor::from(1f32)])?;
                grad::clear(&params)?;
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            println!(
                "  a step of {} tokens in {:.2} s, RssAnon then {} MB",
                ids.len(),
                times[1],
                status("RssAnon")
            );
            Ok(())
        }
        _ => Err("make DIR, or DIR none|int8|nf4".into()),
    }
}
