//! The dev set that a retriever is measured on while it trains.

use super::config::EvalConfig;
use crate::Result;
use crate::biencoder::BiEncoder;
use crate::encode::EncodeSettings;
use crate::evaluate::{EvalSet, evaluate_model};
use ragduet_data::{BadRows, ReadOptions};
use ragduet_metrics::Evaluation;
use ragduet_train::Evaluated;
use std::path::Path;

/// The dev set, where there is one, and what is measured on it.
#[derive(Debug)]
pub(super) struct Dev<'a> {
    pub set: Option<EvalSet>,
    pub eval: &'a EvalConfig,
}

impl Dev<'_> {
    /// Reads it.
    pub fn read(
        path: Option<&Path>,
        split: &str,
        eval: &EvalConfig,
        seed: u64,
        bad: &BadRows,
    ) -> Result<Option<EvalSet>> {
        let options = ReadOptions { split: Some(split.into()), ..ReadOptions::default() };
        path.map(|path| EvalSet::read(path, &options, eval.max_passages, seed, bad)).transpose()
    }

    /// How texts are encoded outside of training steps.
    pub fn encode(&self) -> EncodeSettings {
        EncodeSettings { batch_tokens: self.eval.batch_tokens, ..EncodeSettings::default() }
    }

    /// Ranks it with a model.
    pub fn evaluate(&self, model: &BiEncoder) -> Result<Option<Evaluated<Evaluation>>> {
        let Some(dev) = &self.set else { return Ok(None) };
        let e = self.eval;
        let (scores, _) = evaluate_model(model, dev, &e.measures, e.depth, &self.encode(), &mut |_, _| ())?;
        let main = scores.mean(e.measures[0]).unwrap_or(f64::NAN);
        let named = scores.mean.iter().map(|(m, v)| (m.to_string(), v)).collect();
        Ok(Some(Evaluated { scores, main, named }))
    }
}
