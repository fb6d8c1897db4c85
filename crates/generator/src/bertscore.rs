//! BERTScore with any encoder's folder (Zhang et al., 2020, arXiv 1904.09675), equal to `bert-score` 0.3.13: token vectors of
//! a chosen layer, greedy matching by cosine. Figures of different encoders or layers do not compare.

use crate::error::{Error, Result, bad};
use ragduet_metrics::bertscore::{Idf, Tokens, plain_weights, score};
use ragduet_metrics::{Example, rouge::Prf};
use ragduet_nn::{EncoderModel, Mode, PackedTokens, load_encoder};
use ragduet_text::{EncodeOptions, Encoding, Tokenizer};
use ragduet_torch::{Compute, Device, Tensor, catch, no_grad};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// An encoder whose token vectors are compared.
#[derive(Debug)]
pub struct BertScorer {
    model: EncoderModel,
    tokenizer: Tokenizer,
    device: Device,
    compute: Compute,
}

/// Tokens of a forward pass.
const BATCH: usize = 16_384;

impl BertScorer {
    /// Loads an encoder's folder. `layer`: the one whose outputs are compared, from 1; absent: the last.
    ///
    /// # Errors
    /// A folder that does not load, or a layer that is not there.
    pub fn load(dir: &Path, layer: Option<usize>, device: Device, compute: Compute) -> Result<Self> {
        let mut model = load_encoder(dir, device)?;
        let layers = model.encoder.layers();
        if let Some(layer) = layer {
            if layer == 0 || layer > layers {
                return Err(bad("bertscore", format!("layer {layer} of an encoder with {layers}")));
            }
            model.encoder.truncate(layer);
        }
        let tokenizer = Tokenizer::from_dir(dir)?;
        if tokenizer.vocab_size() > model.encoder.vocab_size() {
            return Err(Error::Unusable(format!(
                "{}: tokenizer and model do not belong together",
                dir.display()
            )));
        }
        Ok(Self { model, tokenizer, device, compute })
    }

    /// Precision, recall and F1 of each prediction, the best over its references. With `idf`, tokens weigh by how rare
    /// they are among the references.
    ///
    /// # Errors
    /// An example without references; memory that runs out.
    pub fn score(&self, examples: &[Example], idf: bool) -> Result<Vec<Prf>> {
        if let Some(i) = examples.iter().position(|e| e.references.is_empty()) {
            return Err(Error::Unusable(format!("answer {} has nothing to be compared with", i + 1)));
        }
        let all = examples.iter().flat_map(|e| [&e.prediction].into_iter().chain(&e.references));
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut texts: Vec<&str> = Vec::new();
        for text in all {
            places.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            });
        }
        let encodings = self.encode(&texts)?;
        let references =
            examples.iter().flat_map(|e| &e.references).map(|r| encodings[places[r.as_str()]].ids.as_slice());
        let idf = idf.then(|| Idf::new(references));
        let special: Vec<u32> =
            [self.tokenizer.cls_id(), self.tokenizer.sep_id()].into_iter().flatten().collect();
        let weights: Vec<Vec<f64>> = encodings
            .iter()
            .map(|e| idf.as_ref().map_or_else(|| plain_weights(&e.ids, &special), |idf| idf.weights(&e.ids)))
            .collect();
        let vectors = self.vectors(&encodings)?;
        let dim = self.model.encoder.hidden_size() as usize;
        let tokens = |text: &str| {
            let i = places[text];
            Tokens { vectors: &vectors[i], weights: &weights[i] }
        };
        examples
            .par_iter()
            .map(|e| {
                let references: Vec<Tokens<'_>> = e.references.iter().map(|r| tokens(r)).collect();
                Ok(score(tokens(&e.prediction), &references, dim)?)
            })
            .collect()
    }

    fn encode(&self, texts: &[&str]) -> Result<Vec<Encoding>> {
        let limit = self.model.encoder.max_tokens();
        let max_len = Some(self.tokenizer.model_max_length().map_or(limit, |n| n.min(limit)));
        // A byte-level vocabulary has other pieces for words behind a space; bert-score puts one in front.
        let byte_level = self.tokenizer.token_to_id("\u{120}").is_some();
        let texts: Vec<String> = texts
            .iter()
            .map(|t| match t.trim() {
                t if t.is_empty() || !byte_level => t.to_string(),
                t => format!(" {t}"),
            })
            .collect();
        let options = EncodeOptions { max_len, strip: false, ..EncodeOptions::default() };
        Ok(self.tokenizer.encode_batch(&texts, &options)?)
    }

    /// The vectors of each text, a row per token.
    fn vectors(&self, encodings: &[Encoding]) -> Result<Vec<Vec<f32>>> {
        let mut order: Vec<usize> = (0..encodings.len()).filter(|&i| !encodings[i].is_empty()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(encodings[i].len()));
        let mut out = vec![Vec::new(); encodings.len()];
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            let (now, later) = rest.split_at((BATCH / encodings[longest].len()).clamp(1, rest.len()));
            let rows = catch("encoding answers", "take a smaller encoder", || -> Result<Vec<f32>> {
                let _guard = no_grad();
                let texts =
                    now.iter().map(|&i| (encodings[i].ids.as_slice(), encodings[i].type_ids.as_slice()));
                let batch = PackedTokens::new(texts, self.device);
                let hidden: Tensor = self.model.encoder.forward(&batch, Mode::eval(self.compute));
                let flat = hidden.reshape([-1]).to_device(Device::Cpu);
                Ok(Vec::try_from(flat).map_err(ragduet_torch::Error::from)?)
            })?;
            let dim = self.model.encoder.hidden_size() as usize;
            let mut at = 0;
            for &i in now {
                let n = encodings[i].len() * dim;
                out[i] = rows[at..at + n].to_vec();
                at += n;
            }
            rest = later;
        }
        Ok(out)
    }
}
