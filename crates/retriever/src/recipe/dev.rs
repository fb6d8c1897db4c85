//! The dev set that a retriever is measured on while it trains: queries to be ranked for, or pairs with scores.

use super::config::{DataConfig, EvalConfig};
use crate::Result;
use crate::biencoder::BiEncoder;
use crate::encode::EncodeSettings;
use crate::evaluate::{EvalSet, evaluate_model};
use crate::scored_pairs::ScoredPairs;
use ragduet_data::BadRows;
use ragduet_metrics::Evaluation;
use ragduet_train::Evaluated;

/// What is measured on.
#[derive(Debug)]
pub(super) enum DevSet {
    /// Queries with judgements, and the corpus.
    Ranking(EvalSet),
    /// Pairs with scores.
    Pairs(ScoredPairs),
}

impl DevSet {
    /// Reads it. `scores`: whether the loss learns from the scores of pairs, so that a dev set of such pairs is measured
    /// by correlation.
    pub fn read(
        data: &DataConfig,
        scores: bool,
        eval: &EvalConfig,
        seed: u64,
        bad: &BadRows,
    ) -> Result<Option<Self>> {
        let Some(path) = &data.dev else { return Ok(None) };
        let options = data.dev_options()?;
        if scores && let Some(pairs) = ScoredPairs::read(path, &options, bad)? {
            return Ok(Some(Self::Pairs(pairs)));
        }
        EvalSet::read(path, &options, eval.max_passages, seed, bad).map(Self::Ranking).map(Some)
    }
}

/// The dev set, where there is one, and what is measured on it.
#[derive(Debug)]
pub(super) struct Dev<'a> {
    pub set: Option<DevSet>,
    pub eval: &'a EvalConfig,
}

impl Dev<'_> {
    /// How texts are encoded outside of training steps.
    pub fn encode(&self) -> EncodeSettings {
        EncodeSettings { batch_tokens: self.eval.batch_tokens, ..EncodeSettings::default() }
    }

    /// Measures a model on it.
    pub fn evaluate(&self, model: &BiEncoder) -> Result<Option<Evaluated<Evaluation>>> {
        let dev = match &self.set {
            None => return Ok(None),
            Some(DevSet::Pairs(pairs)) => {
                let found = pairs.evaluate(model, &self.encode())?;
                let figure = |value: Option<f64>| value.unwrap_or(f64::NAN);
                let main = figure(found.spearman);
                let named = vec![("spearman".into(), main), ("pearson".into(), figure(found.pearson))];
                return Ok(Some(Evaluated { scores: Evaluation::default(), main, named }));
            }
            Some(DevSet::Ranking(dev)) => dev,
        };
        let e = self.eval;
        let (scores, _) = evaluate_model(model, dev, &e.measures, e.depth, &self.encode(), &mut |_, _| ())?;
        let main = scores.mean(e.measures[0]).unwrap_or(f64::NAN);
        let named = scores.mean.iter().map(|(m, v)| (m.to_string(), v)).collect();
        Ok(Some(Evaluated { scores, main, named }))
    }
}
