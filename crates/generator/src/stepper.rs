//! Models and their caches, as decoding sees them.

use crate::decode::Stepper;
use crate::error::{Result, catch};
use crate::sources::Sources;
use ragduet_nn::{CausalLm, KvCache, Mode, PackedTokens, Seq2SeqCache, Seq2SeqLm};
use ragduet_torch::{Device, Tensor, no_grad};

const REMEDY: &str = "generate fewer answers at a time (--batch), or shorten the prompts";

/// The hidden states that follow the last token of each segment: nothing else is asked for.
fn last_of_each(hidden: Tensor, batch: &PackedTokens) -> Tensor {
    if batch.segments.longest() == 1 {
        return hidden;
    }
    let last: Vec<i64> = batch.segments.offsets()[1..].iter().map(|end| end - 1).collect();
    hidden.index_select(0, &Tensor::from_slice(&last).to_device(hidden.device()))
}

fn packed(tokens: &[Vec<u32>], device: Device) -> PackedTokens {
    PackedTokens::from_ids(tokens.iter().map(Vec::as_slice), device)
}

/// A decoder-only model and its cache.
#[derive(Debug)]
pub(crate) struct CausalStepper<'a> {
    lm: &'a dyn CausalLm,
    cache: KvCache,
    mode: Mode,
    device: Device,
}

impl<'a> CausalStepper<'a> {
    pub(crate) fn new(
        lm: &'a dyn CausalLm,
        sequences: usize,
        capacity: usize,
        mode: Mode,
        device: Device,
    ) -> Result<Self> {
        let remedy = "generate fewer tokens (--max-new-tokens), or fewer answers at a time (--batch)";
        let cache = catch("the cache of keys and values", remedy, || {
            Ok(lm.new_cache(sequences, capacity, mode, device))
        })?;
        Ok(Self { lm, cache, mode, device })
    }
}

impl Stepper for CausalStepper<'_> {
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor> {
        catch("generation", REMEDY, || {
            let batch = packed(tokens, self.device);
            let hidden = last_of_each(self.lm.extend(&batch, &mut self.cache), &batch);
            Ok(self.lm.logits(&hidden, self.mode))
        })
    }

    fn reorder(&mut self, from: &[usize]) -> Result<()> {
        self.cache.reorder(from);
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        self.lm.vocab_size()
    }
}

/// An encoder-decoder that has read its sources. What it is fed are the answers, from their start token on.
#[derive(Debug)]
pub(crate) struct Seq2SeqStepper<'a> {
    lm: &'a dyn Seq2SeqLm,
    cache: Seq2SeqCache,
    mode: Mode,
    device: Device,
}

impl<'a> Seq2SeqStepper<'a> {
    /// Reads the sources, none of which is empty. `capacity`: tokens of an answer.
    pub(crate) fn new(
        lm: &'a dyn Seq2SeqLm,
        sources: &Sources,
        capacity: usize,
        mode: Mode,
        device: Device,
    ) -> Result<Self> {
        let _guard = no_grad();
        let cache = catch("reading prompts", REMEDY, || {
            let encoded = sources.encode(lm, mode);
            Ok(lm.start_cache(&encoded.states, &encoded.borders, capacity, mode))
        })?;
        Ok(Self { lm, cache, mode, device })
    }
}

impl Stepper for Seq2SeqStepper<'_> {
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor> {
        catch("generation", REMEDY, || {
            let batch = packed(tokens, self.device);
            let hidden = last_of_each(self.lm.extend(&batch, &mut self.cache), &batch);
            Ok(self.lm.logits(&hidden, self.mode))
        })
    }

    fn reorder(&mut self, from: &[usize]) -> Result<()> {
        self.cache.reorder(from);
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        self.lm.vocab_size()
    }
}
