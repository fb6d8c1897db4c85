//! Loads a language model's folder, writes it to another and continues a prompt greedily with a cache:
//!
//! ```text
//! resave <folder> <to> <new tokens> <id> <id> ...
//! ```
//!
//! Prints `{"logits": [[..]], "tokens": [..]}`: the prompt's logits and the tokens chosen. Used by
//! `tests/python/test_language_models.py`.

use ragduet_nn::{CausalLm, Mode, PackedTokens, load_language_model, save_language_model};
use ragduet_torch::{Compute, Device, Tensor, no_grad};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, new, prompt @ ..] = args.as_slice() else {
        return Err("usage: resave <folder> <to> <new tokens> <id> ...".into());
    };
    let new: usize = new.parse()?;
    let prompt: Vec<u32> = prompt.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let model = load_language_model(Path::new(from), Device::Cpu)?;
    save_language_model(&model, Path::new(to))?;
    let lm = model.causal().ok_or("not a decoder-only model")?;
    let _guard = no_grad();
    let batch = PackedTokens::from_ids([prompt.as_slice()], Device::Cpu);
    let all = lm.logits(&lm.forward(&batch, Mode::eval(Compute::F32)), Mode::eval(Compute::F32));
    let all: Vec<Vec<f32>> = Vec::try_from(&all)?;
    println!("{}", serde_json::json!({"logits": all, "tokens": greedy(lm, &batch, new)?}));
    Ok(())
}

fn greedy(lm: &dyn CausalLm, prompt: &PackedTokens, new: usize) -> Result<Vec<u32>, Box<dyn Error>> {
    let mut cache = lm.new_cache(1, 64, Mode::eval(Compute::F32), Device::Cpu);
    let mut hidden = lm.extend(prompt, &mut cache);
    let mut tokens = Vec::new();
    while tokens.len() < new {
        let last: Tensor = hidden.narrow(0, hidden.size()[0] - 1, 1);
        let next =
            u32::try_from(i64::try_from(lm.logits(&last, Mode::eval(Compute::F32)).argmax(-1, false))?)?;
        tokens.push(next);
        hidden = lm.extend(&PackedTokens::from_ids([[next].as_slice()], Device::Cpu), &mut cache);
    }
    Ok(tokens)
}
