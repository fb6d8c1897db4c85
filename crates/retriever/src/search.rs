//! Exact search in memory, whatever the representation: what evaluation and mining rank with, what a retriever scores
//! pairs with as a teacher, and what indexes are measured against. Passages pass by a window at a time.

use crate::biencoder::BiEncoder;
use crate::encode::{
    EncodeProgress, EncodeSettings, TokenVectors, encode_rows, encode_sparse, encode_stream, encode_texts,
};
use crate::representation::{Representation, Side};
use crate::{Error, Result};
use ragduet_index::{Hit, IndexConfig, SearchParams, SparseIndex, VectorIndex, Vectors, build};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Tensor, no_grad};
use std::collections::HashMap;
use std::time::Instant;

/// What a search gives.
#[derive(Debug, Default)]
pub struct Ranked {
    /// The best passages of each query, best first, equal scores in ascending order of ids.
    pub hits: Vec<Vec<Hit>>,
    /// The scores of the passages that each query was asked about.
    pub asked: Vec<Vec<f32>>,
    /// Seconds spent searching after everything was encoded; with late interaction, which compares each window of passages
    /// as soon as it is encoded, 0.
    pub search_seconds: f64,
}

/// Ranks a stream of passages for queries, `depth` deep; `asked` names passages of each query whose scores are wanted
/// whatever their rank (or is empty). With late interaction neither all token vectors nor all scores exist at once.
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
    match model.representation() {
        Representation::Dense(_) => dense(model, passages, queries, depth, asked, encode, progress),
        Representation::LateInteraction(_) => {
            late_interaction(model, passages, queries, depth, asked, encode, progress)
        }
        Representation::Sparse(_) => sparse(model, passages, queries, depth, asked, encode, progress),
    }
}

/// Single vectors, scanned.
fn dense(
    model: &BiEncoder,
    passages: impl Iterator<Item = Result<String>> + Send,
    queries: &[String],
    depth: usize,
    asked: &[Vec<u32>],
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Ranked> {
    let dim = model.dim() as usize;
    let rows = encode_texts(model, Side::Query, queries, encode, &mut |_, _| ())?;
    let queries = Vectors::new(&rows, dim)?;
    let mut places: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
    for (q, ids) in asked.iter().enumerate() {
        for (place, &id) in ids.iter().enumerate() {
            places.entry(id).or_default().push((q, place));
        }
    }
    let mut scores: Vec<Vec<f32>> = asked.iter().map(|ids| vec![0.0; ids.len()]).collect();
    let mut index = build(&IndexConfig::default(), model.similarity().into(), dim)?;
    let mut first = 0u32;
    encode_stream(model, Side::Passage, passages, encode, progress, |rows| {
        for (id, row) in (first..).zip(rows.chunks_exact(dim)) {
            for &(q, place) in places.get(&id).into_iter().flatten() {
                scores[q][place] = dot(queries.row(q), row);
            }
        }
        first += (rows.len() / dim) as u32;
        if depth > 0 && !rows.is_empty() {
            index.add(Vectors::new(rows, dim)?)?;
        }
        Ok(())
    })?;
    let started = Instant::now();
    let hits = in_blocks(&*index, queries, depth)?;
    Ok(Ranked { hits, asked: scores, search_seconds: started.elapsed().as_secs_f64() })
}

/// Vectors are of unit length under cosine, so this is the similarity in either case.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The best `depth` of each query; none where that is 0 or nothing is there.
fn in_blocks(index: &dyn VectorIndex, queries: Vectors<'_>, depth: usize) -> Result<Vec<Vec<Hit>>> {
    let depth = depth.min(index.len());
    if depth == 0 {
        return Ok(vec![Vec::new(); queries.len()]);
    }
    let mut hits = Vec::with_capacity(queries.len());
    for block in queries.blocks(1024) {
        hits.extend(index.search(block, &SearchParams::top(depth))?);
    }
    Ok(hits)
}

/// Weights of words, through the inverted index.
fn sparse(
    model: &BiEncoder,
    passages: impl Iterator<Item = Result<String>> + Send,
    queries: &[String],
    depth: usize,
    asked: &[Vec<u32>],
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Ranked> {
    let passages = encode_sparse(model, Side::Passage, passages, encode, progress)?;
    let queries = queries.iter().map(|t| Ok(t.clone()));
    let queries = encode_sparse(model, Side::Query, queries, encode, &mut |_, _| ())?;
    let started = Instant::now();
    let of =
        |(q, ids): (usize, &Vec<u32>)| ids.iter().map(|&p| queries.dot(q, &passages, p as usize)).collect();
    let asked = asked.iter().enumerate().map(of).collect();
    let hits = if depth > 0 {
        let mut index = SparseIndex::new(model.dim() as usize);
        index.add(&passages)?;
        index.search(&queries, &SearchParams::top(depth))?
    } else {
        vec![Vec::new(); queries.len()]
    };
    Ok(Ranked { hits, asked, search_seconds: started.elapsed().as_secs_f64() })
}

/// Queries whose scores with a window of passages exist at a time.
const QUERIES: usize = 512;

/// Token vectors by MaxSim, a window of passages at a time.
fn late_interaction(
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
        search_seconds: 0.0,
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
    use crate::representation::Similarity;

    #[test]
    fn the_best_are_kept_in_order_and_ties_by_id() {
        let mut hits: Vec<Hit> =
            [0.5, 0.9, 0.5, 0.1].iter().enumerate().map(|(i, &score)| Hit { id: i as u32, score }).collect();
        keep(&mut hits, 3);
        assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [1, 0, 2]);
        keep(&mut hits, 0);
        assert!(hits.is_empty());
    }

    #[test]
    fn every_query_gets_its_own_ranking_also_beyond_one_block() {
        let rows: Vec<f32> = (0..8).flat_map(|i| (0..8).map(move |j| f32::from(u8::from(i == j)))).collect();
        let mut index = build(&IndexConfig::default(), Similarity::Dot.into(), 8).unwrap();
        index.add(Vectors::new(&rows, 8).unwrap()).unwrap();
        let queries: Vec<f32> = (0..2500).flat_map(|i| rows[(i % 8) * 8..][..8].to_vec()).collect();
        let hits = in_blocks(&*index, Vectors::new(&queries, 8).unwrap(), 3).unwrap();
        assert_eq!(hits.len(), 2500);
        for (i, found) in hits.iter().enumerate() {
            assert_eq!((found.len(), found[0].id), (3, (i % 8) as u32), "{i}");
        }
    }
}
