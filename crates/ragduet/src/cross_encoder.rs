//! Re-ranking.

use crate::options::{folder, loading};
use crate::{Error, Hit, LoadOptions, Result};
use ragduet_torch::Quantize;
use std::path::Path;

/// Tokens of a forward pass.
const TOKENS: usize = 16_384;

/// A cross-encoder: it reads a question and a passage together and gives one number for how well they match. Slower than a
/// retriever and more exact, it puts the passages that a retriever found in a better order.
///
/// ```no_run
/// use ragduet::{CrossEncoder, Index, Retriever};
///
/// let (retriever, index) = (Retriever::load("runs/mine/best")?, Index::open("my.idx")?);
/// let reranker = CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L6-v2")?;
/// let question = "what causes tides?";
/// let best = reranker.rerank(question, index.search(&retriever, question, 50)?)?;
/// println!("{}", best[0].passage.text);
/// # Ok::<(), ragduet::Error>(())
/// ```
#[derive(Debug)]
pub struct CrossEncoder {
    model: ragduet_reranker::CrossEncoder,
}

impl CrossEncoder {
    /// Loads a folder of sentence-transformers' `CrossEncoder` (`best` of a training run is one), an adapter's, or a model
    /// of the Hugging Face hub, on the device and in the precision that are fastest here.
    ///
    /// # Errors
    /// No such folder or model, a classifier with more than one label.
    pub fn load(id: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(id, &LoadOptions::default())
    }

    /// [`CrossEncoder::load`] on a device and in a precision of choice.
    ///
    /// # Errors
    /// As there; a device that is not there; quantization, which cross-encoders do not have.
    pub fn load_with(id: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let id = id.as_ref();
        loading("cross-encoder", id, || {
            if options.quantize != Quantize::None {
                return Err(Error::Argument("a cross-encoder is not quantized: leave it out".into()));
            }
            let (device, compute) = options.resolve()?;
            let model = ragduet_reranker::CrossEncoder::load(&folder(id)?, device, compute)?;
            Ok(Self { model })
        })
    }

    /// A score for each passage, as sentence-transformers' `predict` gives it: the logit, or its sigmoid where the model's
    /// config says so. Higher is better.
    ///
    /// # Errors
    /// A pair without tokens; memory that runs out.
    pub fn scores(&self, question: &str, passages: &[impl AsRef<str>]) -> Result<Vec<f64>> {
        let pairs: Vec<(&str, &str)> = passages.iter().map(|p| (question, p.as_ref())).collect();
        Ok(self.model.scores(&pairs, TOKENS)?)
    }

    /// Hits in this model's order, best first; their scores are its logits. Of a passage it reads title and text.
    ///
    /// # Errors
    /// As [`CrossEncoder::scores`].
    pub fn rerank(&self, question: &str, hits: Vec<Hit>) -> Result<Vec<Hit>> {
        let texts: Vec<String> = hits.iter().map(|h| h.passage.full_text()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let order = self.model.order(question, &texts, TOKENS)?;
        let hit = |(at, logit): (usize, f64)| Hit { score: logit as f32, passage: hits[at].passage.clone() };
        Ok(order.into_iter().map(hit).collect())
    }

    /// The model itself, for what `ragduet-reranker` can do beyond this.
    pub fn model(&self) -> &ragduet_reranker::CrossEncoder {
        &self.model
    }
}

/// A model that `ragduet-reranker` loaded or trained.
impl From<ragduet_reranker::CrossEncoder> for CrossEncoder {
    fn from(model: ragduet_reranker::CrossEncoder) -> Self {
        Self { model }
    }
}
