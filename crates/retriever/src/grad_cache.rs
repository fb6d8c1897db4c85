//! Contrastive batches larger than memory: GradCache (Gao et al., 2021, arXiv 2101.06983).
//!
//! 1. Embed every chunk without a graph, remembering the generator state each started from.
//! 2. Compute the loss on all embeddings and its gradient at them.
//! 3. Embed each chunk again, with a graph and the same random draws, and backpropagate its share.
//!
//! The parameters' gradients are those of the plain batch; memory is that of one chunk.

use crate::Result;
use crate::biencoder::BiEncoder;
use crate::representation::Side;
use ragduet_nn::Mode;
use ragduet_text::Encoding;
use ragduet_torch::Tensor;
use ragduet_torch::grad::Replay;

/// A side's texts of one batch, with its embeddings once computed.
#[derive(Debug)]
struct Chunk {
    side: Side,
    texts: std::ops::Range<usize>,
    /// Rows of what was computed of them: as many as texts, or with late interaction as token vectors.
    rows: i64,
}

/// Gradients of `loss(queries, passages)`, of [rows](BiEncoder::rows), accumulated in the model's parameters, chunk by chunk of at most
/// `chunk_tokens` tokens; returns the loss (detached). `weight` multiplies the gradient (accumulation).
///
/// Whatever else `loss` depends on (a learnable scale) gets its gradient in step 2.
pub fn backward(
    model: &BiEncoder,
    queries: &[Encoding],
    passages: &[Encoding],
    chunk_tokens: usize,
    mode: Mode,
    weight: f64,
    loss: impl FnOnce(&Tensor, &Tensor) -> Tensor,
) -> Result<Tensor> {
    let texts = |side: Side| if side == Side::Query { queries } else { passages };
    let mut chunks = Vec::new();
    for side in [Side::Query, Side::Passage] {
        chunks.extend(split(texts(side), chunk_tokens).into_iter().map(|texts| Chunk {
            side,
            texts,
            rows: 0,
        }));
    }
    let embed = |c: &Chunk| {
        let picked: Vec<&Encoding> = texts(c.side)[c.texts.clone()].iter().collect();
        model.rows(c.side, &picked, mode)
    };
    let mut pieces: [Vec<Tensor>; 2] = [Vec::new(), Vec::new()];
    let mut replays = Vec::with_capacity(chunks.len());
    for c in &mut chunks {
        let (out, replay) = Replay::forward(model.device, || embed(c))?;
        c.rows = out.size()[0];
        pieces[usize::from(c.side == Side::Passage)].push(out);
        replays.push(replay);
    }
    let [q, p] = pieces.map(|list| Tensor::cat(&list, 0).set_requires_grad(true));
    let value = loss(&q, &p);
    (&value * weight).backward();
    let mut done = [0, 0];
    for (c, replay) in chunks.iter().zip(replays) {
        let (all, from) = if c.side == Side::Query { (&q, &mut done[0]) } else { (&p, &mut done[1]) };
        let grad = all.grad().narrow(0, *from, c.rows);
        *from += c.rows;
        replay.backward(&grad, || embed(c))?;
    }
    Ok(value.detach())
}

/// Consecutive ranges of at most `budget` tokens, each of at least one text.
pub(crate) fn split(texts: &[Encoding], budget: usize) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (i, t) in texts.iter().enumerate() {
        if held + t.len() > budget && i > start {
            out.push(start..i);
            (start, held) = (i, 0);
        }
        held += t.len();
    }
    if start < texts.len() {
        out.push(start..texts.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_once_within_the_budget() {
        let texts: Vec<Encoding> = [3usize, 4, 9, 1, 1, 1, 20]
            .iter()
            .map(|&n| Encoding { ids: vec![5; n], type_ids: vec![0; n] })
            .collect();
        assert_eq!(split(&texts, 8), [0..2, 2..3, 3..6, 6..7]);
        assert!(split(&[], 8).is_empty());
    }
}
