//! Decoding over a [`Stepper`], that is over anything that gives next-token logits: greedy, sampled, beam search.
//!
//! Settings, their order and their arithmetic are those of transformers 5.3's `generate`, whose tokens are reproduced;
//! see [`DecodeConfig`]. What differs: a sequence's sample depends on its own seed alone, not on its neighbours in the
//! batch; sequences that are done leave the batch.

mod beam;
mod config;
mod process;
mod run;
mod sample;
mod stop;

pub use config::{DecodeConfig, Decoding, EarlyStopping};
pub use sample::{Candidate, filtered};
pub use stop::{TextStream, cut_at_stop};

use crate::error::{Error, Result, catch};
use ragduet_torch::{Tensor, no_grad};
use std::ops::ControlFlow;

/// A model with a cache, as decoding sees it.
pub trait Stepper {
    /// Feeds tokens to every live sequence and gives the logits after the last of them, [sequences, vocabulary], on
    /// the model's device, any floating kind. The first call brings the prompts (of any lengths, one per sequence),
    /// later ones a token each.
    ///
    /// # Errors
    /// The model's own.
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor>;

    /// Keeps, repeats and reorders sequences: the new sequence i is the old sequence `from[i]`.
    ///
    /// # Errors
    /// The model's own.
    fn reorder(&mut self, from: &[usize]) -> Result<()>;

    /// Width of the logits.
    fn vocab_size(&self) -> usize;
}

/// Turns generated tokens to text.
pub type Detokenize<'a> = &'a dyn Fn(&[u32]) -> Result<String>;

/// Told of every token; breaks decoding off.
pub type OnToken<'a> = &'a mut dyn FnMut(&TokenEvent) -> ControlFlow<()>;

/// One text to continue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Tokens before the first generated one; not empty. An encoder-decoder's start token, where that is the model.
    pub prompt: Vec<u32>,
    /// With [`Decoding::seed`] the seed of this request's samples. Best derived from the example, not from its place.
    pub seed: u64,
    /// Lengths of what an encoder reads apart of the prompt ([`crate::prepare::Prompt::parts`]); empty: all in one.
    pub parts: Vec<usize>,
}

/// What the caller may hook into decoding.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Needed for stop strings.
    pub detokenize: Option<Detokenize<'a>>,
    /// Called for every token as it is chosen (beam search: at the end). Breaking ends decoding, what there is is kept.
    pub on_token: Option<OnToken<'a>>,
}

/// A token has been chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenEvent {
    /// Which request.
    pub request: usize,
    /// Which of its sequences.
    pub sequence: usize,
    /// The token.
    pub token: u32,
    /// Why the sequence ends with it, if it does.
    pub finish: Option<Finish>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// An end-of-sequence token, the last of the tokens.
    Eos,
    /// As many tokens as allowed.
    Length,
    /// The text contains a stop string (its index).
    StopString(usize),
    /// A hook broke off.
    Stopped,
}

/// A generated sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens without the prompt, with the end-of-sequence token if there is one.
    pub tokens: Vec<u32>,
    /// The model's log-probability of each (before penalties, temperature and filters); empty unless
    /// [`Decoding::log_probs`].
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// Beam search: the sum of (processed) log-probabilities over length^length_penalty.
    pub score: Option<f32>,
}

impl Generated {
    /// The tokens without an end-of-sequence token.
    pub fn content(&self) -> &[u32] {
        match self.finish {
            Finish::Eos => &self.tokens[..self.tokens.len().saturating_sub(1)],
            _ => &self.tokens,
        }
    }
}

/// Continues every request, all in one batch. Gives [`Decoding::num_return_sequences`] sequences each, beams best first.
///
/// The stepper must be fresh. Gradients are off inside.
///
/// # Errors
/// An empty prompt, stop strings without a detokeniser, logits that are not numbers, the model's own errors.
pub fn generate(
    stepper: &mut dyn Stepper,
    requests: &[Request],
    decoding: &Decoding,
    mut hooks: Hooks<'_>,
) -> Result<Vec<Vec<Generated>>> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(at) = requests.iter().position(|r| r.prompt.is_empty()) {
        return Err(Error::Unusable(format!("request {at} has an empty prompt")));
    }
    if !decoding.stop_strings.is_empty() && hooks.detokenize.is_none() {
        return Err(Error::Decoding("stop strings need a detokeniser".into()));
    }
    if decoding.max_new_tokens == 0 {
        let empty = Generated { tokens: vec![], log_probs: vec![], finish: Finish::Length, score: None };
        return Ok(vec![vec![empty; decoding.num_return_sequences]; requests.len()]);
    }
    let _guard = no_grad();
    catch("decoding", "lower the generation batch size or the prompt length", || {
        if decoding.num_beams > 1 {
            beam::search(stepper, requests, decoding, &mut hooks)
        } else {
            run::run(stepper, requests, decoding, &mut hooks)
        }
    })
}

/// The first logits, one row per request, checked: a model whose weights are not numbers is found here.
fn prefill(stepper: &mut dyn Stepper, requests: &[Request]) -> Result<Tensor> {
    let prompts: Vec<Vec<u32>> = requests.iter().map(|r| r.prompt.clone()).collect();
    let logits = stepper.step(&prompts)?;
    let expected = [requests.len() as i64, stepper.vocab_size() as i64];
    if logits.size() != expected {
        return Err(Error::Decoding(format!("logits are {:?}, expected {expected:?}", logits.size())));
    }
    if logits.isnan().any().int64_value(&[]) != 0 {
        return Err(Error::Decoding(
            "the model's logits are not numbers (NaN): its weights are damaged, or a training that diverged made them. \
             Another precision (`--precision fp32`) helps where products overflow; otherwise take another model"
                .into(),
        ));
    }
    Ok(logits)
}

/// Each request `n` times: row r * n + i is request r.
fn fan_out(stepper: &mut dyn Stepper, logits: Tensor, n: usize) -> Result<Tensor> {
    if n == 1 {
        return Ok(logits);
    }
    let from: Vec<usize> = (0..logits.size()[0] as usize).flat_map(|r| std::iter::repeat_n(r, n)).collect();
    stepper.reorder(&from)?;
    Ok(logits.repeat_interleave_self_int(n as i64, 0, None))
}

/// What a sequence has so far.
#[derive(Debug, Clone)]
struct History {
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    /// How many of them are prompt.
    prompt: usize,
}

impl History {
    fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }
}
