//! Encoding texts in bulk: tokenised ahead on another thread, grouped by length, streamed, so that a corpus larger
//! than memory passes through.

use crate::biencoder::BiEncoder;
use crate::representation::{Representation, Side};
use crate::{Error, Result};
use ragduet_data::{LengthBudget, length_sorted_batches};
use ragduet_index::SparseVectors;
use ragduet_nn::Mode;
use ragduet_text::Encoding;
use ragduet_torch::{Kind, Tensor, no_grad};
use std::sync::mpsc::sync_channel;

/// How a stream is cut into batches.
#[derive(Debug, Clone, Copy)]
pub struct EncodeSettings {
    /// Tokens per forward pass.
    pub batch_tokens: u64,
    /// Texts that are sorted by length together, and held at a time.
    pub window: usize,
    /// Whether vectors are as the model's folder gives them; else those of cosine models have unit length, so that they are
    /// compared by dot product.
    pub raw: bool,
}

impl Default for EncodeSettings {
    fn default() -> Self {
        Self { batch_tokens: 8192, window: 2048, raw: false }
    }
}

/// Called with (texts done, tokens done).
pub type EncodeProgress<'a> = &'a mut dyn FnMut(u64, u64);

struct Window {
    encodings: Vec<Encoding>,
    batches: Vec<Vec<u32>>,
}

/// Encodes a stream of texts in order; `sink` gets the embeddings of one window after another, [n * dim] row-major.
///
/// # Errors
/// The stream's first error, or the encoder's. Rows already given to `sink` stay given.
pub fn encode_stream(
    model: &BiEncoder,
    side: Side,
    texts: impl Iterator<Item = Result<String>> + Send,
    settings: &EncodeSettings,
    progress: EncodeProgress<'_>,
    mut sink: impl FnMut(&[f32]) -> Result<()>,
) -> Result<u64> {
    model.representation().one_vector()?;
    encode_rows(model, side, texts, settings, progress, |rows, _| sink(rows))
}

/// [`encode_stream`] for models with any number of vectors a text: `sink` gets the rows of one window of texts after
/// another, and how many each text has.
///
/// # Errors
/// As there.
pub fn encode_rows(
    model: &BiEncoder,
    side: Side,
    texts: impl Iterator<Item = Result<String>> + Send,
    settings: &EncodeSettings,
    progress: EncodeProgress<'_>,
    mut sink: impl FnMut(&[f32], &[usize]) -> Result<()>,
) -> Result<u64> {
    let dim = model.dim() as usize;
    // A sparse model's vectors are as long as the vocabulary.
    const HELD: usize = 1 << 25;
    let (window, budget) = (settings.window.min(HELD / dim).max(1), settings.batch_tokens.max(1));
    let (mut done, mut tokens) = (0u64, 0u64);
    // The model holds tensors, which no other thread may touch: the reader gets the tokenizer's part alone.
    let tokenize = model.tokenize_fn(side);
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel::<Result<Window>>(2);
        scope.spawn(move || {
            let mut texts = texts;
            loop {
                let batch: Result<Vec<String>> = texts.by_ref().take(window).collect();
                let ready = batch.and_then(|texts| {
                    let encodings = tokenize(&texts)?;
                    let lengths: Vec<u32> = encodings.iter().map(|e| e.len() as u32).collect();
                    let batches = length_sorted_batches(&lengths, LengthBudget::Sum(budget), window)?;
                    Ok(Window { encodings, batches })
                });
                let last = ready.as_ref().map_or(true, |w| w.encodings.is_empty());
                if send.send(ready).is_err() || last {
                    return;
                }
            }
        });
        for ready in receive {
            let w = ready?;
            let all: Vec<&Encoding> = w.encodings.iter().collect();
            let counts = model.representation().counts(side, &all);
            let starts: Vec<usize> = counts
                .iter()
                .scan(0, |at, &n| {
                    *at += n;
                    Some(*at - n)
                })
                .collect();
            let mut rows = vec![0f32; counts.iter().sum::<usize>() * dim];
            for batch in &w.batches {
                let picked: Vec<&Encoding> = batch.iter().map(|&i| &w.encodings[i as usize]).collect();
                let flat = embed_flat(model, side, &picked, settings.raw)?;
                let mut rest = flat.as_slice();
                for &i in batch {
                    let (own, others) = rest.split_at(counts[i as usize] * dim);
                    rows[starts[i as usize] * dim..][..own.len()].copy_from_slice(own);
                    rest = others;
                }
                done += batch.len() as u64;
                tokens += picked.iter().map(|e| e.len() as u64).sum::<u64>();
                progress(done, tokens);
            }
            sink(&rows, &counts)?;
        }
        Ok(done)
    })
}

/// Encodes texts that are in memory: [n * dim] row-major.
pub fn encode_texts(
    model: &BiEncoder,
    side: Side,
    texts: &[String],
    settings: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Vec<f32>> {
    gather(model, side, texts.iter().map(|t| Ok(t.clone())), settings, progress)
}

fn gather(
    model: &BiEncoder,
    side: Side,
    texts: impl Iterator<Item = Result<String>> + Send,
    settings: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    encode_stream(model, side, texts, settings, progress, |rows| {
        out.extend_from_slice(rows);
        Ok(())
    })?;
    Ok(out)
}

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
        Self::stream(model, side, texts.iter().map(|t| Ok(t.clone())), encode, progress)
    }

    /// Of a stream of texts.
    ///
    /// # Errors
    /// The stream's first error, or the encoder's.
    pub fn stream(
        model: &BiEncoder,
        side: Side,
        texts: impl Iterator<Item = Result<String>> + Send,
        encode: &EncodeSettings,
        progress: EncodeProgress<'_>,
    ) -> Result<Self> {
        let mut out = Self::default();
        encode_rows(model, side, texts, encode, progress, |rows, counts| {
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

/// Encodes a stream of texts, keeping of each the weights above 0.
///
/// # Errors
/// The stream's first error, or the encoder's; a model that is not sparse.
pub fn encode_sparse(
    model: &BiEncoder,
    side: Side,
    texts: impl Iterator<Item = Result<String>> + Send,
    settings: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<SparseVectors> {
    match model.representation() {
        Representation::Sparse(_) => {}
        other @ (Representation::Dense(_) | Representation::LateInteraction(_)) => {
            return Err(Error::Unusable(format!(
                "weights of words need a sparse model, and this one is {}",
                other.name()
            )));
        }
    }
    let dim = model.dim() as usize;
    let mut out = SparseVectors::new(dim);
    encode_stream(model, side, texts, settings, progress, |rows| {
        rows.chunks_exact(dim).try_for_each(|row| Ok(out.push_dense(row)?))
    })?;
    Ok(out)
}

fn embed_flat(model: &BiEncoder, side: Side, texts: &[&Encoding], raw: bool) -> Result<Vec<f32>> {
    let _guard = no_grad();
    let out = model.rows(side, texts, Mode::eval(model.compute))?;
    let out = if raw { out } else { model.comparable(&out) };
    let out = out.to_kind(Kind::Float).contiguous().view(-1);
    let flat = Vec::<f32>::try_from(&out).map_err(ragduet_torch::Error::from)?;
    check_finite(&flat, &out)?;
    Ok(flat)
}

fn check_finite(flat: &[f32], tensor: &Tensor) -> Result<()> {
    match flat.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Unusable(format!(
            "the encoder gave {} at position {at} of {}: its weights hold NaN or infinity, or overflow in this \
             precision (try precision fp32)",
            flat[at],
            tensor.numel()
        ))),
    }
}
