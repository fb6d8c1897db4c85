//! Hard negatives: passages that the current encoder ranks high for a query although they do not answer it.
//!
//! The corpus is encoded, searched for every training query through the exact scan or an HNSW graph (whichever the
//! cost model says is cheaper, or as told), and negatives are chosen from the ranking by rank window, score and
//! margin. A graph that was mined with is audited against the scan on a sample of queries: a graph that misses the
//! hardest passages silently makes training easier than it was meant to be.

mod config;

pub use config::{Finder, MiningConfig, MiningIndex, OtherModel, SelfMining, When};

use crate::biencoder::BiEncoder;
use crate::encode::{EncodeProgress, EncodeSettings, encode_texts};
use crate::representation::{Representation, Side};
use crate::search::{dot, search_exact};
use crate::st_dir::{self, Overrides};
use crate::{Error, Result};
use ragduet_data::TrainingSet;
use ragduet_index::cost::choose_for_mining;
use ragduet_index::negatives::{Dropped, NegativeSelection};
use ragduet_index::{
    ExactConfig, ExactIndex, Hit, HnswIndex, IndexKind, LexicalConfig, LexicalIndex, RecallReport,
    SearchParams, VectorIndex, VectorIndexMut, Vectors, recall_against_exact,
};
use ragduet_nn::hub;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Statistics of one mining round.
#[derive(Debug, Clone, Serialize)]
pub struct MiningReport {
    /// Queries.
    pub queries: usize,
    /// Passages in the index.
    pub passages: usize,
    /// `exact` or `hnsw`.
    pub index: IndexKind,
    /// Recall of the HNSW graph against exact search, if a graph was used.
    pub recall: Option<RecallReport>,
    /// Negatives selected, over all queries.
    pub chosen: u64,
    /// Queries without any negative.
    pub without: usize,
    /// Rejected candidates by reason.
    pub dropped: Dropped,
    /// Mean similarity of the lowest positive of each query.
    pub mean_positive: f64,
    /// Mean similarity of the selected negatives.
    pub mean_negative: f64,
    /// Encoding time in seconds.
    pub encode_seconds: f64,
    /// Time for index construction, search and selection in seconds.
    pub search_seconds: f64,
}

impl std::fmt::Display for MiningReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} negatives for {} queries from {} passages by {} search; {} queries got none; mean score {:.3} against {:.3} \
             of the positives",
            self.chosen,
            self.queries,
            self.passages,
            self.index,
            self.without,
            self.mean_negative,
            self.mean_positive
        )?;
        if let Some(r) = &self.recall {
            write!(f, "; recall@{} of the graph {:.4} on {} queries", r.k, r.recall, r.queries)?;
        }
        let d = &self.dropped;
        write!(
            f,
            "; not taken: {} positives or duplicates, {} outside the ranks, {} by score, {} by margin; {:.1} s encoding, \
             {:.1} s searching",
            d.excluded,
            d.outside_window,
            d.above_max_score + d.below_min_score,
            d.absolute_margin + d.relative_margin,
            self.encode_seconds,
            self.search_seconds
        )
    }
}

/// One chosen negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mined {
    /// The passage's number in the training set's pool.
    pub passage: u32,
    /// Its similarity to the query.
    pub score: f32,
}

/// What was found for the queries of a training set.
struct Found {
    hits: Vec<Vec<Hit>>,
    /// Scores of each query's known positives.
    positives: Vec<Vec<f32>>,
    index: IndexKind,
    recall: Option<RecallReport>,
    encode_seconds: f64,
    search_seconds: f64,
}

