//! What a training step keeps: the whole model beside adapters over it, by the allocator's own counters. A process of its
//! own: the counters are global.

use ragduet_nn::peft::{Adapter, Ia3Config, LoraConfig, PeftConfig};
use ragduet_nn::{LanguageModel, Mode, PackedTokens, fresh_language_model};
use ragduet_torch::loss::linear_cross_entropy;
use ragduet_torch::optim::{AdamW, AdamWOptions, GroupRule};
use ragduet_torch::{Compute, Device, Kind, Tensor, device, rng};

const TOKENS: i64 = 64;

fn model() -> LanguageModel {
    rng::seed(3);
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 2000, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
    });
    fresh_language_model(config, Device::Cpu).unwrap()
}

/// Bytes of the model, and the most beside it in two steps of AdamW: the adapter, gradients, moments, inner values.
fn step(peft: Option<&PeftConfig>, compute: Compute) -> (u64, u64) {
    let start = device::cpu_tensor_memory().unwrap().in_use;
    let model = model();
    let held = device::cpu_tensor_memory().unwrap().in_use - start;
    device::reset_peak(Device::Cpu).unwrap();
    model.params.set_trainable(|_| peft.is_none());
    let adapter = peft.map(|c| Adapter::fresh(model.base(Device::Cpu).unwrap(), c).unwrap());
    let params = adapter.as_ref().map_or(&model.params, |a| &a.params).trainable();
    let rule = |_: &str| GroupRule { lr_scale: 1.0, weight_decay: 0.0 };
    let mut optimizer = AdamW::new(&params, AdamWOptions::default(), rule);
    let mode = Mode::train(compute).with(adapter.as_ref().map(|a| a.id));
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| i * 7 % 2000).collect();
    let batch = PackedTokens::from_ids([ids.as_slice()], Device::Cpu);
    let targets = Tensor::arange(TOKENS, (Kind::Int64, Device::Cpu));
    for _ in 0..2 {
        let hidden = model.causal().unwrap().forward(&batch, mode);
        let head = model.kind.head(mode);
        let (loss, _) = linear_cross_entropy(&hidden, &head.weight, &targets, 1.0, compute);
        loss.sum(Kind::Float).backward();
        optimizer.step(1e-3).unwrap();
        optimizer.clear_grads().unwrap();
    }
    (held, device::cpu_tensor_memory().unwrap().peak - start - held)
}

#[test]
fn an_adapters_step_takes_a_part_of_the_whole_models() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    let lora = PeftConfig::Lora(LoraConfig { rank: 8, ..LoraConfig::default() });
    let ia3 = PeftConfig::Ia3(Ia3Config::default());
    for compute in [Compute::F32, Compute::Bf16] {
        let [full, lora, ia3] = [None, Some(&lora), Some(&ia3)].map(|c| step(c, compute));
        let mib = |b: u64| b as f64 / f64::from(1 << 20);
        println!(
            "{compute:?}: model {:.1} MiB; beside it full {:.1}, LoRA {:.1}, (IA)^3 {:.1} MiB",
            mib(full.0),
            mib(full.1),
            mib(lora.1),
            mib(ia3.1)
        );
        assert_eq!(full.0, lora.0);
        // Gradients and two moments are three times the model.
        assert!(full.1 > 3 * full.0, "{compute:?}");
        assert!(lora.1 * 3 < full.1, "{compute:?}: LoRA");
        assert!(ia3.1 * 3 < full.1, "{compute:?}: (IA)^3");
        // What is left is inner values and operands, which a step of the whole model has as well.
        assert!(full.1 - lora.1 > 2 * full.0, "{compute:?}");
    }
}
