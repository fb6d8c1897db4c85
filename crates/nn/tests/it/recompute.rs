//! Layers that are made again in the backward pass. A process of its own: the generator and the allocator's counters are
//! global.

use crate::goldens;

use ragduet_nn::{LanguageModel, Mode, PackedTokens, fresh_language_model, load_language_model};
use ragduet_testkit::{assert_close, assert_relative};
use ragduet_torch::{Compute, Device, Kind, Tensor, device, grad, rng};
use std::path::Path;

/// Hidden states, gradients by name, and the peak of memory, with dropout.
fn run(
    model: &mut LanguageModel,
    texts: &[Vec<u32>],
    recompute: bool,
) -> (Tensor, Vec<(String, Tensor)>, u64) {
    let lm = model.causal_mut().unwrap();
    lm.set_dropout(Some(0.2), Some(0.2));
    lm.set_recompute(recompute);
    rng::seed(4);
    let before = device::cpu_tensor_memory().unwrap().in_use;
    device::reset_peak(Device::Cpu).unwrap();
    let batch = PackedTokens::from_ids(texts.iter().map(Vec::as_slice), Device::Cpu);
    let hidden = lm.forward(&batch, Mode::train(Compute::F32));
    hidden.square().sum(Kind::Float).backward();
    let peak = device::cpu_tensor_memory().unwrap().peak - before;
    let params = model.params.trainable();
    let with_grad = params.iter().filter(|(_, p)| p.grad().defined());
    let grads = with_grad.map(|(n, p)| (n.clone(), p.grad().copy())).collect();
    grad::clear(&params.iter().map(|(_, p)| p.shallow_clone()).collect::<Vec<_>>()).unwrap();
    (hidden.detach(), grads, peak)
}

fn compare(name: &str, model: &mut LanguageModel, texts: &[Vec<u32>]) -> (u64, u64) {
    let (kept, again) = (run(model, texts, false), run(model, texts, true));
    // Without a graph GELU is fused with its product: the same but for rounding.
    assert_close(&again.0, &kept.0, 1e-5, name);
    assert!(kept.1.len() > 10 && kept.1.len() == again.1.len(), "{name}");
    for ((n, a), (_, b)) in kept.1.iter().zip(&again.1) {
        assert_relative(b, a, 1e-5, &format!("{name}: {n}"));
    }
    (kept.2, again.2)
}

#[test]
fn gradients_are_the_same_and_memory_is_lower() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    let text = |n: u32| (0..n).map(|i| 3 + i * 7 % 20).collect::<Vec<u32>>();
    for name in goldens::one_of_each(|spec| spec.is_decoder_only()) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(&name);
        let mut model = load_language_model(&dir, Device::Cpu).unwrap();
        let _ = compare(&name, &mut model, &[text(9), text(1), text(20)]);
    }
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    rng::seed(3);
    let mut model = fresh_language_model(config, Device::Cpu).unwrap();
    let (kept, again) = compare("fresh", &mut model, &vec![text(150); 20]);
    println!("{} MB instead of {} MB", again >> 20, kept >> 20);
    assert!(again * 2 < kept, "{again} of {kept}");
}
