//! Beam search with transformers' bookkeeping (5.3, `_beam_search`), a prompt at a time on the CPU; only scoring and the
//! selection of continuations are tensor work, for all prompts at once.

use super::process::Processors;
use super::run::ended;
use super::stop::Stops;
use super::{
    Decoding, EarlyStopping, Finish, Generated, History, Hooks, Request, Stepper, TokenEvent, fan_out,
    prefill,
};
use crate::error::{Error, Result};
use ragduet_torch::{Device, Kind, Tensor};

/// Stands for minus infinity in scores.
const NEVER: f32 = -1e9;

/// A beam that runs.
#[derive(Debug, Clone)]
struct Beam {
    history: History,
    log_probs: Vec<f32>,
    score: f32,
}

/// A prompt's search.
#[derive(Debug)]
struct Search {
    request: usize,
    /// Best first.
    running: Vec<Beam>,
    /// Best first, at most as many as beams.
    finished: Vec<Generated>,
}

/// A continuation of a beam by a token.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    beam: usize,
    token: u32,
    score: f32,
    log_prob: f32,
}

pub(super) fn search(
    stepper: &mut dyn Stepper,
    requests: &[Request],
    d: &Decoding,
    hooks: &mut Hooks<'_>,
) -> Result<Vec<Vec<Generated>>> {
    let (beams, vocab) = (d.num_beams, stepper.vocab_size());
    // Enough that as many beams as wanted go on even if every other continuation is an end of sequence.
    let width = 2.max(1 + d.eos_token_id.len()) * beams;
    if width > beams * vocab {
        return Err(Error::Decoding(format!("{beams} beams need {width} continuations of {vocab} tokens")));
    }
    let logits = prefill(stepper, requests)?;
    let mut logits = fan_out(stepper, logits, beams)?;
    let mut live: Vec<Search> =
        requests.iter().enumerate().map(|(request, r)| Search::new(request, r, beams)).collect();
    let mut out: Vec<Vec<Generated>> = vec![Vec::new(); requests.len()];
    let (processors, stops) = (Processors::new(d), Stops::new(d, hooks.detokenize));
    loop {
        let all = continuations(&logits, &live, d, &processors, width)?;
        let (mut from, mut staying) = (Vec::new(), Vec::new());
        let rows = live.len() * beams;
        for (at, (mut search, next)) in live.into_iter().zip(all).enumerate() {
            match search.advance(&next, d, &stops)? {
                Some(parents) => {
                    from.extend(parents.iter().map(|p| at * beams + p));
                    staying.push(search);
                }
                None => {
                    search.finished.truncate(d.num_return_sequences);
                    out[search.request] = search.finished;
                }
            }
        }
        live = staying;
        if live.is_empty() {
            break;
        }
        if from.len() < rows || from.iter().enumerate().any(|(i, &f)| i != f) {
            stepper.reorder(&from)?;
        }
        let beams = live.iter().flat_map(|s| &s.running);
        let feed: Vec<Vec<u32>> =
            beams.map(|b| b.history.tokens.last().copied().into_iter().collect()).collect();
        logits = stepper.step(&feed)?;
    }
    announce(&out, hooks);
    Ok(out)
}

/// The best continuations of every prompt, best first.
fn continuations(
    logits: &Tensor,
    live: &[Search],
    d: &Decoding,
    processors: &Processors<'_>,
    width: usize,
) -> Result<Vec<Vec<Continuation>>> {
    let (beams, vocab) = (d.num_beams, logits.size()[1]);
    let histories: Vec<&History> = live.iter().flat_map(|s| &s.running).map(|b| &b.history).collect();
    let running: Vec<f32> = live.iter().flat_map(|s| &s.running).map(|b| b.score).collect();
    let log_probs = logits.log_softmax(-1, Kind::Float);
    let scores = processors.apply(log_probs.shallow_clone(), &histories)
        + Tensor::from_slice(&running).to_device(logits.device()).unsqueeze(1);
    let flat = [live.len() as i64, beams as i64 * vocab];
    let (best, index) = scores.view(flat).topk(width as i64, -1, true, true);
    let own = if d.log_probs { log_probs.view(flat).gather(1, &index, false) } else { best.shallow_clone() };
    let read = |t: &Tensor| Vec::<f32>::try_from(t.to_device(Device::Cpu).contiguous().view(-1));
    let (best, own) =
        (read(&best).map_err(ragduet_torch::Error::from)?, read(&own).map_err(ragduet_torch::Error::from)?);
    let index: Vec<i64> =
        index.to_device(Device::Cpu).contiguous().view(-1).try_into().map_err(ragduet_torch::Error::from)?;
    let each = best.iter().zip(&own).zip(&index).map(|((&score, &log_prob), &i)| Continuation {
        beam: (i / vocab) as usize,
        token: (i % vocab) as u32,
        score,
        log_prob,
    });
    let each: Vec<Continuation> = each.collect();
    Ok(each.chunks_exact(width).map(<[_]>::to_vec).collect())
}

