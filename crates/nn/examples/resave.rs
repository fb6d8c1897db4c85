//! Loads a language model's folder, writes it to another and continues a prompt greedily with a cache:
//!
//! ```text
//! resave <folder> <to> <new tokens> <id> <id> ...
//! ```
//!
//! Prints `{"logits": [[..]], "tokens": [..]}`: the prompt's logits and the tokens chosen. An encoder-decoder reads the
//! prompt as its source; the logits are those of the prompt as a target, behind the start token. Used by
//! `tests/python/test_language_models.py`.

use ragduet_nn::{CausalLm, LmKind, Mode, PackedTokens, Seq2SeqLm, load_language_model, save_language_model};
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
    let _guard = no_grad();
    let (all, tokens) = match &model.kind {
        LmKind::Causal(lm) => causal(lm.as_ref(), &prompt, new)?,
        LmKind::Seq2Seq(lm) => {
            let start = model.generation.decoder_start_token_id.ok_or("no decoder_start_token_id")?;
            seq2seq(lm.as_ref(), &prompt, start, new)?
        }
    };
    let all: Vec<Vec<f32>> = Vec::try_from(&all)?;
    println!("{}", serde_json::json!({"logits": all, "tokens": tokens}));
    Ok(())
}

/// The logits, and the tokens chosen.
type Outcome = Result<(Tensor, Vec<u32>), Box<dyn Error>>;

fn plain() -> Mode {
    Mode::eval(Compute::F32)
}

fn packed(ids: &[u32]) -> PackedTokens {
    PackedTokens::from_ids([ids], Device::Cpu)
}

fn causal(lm: &dyn CausalLm, prompt: &[u32], new: usize) -> Outcome {
    let all = lm.logits(&lm.forward(&packed(prompt), plain()), plain());
    let mut cache = lm.new_cache(1, 64, plain(), Device::Cpu);
    Ok((all, greedy(prompt, new, |ids| lm.logits(&lm.extend(&packed(ids), &mut cache), plain()))?))
}

fn seq2seq(lm: &dyn Seq2SeqLm, prompt: &[u32], start: u32, new: usize) -> Outcome {
    let source = packed(prompt);
    let encoded = lm.encode(&source, plain());
    let target: Vec<u32> = [start].iter().chain(prompt).copied().collect();
    let all = lm.logits(&lm.decode(&packed(&target), &encoded, &source.segments, plain()), plain());
    let mut cache = lm.start_cache(&encoded, &source.segments, 64, plain());
    Ok((all, greedy(&[start], new, |ids| lm.logits(&lm.extend(&packed(ids), &mut cache), plain()))?))
}

/// `step`: the logits of new tokens.
fn greedy(
    first: &[u32],
    new: usize,
    mut step: impl FnMut(&[u32]) -> Tensor,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let mut logits = step(first);
    let mut tokens = Vec::new();
    while tokens.len() < new {
        let last = logits.narrow(0, logits.size()[0] - 1, 1);
        let next = u32::try_from(i64::try_from(last.argmax(-1, false))?)?;
        tokens.push(next);
        logits = step(&[next]);
    }
    Ok(tokens)
}
