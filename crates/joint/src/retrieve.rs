//! Retrieval inside the step: over-fetch from the index, which is stale by then, embed what was fetched with the
//! encoder as it is now, keep the best (Atlas, arXiv 2208.03299, section 2.4).

use crate::Result;
use crate::refreshed_index::RefreshedIndex;
use ragduet_index::IndexConfig;
use ragduet_nn::Mode;
use ragduet_retriever::{BiEncoder, EncodeSettings, Side, encode_texts};
use ragduet_text::Encoding;
use ragduet_torch::{Kind, Tensor, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Retrieval during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// Passages per question in the objective.
    pub k: usize,
    /// Passages fetched from the index per question and re-scored with the current encoder; at least `k`.
    pub overfetch: usize,
    /// Index.
    pub index: IndexConfig,
    /// Tokens per forward pass without gradients.
    pub batch_tokens: u64,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self { k: 5, overfetch: 20, index: IndexConfig::default(), batch_tokens: 8192 }
    }
}

impl RetrievalConfig {
    /// How texts are encoded in bulk.
    pub fn encode(&self) -> EncodeSettings {
        EncodeSettings { batch_tokens: self.batch_tokens, ..EncodeSettings::default() }
    }
}

/// What was found for a batch of questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Per question at most `k` rows of the corpus, best first by the encoder as it is.
    pub rows: Vec<Vec<u32>>,
    /// Their similarities.
    pub scores: Vec<Vec<f32>>,
    /// Share of them that the index alone would have had among its first `k`: 1 where it is not stale.
    pub overlap: f64,
}

/// Questions, and for each the rows that are not to be found: its own copies.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is asked.
    pub questions: &'a [String],
    /// Rows by question; none for all where it is empty.
    pub barred: &'a [Vec<u32>],
}

/// The best passages of some questions. `moved`: whether the passage encoder has changed since the index was built;
/// else what it says is taken as it is.
///
/// # Errors
/// Those of the encoder and the index.
pub fn retrieve(
    model: &BiEncoder,
    texts: &[String],
    index: &RefreshedIndex,
    asked: Asked<'_>,
    config: &RetrievalConfig,
    moved: bool,
) -> Result<Candidates> {
    let encode = config.encode();
    let queries = encode_texts(model, Side::Query, asked.questions, &encode, &mut |_, _| ())?;
    let wanted = if moved { config.overfetch.max(config.k) } else { config.k };
    // What is barred takes no other passage's place.
    let most = asked.barred.iter().map(Vec::len).max().unwrap_or(0);
    let mut fetched = index.search(&queries, wanted + most)?;
    for (hits, barred) in fetched.iter_mut().zip(asked.barred) {
        hits.retain(|hit| !barred.contains(&hit.id));
    }
    fetched.iter_mut().for_each(|hits| hits.truncate(wanted));
    if !moved {
        let (rows, scores) = fetched.iter().map(|h| h.iter().map(|h| (h.id, h.score)).unzip()).unzip();
        return Ok(Candidates { rows, scores, overlap: 1.0 });
    }
    let unique: Vec<u32> = fetched
        .iter()
        .flatten()
        .map(|h| h.id)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let place: BTreeMap<u32, usize> = unique.iter().enumerate().map(|(i, &row)| (row, i)).collect();
    let picked: Vec<String> = unique.iter().map(|&row| texts[row as usize].clone()).collect();
    let fresh = encode_texts(model, Side::Passage, &picked, &encode, &mut |_, _| ())?;
    let dim = model.dim() as usize;
    let (mut rows, mut scores, mut kept, mut all) = (Vec::new(), Vec::new(), 0usize, 0usize);
    for (hits, query) in fetched.iter().zip(queries.chunks_exact(dim)) {
        let score = |row: u32| {
            let passage = &fresh[place[&row] * dim..][..dim];
            passage.iter().zip(query).map(|(a, b)| a * b).sum::<f32>()
        };
        let mut ranked: Vec<(u32, f32)> = hits.iter().map(|h| (h.id, score(h.id))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.truncate(config.k);
        let stale: HashSet<u32> = hits.iter().take(config.k).map(|h| h.id).collect();
        kept += ranked.iter().filter(|(row, _)| stale.contains(row)).count();
        all += ranked.len();
        let (r, s): (Vec<u32>, Vec<f32>) = ranked.into_iter().unzip();
        rows.push(r);
        scores.push(s);
    }
    Ok(Candidates { rows, scores, overlap: kept as f64 / all.max(1) as f64 })
}

/// The passages of a batch, each once, and where each question's are.
#[derive(Debug)]
pub struct Shared {
    /// Rows of the corpus, ascending.
    pub rows: Vec<u32>,
    /// [questions, k]: place in `rows`; 0 where there is none.
    pub places: Tensor,
    /// [questions, k]: whether there is one.
    pub present: Tensor,
}

impl Shared {
    /// Of the rows of each question, at most `k`; `more` rows are there as well.
    pub fn new(
        found: &[Vec<u32>],
        k: usize,
        more: impl Iterator<Item = u32>,
        device: ragduet_torch::Device,
    ) -> Self {
        let rows: Vec<u32> = found
            .iter()
            .flat_map(|r| r.iter().copied())
            .chain(more)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let place = |row: &u32| rows.binary_search(row).unwrap_or(0) as i64;
        let (mut places, mut present) = (Vec::new(), Vec::new());
        for of in found {
            for at in 0..k {
                places.push(of.get(at).map_or(0, place));
                present.push(of.get(at).is_some());
            }
        }
        let shape = [found.len() as i64, k as i64];
        Self {
            places: Tensor::from_slice(&places).view(shape).to_device(device),
            present: Tensor::from_slice(&present).view(shape).to_device(device),
            rows,
        }
    }

    /// The place of a row that is among them.
    pub fn place(&self, row: u32) -> Option<usize> {
        self.rows.binary_search(&row).ok()
    }

    /// Similarities [questions, k] of queries [questions, dim] with their own passages, of all [rows, dim]; f32.
    pub fn scores(&self, queries: &Tensor, passages: &Tensor) -> Tensor {
        let size = self.places.size();
        let own = passages.index_select(0, &self.places.view(-1)).view([size[0], size[1], -1]);
        (own * queries.unsqueeze(1)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
    }
}

/// Embeddings without a graph, comparable by dot product, in forward passes of at most `tokens`.
///
/// # Errors
/// Those of the encoder.
pub fn embed_frozen(model: &BiEncoder, side: Side, texts: &[Encoding], tokens: usize) -> Result<Tensor> {
    let _guard = no_grad();
    let (mut out, mut chunk, mut held) = (Vec::new(), Vec::new(), 0);
    let flush = |chunk: &mut Vec<&Encoding>, out: &mut Vec<Tensor>| -> Result<()> {
        if !chunk.is_empty() {
            out.push(model.comparable(&model.embed(side, chunk, Mode::eval(model.compute))?));
            chunk.clear();
        }
        Ok(())
    };
    for text in texts {
        if held + text.len() > tokens {
            flush(&mut chunk, &mut out)?;
            held = 0;
        }
        held += text.len();
        chunk.push(text);
    }
    flush(&mut chunk, &mut out)?;
    Ok(Tensor::cat(&out, 0))
}
