//! `best/`: the folder of the model that did best, as the ecosystem reads it, with its card.

use super::config::EvalConfig;
use crate::Result;
use crate::biencoder::BiEncoder;
use crate::card::{CardFacts, model_card};
use crate::st_dir;
use crate::tower::Tower;
use ragduet_metrics::Evaluation;
use std::path::Path;

/// What the model card says of the run.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub run: &'a ragduet_train::Facts<'a, Evaluation>,
    /// The folder or hub id that training started from; none: random weights.
    pub base: Option<&'a str>,
    /// The training data.
    pub data: &'a str,
    /// Examples in it.
    pub examples: usize,
    pub eval: &'a EvalConfig,
}

/// Fills the folder and checks that the files give the model's embeddings again.
pub(super) fn save(model: &BiEncoder, dir: &Path, f: &Facts<'_>) -> Result<()> {
    let card = model_card(
        model,
        &CardFacts {
            name: f.run.name,
            base: f.base.unwrap_or("random weights"),
            data: f.data,
            examples: f.examples,
            step: f.run.step,
            config: f.run.config,
            before: f.run.before.map(|e| &e.scores),
            after: f.run.dev.map(|e| &e.scores),
            measures: &f.eval.measures,
        },
    );
    let texts =
        ["what is it?", "A longer passage, with a comma, 12 numbers and some unusual words: zyxomma."];
    st_dir::save(model, dir, Some(&card))?;
    st_dir::verify(model, dir, &texts.map(String::from))
}

/// "n of m parameters train", with the model's place and precision.
pub(super) fn parameters_line(model: &BiEncoder) -> String {
    let resting: u64 = model.towers().map(Tower::resting).sum();
    let (all, training) = model.parameters().iter().fold((resting, 0), |(a, t), (_, p)| {
        let n = p.numel() as u64;
        (a + n, t + if p.requires_grad() { n } else { 0 })
    });
    let share = 100.0 * training as f64 / all.max(1) as f64;
    format!("{training} of {all} parameters train ({share:.1} %); {} on {:?}", model.compute, model.device)
}
