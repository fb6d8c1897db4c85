//! How well does a retriever find what was judged relevant?

use crate::biencoder::BiEncoder;
use crate::encode::{EncodeProgress, EncodeSettings};
use crate::search::search_exact;
use crate::{Error, Result};
use ragduet_data::{BadRows, Beir, Format, ReadOptions, TrainingSet, read_examples};
use ragduet_index::IdMap;
use ragduet_metrics::{Evaluation, Measure, Qrels, Run, evaluate};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::path::Path;

/// Queries with judgements, and the corpus to find them in.
#[derive(Debug)]
pub struct EvalSet {
    /// (id, text) of the passages.
    pub passages: Vec<(String, String)>,
    /// (id, text) of the judged queries.
    pub queries: Vec<(String, String)>,
    /// The judgements.
    pub qrels: Qrels,
}

impl EvalSet {
    /// A split of a BEIR directory, or any file of examples, whose passages are then the corpus.
    ///
    /// `max_passages` keeps all judged passages and a seeded sample of the others: quicker during training, and the
    /// figures are then higher than over the whole corpus.
    pub fn read(
        path: &Path,
        options: &ReadOptions,
        max_passages: Option<usize>,
        seed: u64,
        bad: &BadRows,
    ) -> Result<Self> {
        let format = options.format.map_or_else(|| Format::detect(path), Ok)?;
        let set = if format == Format::Beir {
            Self::beir(path, options.split.as_deref().unwrap_or("dev"), bad)?
        } else {
            Self::examples(path, options, bad)?
        };
        if set.queries.is_empty() {
            return Err(Error::Unusable(format!("{}: no judged queries", path.display())));
        }
        Ok(match max_passages {
            Some(most) => set.sampled(most, seed),
            None => set,
        })
    }

    fn beir(path: &Path, split: &str, bad: &BadRows) -> Result<Self> {
        let beir = Beir::open(path)?;
        let mut qrels = Qrels::new();
        for q in beir.qrels(split, bad)? {
            let q = q?;
            qrels.insert(q.query, q.passage, q.grade)?;
        }
        let mut queries = Vec::new();
        for q in beir.queries(bad)? {
            let q = q?;
            if qrels.get(&q.id).is_some() {
                queries.push((q.id, q.text));
            }
        }
        let mut passages = Vec::new();
        for p in beir.corpus(bad)? {
            let p = p?;
            passages.push((p.id.clone(), p.full_text()));
        }
        Ok(Self { passages, queries, qrels })
    }

    fn examples(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Self> {
        let set = TrainingSet::from_examples(read_examples(path, options, bad)?)?;
        let mut qrels = Qrels::new();
        let mut judged = Vec::new();
        for (i, q) in set.queries().iter().enumerate() {
            for &p in set.positives_of_query(i as u32) {
                qrels.insert(q.id.clone(), set.passages()[p as usize].id.clone(), 1)?;
            }
            judged.push((q.id.clone(), q.text.clone()));
        }
        let passages = set.passages().iter().map(|p| (p.id.clone(), p.full_text())).collect();
        Ok(Self { passages, queries: judged, qrels })
    }

    fn sampled(mut self, most: usize, seed: u64) -> Self {
        if self.passages.len() <= most {
            return self;
        }
        let judged: HashSet<&str> =
            self.qrels.iter().flat_map(|(_, docs)| docs.keys().map(String::as_str)).collect();
        let (keep, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.passages).into_iter().partition(|(id, _)| judged.contains(id.as_str()));
        let room = most.saturating_sub(keep.len()).min(rest.len());
        let mut chosen = sample(&mut ChaCha8Rng::seed_from_u64(seed), rest.len(), room).into_vec();
        chosen.sort_unstable();
        let mut passages = keep;
        passages.extend(chosen.into_iter().map(|i| rest[i].clone()));
        Self { passages, ..self }
    }
}

/// The measures that are reported when nothing else is asked for.
pub fn default_measures() -> Vec<Measure> {
    ["ndcg@10", "mrr@10", "recall@10", "recall@100", "map@100", "mrr"]
        .iter()
        .filter_map(|m| m.parse().ok())
        .collect()
}

/// Ranks the whole corpus for every query by exact search, `depth` deep, and scores the ranking.
pub fn evaluate_model(
    model: &BiEncoder,
    set: &EvalSet,
    measures: &[Measure],
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<(Evaluation, Run)> {
    // A name that two passages have would be two documents of one ranking.
    IdMap::from_ids(set.passages.iter().map(|(id, _)| id))?;
    let passages = set.passages.iter().map(|(_, t)| Ok(t.clone()));
    let queries: Vec<String> = set.queries.iter().map(|(_, t)| t.clone()).collect();
    let found = search_exact(model, passages, &queries, depth.max(1), &[], encode, progress)?;
    let mut run = Run::new();
    for ((name, _), hits) in set.queries.iter().zip(found.hits) {
        let docs = hits.into_iter().map(|h| (set.passages[h.id as usize].0.clone(), h.score)).collect();
        run.insert(name.clone(), docs)?;
    }
    Ok((evaluate(&set.qrels, &run, measures), run))
}
