//! Supervised fine-tuning: question, contexts, answer.

use super::config::SftConfig;
use super::parts::build;
pub use super::supervised::Outcome;
use super::supervised::{EpochBuilder, Records, Supervised, TokenLoss};
use crate::error::Result;
use crate::loss::SftLoss;
use crate::model::Generator;
use crate::packed::PackedExamples;
use ragduet_torch::{Tensor, grad};
use ragduet_train::{Metrics, RunOptions};

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// A config, a model or data that cannot work, a loss that is no number, memory, files.
pub fn train(config: &SftConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| {
        let records = Records::read(config, context)?;
        let peft = config.peft.as_ref();
        let generator =
            build(&config.model, peft, context.compute, context.device, None, || records.texts())?;
        let epochs = EpochBuilder::new(&generator, config, records, false)?;
        Supervised::new(config.clone(), generator, epochs, Box::new(config.loss))
    })?;
    Ok(done.into())
}

impl TokenLoss for SftLoss {
    fn learn(&self, student: &Generator, batch: &PackedExamples, step_tokens: u64) -> Result<Metrics> {
        let nll = batch.nll(student, student.mode(true));
        let share = self.share(&nll, step_tokens);
        grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
        Ok(Metrics::of(&share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScratchGenerator;
    use ragduet_nn::{Mode, PackedTokens};
    use ragduet_text::TrainExample;
    use ragduet_torch::{Compute, Device, Kind, no_grad, rng};
    use std::path::Path;

    /// The definition: log-softmax of the whole logits, text by text.
    fn plain(g: &Generator, e: &TrainExample) -> f64 {
        let packed = PackedTokens::from_ids([e.ids.as_slice()], Device::Cpu);
        let hidden = g.model.causal().unwrap().forward(&packed, Mode::eval(Compute::F32));
        let log_p = g.model.kind.logits(&hidden, Mode::eval(Compute::F32)).log_softmax(-1, Kind::Float);
        let on = (1..e.ids.len()).filter(|&i| e.loss[i]);
        on.map(|i| -log_p.double_value(&[i as i64 - 1, i64::from(e.ids[i])])).sum()
    }

    #[test]
    fn packed_examples_lose_what_they_lose_alone_and_a_window_is_a_mean_over_its_tokens() {
        ragduet_torch::device::set_threads(1);
        rng::seed(4);
        let size =
            ScratchGenerator { vocab_size: 280, hidden_size: 32, layers: 2, ..ScratchGenerator::default() };
        let g =
            size.build(["some words to learn pieces from"].into_iter(), Device::Cpu, Compute::F32).unwrap();
        let example = |n: usize, from: usize| TrainExample {
            ids: (0..n).map(|i| ((i * 37 + from * 11) % 250) as u32 + 5).collect(),
            loss: (0..n).map(|i| i >= from).collect(),
            source: 0,
            parts: Vec::new(),
        };
        let examples = [example(9, 4), example(30, 28), example(2, 1), example(17, 0)];
        let want: f64 = {
            let _g = no_grad();
            examples.iter().map(|e| plain(&g, e)).sum::<f64>()
        };
        let tokens: usize = examples.iter().map(TrainExample::targets).sum();
        let window = [
            PackedExamples::of(examples[..3].iter().cloned()),
            PackedExamples::of(examples[3..].iter().cloned()),
        ];
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        assert_eq!(learned, tokens);
        let have: f64 = window
            .iter()
            .map(|b| f64::try_from(b.nll(&g, Mode::eval(Compute::F32)).sum(Kind::Double)).unwrap())
            .sum();
        assert!((have - want).abs() < 1e-4 * want, "{have} {want}");
    }

    /// transformers' `labels` loss on the same batch, padded (`tests/golden/make_seq2seq.py`).
    #[test]
    fn an_encoder_decoders_loss_is_that_of_transformers() {
        ragduet_torch::device::set_threads(1);
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/seq2seq.json")).unwrap();
        let rows = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(golden[key].clone()).unwrap() };
        let examples = rows("sources").into_iter().zip(rows("targets")).map(|(source, target)| {
            let n = source.len();
            let ids: Vec<u32> = source.into_iter().chain([0]).chain(target).collect();
            TrainExample { loss: (0..ids.len()).map(|i| i > n).collect(), ids, source: n, parts: Vec::new() }
        });
        let batch = PackedExamples::of(examples);
        for name in ["t5", "flan_t5"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/lm").join(name);
            let tokenizer = ragduet_text::train_byte_bpe(["a"], &Default::default()).unwrap();
            let model = ragduet_nn::load_language_model(&dir, Device::Cpu).unwrap();
            let g = Generator::new(model, tokenizer, Device::Cpu, Compute::F32);
            let nll = batch.nll(&g, Mode::eval(Compute::F32));
            let loss = crate::loss::SftLoss::Nll.share(&nll, batch.targets.len() as u64);
            let want = golden["models"][name]["loss"].as_f64().unwrap();
            let have = f64::try_from(loss).unwrap();
            assert!((have - want).abs() < 1e-5 * want, "{name}: {have} {want}");
        }
    }

    /// Loss and gradients of a window that transformers computes over padded batches (tests/golden/make_sft.py).
    #[test]
    fn a_window_has_the_loss_and_gradients_of_padded_batches() {
        ragduet_torch::device::set_threads(1);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sft");
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
        }
        let options = ragduet_text::ByteBpeOptions { vocab_size: 280, ..Default::default() };
        ragduet_text::train_byte_bpe(["some words"], &options).unwrap().save(dir.path()).unwrap();
        let g = Generator::load(dir.path(), Device::Cpu, Compute::F32).unwrap();
        let text = std::fs::read_to_string(golden.join("window.json")).unwrap();
        let want: serde_json::Value = serde_json::from_str(&text).unwrap();
        let example = |e: &serde_json::Value| TrainExample {
            ids: serde_json::from_value(e["ids"].clone()).unwrap(),
            loss: serde_json::from_value(e["loss"].clone()).unwrap(),
            source: 0,
            parts: Vec::new(),
        };
        let window: Vec<PackedExamples> = want["batches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| PackedExamples::of(b.as_array().unwrap().iter().map(example)))
            .collect();
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        assert_eq!(learned as u64, want["items"].as_u64().unwrap());
        g.model.params.set_trainable(|_| true);
        let mut loss = 0.0;
        for batch in &window {
            let share =
                crate::loss::SftLoss::Nll.share(&batch.nll(&g, Mode::eval(Compute::F32)), learned as u64);
            share.backward();
            loss += f64::try_from(share.detach()).unwrap();
        }
        let expected = want["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5 * expected, "{loss} {expected}");
        let grads = ragduet_torch::weights::Weights::open_file(&golden.join("grads.safetensors")).unwrap();
        for (name, parameter) in g.model.params.iter() {
            let want = grads.load(name, Device::Cpu).unwrap();
            let apart = (parameter.tensor.grad() - &want).abs().max().double_value(&[]);
            let size = want.abs().max().double_value(&[]);
            assert!(size > 0.0 && apart < 1e-4 * size, "{name}: {apart} of {size}");
        }
    }
}