impl Search {
    fn new(request: usize, r: &Request, beams: usize) -> Self {
        let beam = |i| Beam {
            history: History { tokens: r.prompt.clone(), prompt: r.prompt.len() },
            log_probs: Vec::new(),
            // At first all beams are the same; only the first counts.
            score: if i == 0 { 0.0 } else { NEVER },
        };
        Self { request, running: (0..beams).map(beam).collect(), finished: Vec::new() }
    }

    /// Takes a step. Gives the parents of the new running beams, or nothing when the search is over.
    fn advance(
        &mut self,
        next: &[Continuation],
        d: &Decoding,
        stops: &Stops<'_>,
    ) -> Result<Option<Vec<usize>>> {
        let beams = d.num_beams;
        let length = self.running[0].history.generated().len() + 1;
        let mut going: Vec<&Continuation> = Vec::with_capacity(beams);
        for (rank, c) in next.iter().enumerate() {
            if rank >= beams && going.len() == beams {
                break;
            }
            match self.ends(c, d, stops)? {
                None if going.len() < beams => going.push(c),
                None => {}
                // Continuations beyond the number of beams are there to go on, not to finish.
                Some(finish) if rank < beams => self.finish(c, finish, normalised(c.score, length, d), d),
                Some(_) => {}
            }
        }
        let full = self.finished.len() == beams;
        if going.len() < beams || (full && d.early_stopping == EarlyStopping::Full) {
            return Ok(None);
        }
        let assumed = match d.early_stopping {
            EarlyStopping::Never if d.length_penalty > 0.0 => d.max_new_tokens,
            _ => length,
        };
        let best_possible = normalised(going[0].score, assumed, d);
        if full && self.finished.last().is_some_and(|worst| best_possible <= worst.score.unwrap_or(NEVER)) {
            return Ok(None);
        }
        let parents = going.iter().map(|c| c.beam).collect();
        self.running = going.iter().map(|c| self.extended(c, d)).collect();
        Ok(Some(parents))
    }

    fn ends(&self, c: &Continuation, d: &Decoding, stops: &Stops<'_>) -> Result<Option<Finish>> {
        let generated = self.running[c.beam].history.generated();
        if d.stop_strings.is_empty() {
            // Only the last token and the length matter then: no need to copy the sequence.
            let eos = d.eos_token_id.contains(&c.token);
            let long = generated.len() + 1 >= d.max_new_tokens;
            return Ok(if eos { Some(Finish::Eos) } else { long.then_some(Finish::Length) });
        }
        let tokens: Vec<u32> = generated.iter().copied().chain([c.token]).collect();
        ended(&tokens, d, stops)
    }

    fn extended(&self, c: &Continuation, d: &Decoding) -> Beam {
        let mut beam = self.running[c.beam].clone();
        beam.history.tokens.push(c.token);
        if d.log_probs {
            beam.log_probs.push(c.log_prob);
        }
        beam.score = c.score;
        beam
    }

    /// Adds a finished sequence where it belongs; at most as many as beams stay.
    fn finish(&mut self, c: &Continuation, finish: Finish, score: f32, d: &Decoding) {
        let beam = self.extended(c, d);
        let tokens = beam.history.generated().to_vec();
        let done = Generated { tokens, log_probs: beam.log_probs, finish, score: Some(score) };
        let at = self.finished.partition_point(|g| g.score.unwrap_or(NEVER) >= score);
        self.finished.insert(at, done);
        self.finished.truncate(d.num_beams);
    }
}

fn normalised(score: f32, length: usize, d: &Decoding) -> f32 {
    score / (length as f64).powf(d.length_penalty) as f32
}

/// Beams change their past, so a hook sees tokens only once they are final.
fn announce(out: &[Vec<Generated>], hooks: &mut Hooks<'_>) {
    let Some(hook) = &mut hooks.on_token else { return };
    for (request, sequences) in out.iter().enumerate() {
        for (sequence, g) in sequences.iter().enumerate() {
            for (i, &token) in g.tokens.iter().enumerate() {
                let finish = (i + 1 == g.tokens.len()).then_some(g.finish);
                if hook(&TokenEvent { request, sequence, token, finish }).is_break() {
                    return;
                }
            }
        }
    }
}
