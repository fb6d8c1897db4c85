//! Re-ranking of what a first stage finds, for the commands that search.

use super::numbers::count;
use super::{Usage, counter};
use anyhow::{Context, Result};
use ragduet_metrics::Run;
use ragduet_nn::hub;
use ragduet_reranker::CrossEncoder;
use ragduet_retriever::evaluate::EvalSet;
use ragduet_torch::{Precision, device};
use std::collections::HashMap;

/// Whether what is found is re-ranked, and with what.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RerankArgs {
    /// Cross-encoder that re-ranks the results (folder or Hugging Face id).
    #[arg(long, value_name = "MODEL")]
    pub rerank: Option<String>,
    /// Number of passages re-ranked per question.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = count)]
    pub rerank_depth: usize,
}

/// Tokens of a forward pass.
pub const TOKENS: usize = 16_384;

/// A cross-encoder and how deep it looks.
#[derive(Debug)]
pub struct Reranker {
    /// The model.
    pub model: CrossEncoder,
    /// Passages of each question.
    pub depth: usize,
}

impl RerankArgs {
    /// The model, where one is asked for.
    pub fn load(&self, on: &str, precision: Precision) -> Result<Option<Reranker>> {
        let Some(name) = &self.rerank else { return Ok(None) };
        if self.rerank_depth == 0 {
            return Err(Usage("--rerank-depth must be 1 or more".into()).into());
        }
        let device = device::parse(on).map_err(|e| Usage(e.to_string()))?;
        let model = CrossEncoder::load(&hub::resolve(name)?, device, precision.resolve(device))
            .with_context(|| format!("cannot load the cross-encoder `{name}`"))?;
        Ok(Some(Reranker { model, depth: self.rerank_depth }))
    }
}

/// Passages of a set by name.
pub fn texts(set: &EvalSet) -> HashMap<&str, &str> {
    set.passages.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect()
}

impl Reranker {
    /// A ranking of a set in the model's order.
    pub fn ranking(&self, set: &EvalSet, run: &Run, quiet: bool) -> Result<Run> {
        let pairs: usize = run.iter().map(|(_, docs)| docs.len().min(self.depth)).sum();
        let bar = counter("re-ranking", Some(pairs as u64), quiet);
        let out = self.model.rerank_set(set, run, self.depth, TOKENS, &mut |n| bar.inc(n as u64))?;
        bar.finish_and_clear();
        Ok(out)
    }
}