/// Chosen negatives per query of the training set, and the report. `model` is the one that is trained; `config.with` may
/// name another to find them.
pub fn mine(
    model: &BiEncoder,
    set: &TrainingSet,
    config: &MiningConfig,
    round: u64,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<(Vec<Vec<Mined>>, MiningReport)> {
    config.select.validate()?;
    let passages: Vec<String> = set.passages().iter().map(|p| p.full_text()).collect();
    let queries: Vec<String> = set.queries().iter().map(|q| q.text.clone()).collect();
    let known = (0..queries.len() as u32).map(|q| set.positives_of_query(q).len()).max().unwrap_or(0);
    let depth = config.select.candidates_needed(known).min(passages.len()).max(1);
    let found = match &config.with {
        Finder::Own(_) => by_model(model, set, config, (&passages, &queries), depth, encode, progress)?,
        Finder::Model(other) => {
            let dir = hub::resolve(&other.path)?;
            let other = st_dir::load(&dir, model.device, model.compute, &Overrides::default())?;
            by_model(&other, set, config, (&passages, &queries), depth, encode, progress)?
        }
        Finder::Lexical(words) => by_words(words, set, (&passages, &queries), depth)?,
    };
    let started = Instant::now();
    // A new round draws anew, but repeats itself when it is run again.
    let select = NegativeSelection { seed: config.select.seed.wrapping_add(round), ..config.select.clone() };
    let chosen: Vec<_> = found
        .hits
        .par_iter()
        .zip(&found.positives)
        .enumerate()
        .map(|(q, (hits, scores))| {
            // Equal texts share a pool entry, so known positives cover their duplicates.
            let same = |id: u32| !set.may_be_negative(q as u32, id);
            select.choose(&set.queries()[q].id, hits, scores, same)
        })
        .collect();
    let mut negatives: Vec<Vec<Mined>> = Vec::with_capacity(queries.len());
    let mut dropped = Dropped::default();
    for chosen in chosen {
        let chosen = chosen?;
        dropped += chosen.dropped;
        negatives.push(chosen.negatives.iter().map(|h| Mined { passage: h.id, score: h.score }).collect());
    }
    let least: Vec<f32> = found.positives.iter().filter_map(|s| s.iter().copied().reduce(f32::min)).collect();
    let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
    let all = negatives.iter().flatten();
    let chosen = all.clone().count();
    let report = MiningReport {
        queries: queries.len(),
        passages: passages.len(),
        index: found.index,
        recall: found.recall,
        chosen: chosen as u64,
        without: negatives.iter().filter(|n| n.is_empty()).count(),
        dropped,
        mean_positive: mean(least.iter().map(|&s| f64::from(s)).sum(), least.len()),
        mean_negative: mean(all.map(|m| f64::from(m.score)).sum(), chosen),
        encode_seconds: found.encode_seconds,
        search_seconds: found.search_seconds + started.elapsed().as_secs_f64(),
    };
    Ok((negatives, report))
}

fn by_model(
    model: &BiEncoder,
    set: &TrainingSet,
    config: &MiningConfig,
    texts: (&[String], &[String]),
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Found> {
    match model.representation() {
        Representation::Dense(_) => by_vectors(model, set, config, texts, depth, encode, progress),
        Representation::LateInteraction(_) => {
            exactly(model, IndexKind::MultiVector, set, texts, depth, encode, progress)
        }
        Representation::Sparse(_) => exactly(model, IndexKind::Sparse, set, texts, depth, encode, progress),
    }
}

/// By exact search, as there is nothing else for the model's kind.
fn exactly(
    model: &BiEncoder,
    index: IndexKind,
    set: &TrainingSet,
    (passages, queries): (&[String], &[String]),
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Found> {
    let started = Instant::now();
    let asked: Vec<Vec<u32>> =
        (0..queries.len() as u32).map(|q| set.positives_of_query(q).to_vec()).collect();
    let stream = passages.iter().map(|t| Ok(t.clone()));
    let found = search_exact(model, stream, queries, depth, &asked, encode, progress)?;
    Ok(Found {
        hits: found.hits,
        positives: found.asked,
        index,
        recall: None,
        encode_seconds: started.elapsed().as_secs_f64() - found.search_seconds,
        search_seconds: found.search_seconds,
    })
}

/// By BM25. Its scores are no similarities: margins of `select` then are in its units.
fn by_words(
    words: &LexicalConfig,
    set: &TrainingSet,
    (passages, queries): (&[String], &[String]),
    depth: usize,
) -> Result<Found> {
    let started = Instant::now();
    let mut index = LexicalIndex::new(words)?;
    index.add(passages)?;
    let hits = index.search(queries, &SearchParams::top(depth))?;
    let score = |q: usize, p: u32| -> Result<f32> {
        Ok(index.explain(&queries[q], p)?.iter().map(|(_, part)| *part as f32).sum())
    };
    let of = |q: usize| set.positives_of_query(q as u32).iter().map(|&p| score(q, p)).collect();
    let positives = (0..queries.len()).map(of).collect::<Result<_>>()?;
    let search_seconds = started.elapsed().as_secs_f64();
    Ok(Found {
        hits,
        positives,
        index: IndexKind::Lexical,
        recall: None,
        encode_seconds: 0.0,
        search_seconds,
    })
}

/// By single vectors, through the scan or a graph.
fn by_vectors(
    model: &BiEncoder,
    set: &TrainingSet,
    config: &MiningConfig,
    (passages, queries): (&[String], &[String]),
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Found> {
    let started = Instant::now();
    let passages = encode_texts(model, Side::Passage, passages, encode, progress)?;
    let queries = encode_texts(model, Side::Query, queries, encode, &mut |_, _| ())?;
    let encode_seconds = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let dim = model.dim() as usize;
    let (passages, queries) = (Vectors::new(&passages, dim)?, Vectors::new(&queries, dim)?);
    let similarity = model.similarity().into();
    let mut exact = ExactIndex::new(&ExactConfig::default(), similarity, dim)?;
    let kind = match config.index {
        MiningIndex::Exact => IndexKind::Exact,
        MiningIndex::Hnsw => IndexKind::Hnsw,
        MiningIndex::Auto => {
            let choice = choose_for_mining(queries.len(), passages.len(), dim);
            tracing::info!("mining: {choice}");
            choice.index
        }
    };
    exact.add(passages)?;
    let params = SearchParams::top(depth);
    let mut recall = None;
    let graph = if kind == IndexKind::Hnsw {
        let mut graph = HnswIndex::new(&config.hnsw, similarity, dim)?;
        graph.add(passages)?;
        recall = Some(audit(&graph, &exact, queries, &params, config)?);
        Some(graph)
    } else {
        None
    };
    let index: &dyn VectorIndex = graph.as_ref().map_or(&exact, |g| g as &dyn VectorIndex);
    let mut hits = Vec::with_capacity(queries.len());
    for block in queries.blocks(4096) {
        hits.extend(index.search(block, &params)?);
    }
    let scores = |q: u32| {
        let of = |&p: &u32| dot(queries.row(q as usize), passages.row(p as usize));
        set.positives_of_query(q).iter().map(of).collect()
    };
    let positives = (0..queries.len() as u32).map(scores).collect();
    let search_seconds = started.elapsed().as_secs_f64();
    Ok(Found { hits, positives, index: kind, recall, encode_seconds, search_seconds })
}

/// The graph's recall on a sample of the queries.
fn audit(
    graph: &HnswIndex,
    exact: &ExactIndex,
    queries: Vectors<'_>,
    params: &SearchParams<'_>,
    config: &MiningConfig,
) -> Result<RecallReport> {
    let step = (queries.len() / config.audit_queries.max(1)).max(1);
    let sample: Vec<f32> =
        queries.rows().step_by(step).take(config.audit_queries).flatten().copied().collect();
    let report = recall_against_exact(graph, exact, Vectors::new(&sample, queries.dim())?, params)?;
    if report.recall >= config.min_recall {
        return Ok(report);
    }
    Err(Error::Config {
        key: "mining.hnsw".into(),
        why: format!(
            "the graph finds only {:.3} of the true top {} (min_recall is {}); raise ef_search or ef_construction, or \
             mine with index = \"exact\"",
            report.recall, report.k, config.min_recall
        ),
    })
}
