//! Exact search with late interaction: every query against every passage by MaxSim, a window of passages at a time, so
//! that neither all token vectors nor all scores exist at once. What indexes are measured against, and what evaluation
//! and mining rank with.

use crate::biencoder::{BiEncoder, Side};
use crate::encode::{EncodeProgress, EncodeSettings, encode_rows};
use crate::{Error, Result};
use ragduet_index::Hit;
use ragduet_torch::ops::Segments;
use ragduet_torch::{Tensor, no_grad};

/// Token vectors of texts, text after text.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct TokenVectors {
    /// [vectors * dim] row-major.
    pub rows: Vec<f32>,
    /// Vectors of each text.
    pub counts: Vec<usize>,
}

impl TokenVectors {
    /// Of texts that are in memory.
    ///
    /// # Errors
    /// The encoder's.
    pub fn encode(
        model: &BiEncoder,
        side: Side,
        texts: &[String],
        encode: &EncodeSettings,
        progress: EncodeProgress<'_>,
    ) -> Result<Self> {
        let mut out = Self::default();
        encode_rows(model, side, texts.iter().map(|t| Ok(t.clone())), encode, progress, |rows, counts| {
            out.rows.extend_from_slice(rows);
            out.counts.extend_from_slice(counts);
            Ok(())
        })?;
        Ok(out)
    }

    /// Where each text's vectors begin, and the end: `counts.len() + 1` row numbers.
    pub fn offsets(&self) -> Vec<usize> {
        let mut at = 0;
        std::iter::once(0)
            .chain(self.counts.iter().map(|n| {
                at += n;
                at
            }))
            .collect()
    }
}

/// What a search gives.
#[derive(Debug, Default)]
pub struct Ranked {
    /// The best passages of each query, best first, equal scores in ascending order of ids.
    pub hits: Vec<Vec<Hit>>,
    /// The scores of the passages that each query was asked about.
    pub asked: Vec<Vec<f32>>,
}

/// Queries whose scores with a window of passages exist at a time.
const QUERIES: usize = 512;

/// Ranks a stream of passages for queries, `depth` deep; `asked` names passages of each query whose scores are wanted
/// whatever their rank (or is empty).
///
/// # Errors
/// The stream's, or the encoder's.
pub fn search_exact(
    model: &BiEncoder,
    passages: impl Iterator<Item = Result<String>> + Send,
    queries: &[String],
    depth: usize,
    asked: &[Vec<u32>],
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Ranked> {
    let vectors = TokenVectors::encode(model, Side::Query, queries, encode, &mut |_, _| ())?;
    let mut out = Ranked {
        hits: vec![Vec::new(); queries.len()],
        asked: asked.iter().map(|ids| vec![0.0; ids.len()]).collect(),
    };
    let mut first = 0u32;
    encode_rows(model, Side::Passage, passages, encode, progress, |rows, counts| {
        if counts.is_empty() {
            return Ok(());
        }
        let window = scores(model, &vectors, rows, counts)?;
        for (q, row) in window.chunks_exact(counts.len()).enumerate() {
            let best = &mut out.hits[q];
            best.extend(row.iter().enumerate().map(|(i, &score)| Hit { id: first + i as u32, score }));
            keep(best, depth);
            if let Some(ids) = asked.get(q) {
                for (score, id) in out.asked[q].iter_mut().zip(ids) {
                    if let Some(&s) = id.checked_sub(first).and_then(|i| row.get(i as usize)) {
                        *score = s;
                    }
                }
            }
        }
        first += counts.len() as u32;
        Ok(())
    })?;
    Ok(out)
}

/// Scores [queries * passages] of all queries with some passages.
fn scores(model: &BiEncoder, queries: &TokenVectors, rows: &[f32], counts: &[usize]) -> Result<Vec<f32>> {
    let _guard = no_grad();
    let dim = model.dim();
    let tensor = |rows: &[f32]| Tensor::from_slice(rows).view([-1, dim]).to_device(model.device);
    let (passages, of_passages) = (tensor(rows), Segments::new(counts, model.device));
    let mut out = Vec::with_capacity(queries.counts.len() * counts.len());
    let mut at = 0;
    for block in queries.counts.chunks(QUERIES) {
        let n = block.iter().sum::<usize>() * dim as usize;
        let q = tensor(&queries.rows[at..at + n]);
        at += n;
        let s =
            model.similarities((&q, &Segments::new(block, model.device)), (&passages, &of_passages), None);
        out.extend(Vec::<f32>::try_from(s.view(-1)).map_err(ragduet_torch::Error::from)?);
    }
    match out.iter().find(|s| !s.is_finite()) {
        None => Ok(out),
        Some(s) => Err(Error::Unusable(format!("MaxSim gave {s}: the model's weights hold NaN or infinity"))),
    }
}

/// The best `depth`, in order.
fn keep(hits: &mut Vec<Hit>, depth: usize) {
    let order = |a: &Hit, b: &Hit| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id));
    if hits.len() > depth {
        if depth > 0 {
            hits.select_nth_unstable_by(depth - 1, order);
        }
        hits.truncate(depth);
    }
    hits.sort_unstable_by(order);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_order_and_ties_by_id() {
        let mut hits: Vec<Hit> =
            [0.5, 0.9, 0.5, 0.1].iter().enumerate().map(|(i, &score)| Hit { id: i as u32, score }).collect();
        keep(&mut hits, 3);
        assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [1, 0, 2]);
        keep(&mut hits, 0);
        assert!(hits.is_empty());
    }
}
