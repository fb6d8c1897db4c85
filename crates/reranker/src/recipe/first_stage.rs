//! What the first stage finds: negatives for training, and the candidates of dev. Found once, and kept in the run folder.

use super::config::CrossEncoderConfig;
use crate::{Error, Result};
use ragduet_data::TrainingSet;
use ragduet_metrics::{Qrels, Run};
use ragduet_nn::hub;
use ragduet_retriever::EncodeSettings;
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::mining::mine;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_torch::weights::write_atomic;
use ragduet_train::RunContext;
use std::path::Path;

/// Queries that are re-ranked while training.
pub(super) struct Dev {
    pub set: EvalSet,
    pub ranking: Run,
}

/// What was found.
#[derive(Default)]
pub(super) struct FirstStageRun {
    /// Passages by query.
    pub negatives: Option<Vec<Vec<u32>>>,
    pub dev: Option<Dev>,
}

/// Where it is kept.
const FOLDER: &str = "first-stage";
const NEGATIVES: &str = "negatives.json";
const RANKED: &str = "dev.trec";

impl FirstStageRun {
    /// `fingerprint`: the training set's.
    ///
    /// # Errors
    /// A model that does not load; a folder that was made from other data.
    pub fn of(
        config: &CrossEncoderConfig,
        set: &TrainingSet,
        dev: Option<EvalSet>,
        context: &RunContext,
        fingerprint: u64,
    ) -> Result<Self> {
        let Some(first) = &config.first_stage else { return Ok(Self::default()) };
        let texts = dev.iter().flat_map(|d| &d.queries).map(|(id, text)| format!("{id} {text}"));
        let of_dev = ragduet_train::Fingerprint::default()
            .texts(texts.collect::<Vec<_>>().iter().map(String::as_str))
            .digest();
        let key = format!("{} {fingerprint:016x} {of_dev:016x}\n", first.model);
        let make = |folder: &Path| -> Result<()> {
            let dir = hub::resolve(&first.model)?;
            let model = st_dir::load(&dir, context.device, context.compute, &Overrides::default())?;
            let encode = EncodeSettings::default();
            let (chosen, report) = mine(&model, set, &first.mining, 0, &encode, &mut |_, _| ())?;
            tracing::info!("first stage: {report}");
            if let Some(dev) = &dev {
                let e = &config.eval;
                let (_, run) = evaluate_model(&model, dev, &e.measures, e.depth, &encode, &mut |_, _| ())?;
                run.write_trec(folder.join(RANKED), "first-stage")?;
            }
            let rows: Vec<Vec<u32>> = chosen.iter().map(|c| c.iter().map(|m| m.passage).collect()).collect();
            let text = serde_json::to_vec(&rows).map_err(|e| Error::Unusable(e.to_string()))?;
            Ok(write_atomic(&folder.join(NEGATIVES), &text)?)
        };
        let read = |folder: &Path| -> Result<(Vec<Vec<u32>>, Option<Run>)> {
            let file = folder.join(NEGATIVES);
            let rows = serde_json::from_slice(&fs_err::read(&file)?).map_err(|e| {
                Error::Unusable(format!("{}: {e}; remove the run folder and begin anew", file.display()))
            })?;
            let run = dev.as_ref().map(|_| Run::read_trec(folder.join(RANKED))).transpose()?;
            Ok((rows, run))
        };
        let (negatives, run) = context.dir.artifact(&context.world, FOLDER, &key, make, read)?;
        let dev = match (dev, run) {
            (Some(set), Some(run)) => Some(Dev::of(config, set, &run)?),
            _ => None,
        };
        Ok(Self { negatives: Some(negatives), dev })
    }
}

impl Dev {
    /// The first `eval.limit` queries, with `eval.depth` candidates each.
    fn of(config: &CrossEncoderConfig, set: EvalSet, whole: &Run) -> Result<Self> {
        let e = &config.eval;
        let most = if e.limit == 0 { usize::MAX } else { e.limit };
        let mut ranking = Run::new();
        for (id, _) in set.queries.iter().take(most) {
            let docs = whole.get(id).unwrap_or_default().iter().take(e.depth);
            ranking.insert(id.clone(), docs.cloned().collect())?;
        }
        // Queries that are not ranked would count as failures.
        let mut qrels = Qrels::new();
        for (query, docs) in set.qrels.iter().filter(|(q, _)| ranking.get(q).is_some()) {
            for (doc, &grade) in docs {
                qrels.insert(query, doc.clone(), grade)?;
            }
        }
        Ok(Self { set: EvalSet { qrels, ..set }, ranking })
    }
}
