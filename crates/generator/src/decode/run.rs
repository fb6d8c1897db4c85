//! Greedy and sampled decoding: a token per live sequence and step.

use super::process::Processors;
use super::sample::{Stream, at, filtered};
use super::stop::Stops;
use super::{Decoding, Finish, Generated, History, Hooks, Request, Stepper, TokenEvent, fan_out, prefill};
use crate::Result;
use ragduet_torch::{Device, Kind, Tensor};

/// A sequence in the batch.
struct Live {
    request: usize,
    sequence: usize,
    history: History,
    log_probs: Vec<f32>,
    stream: Stream,
}

pub(super) fn run(
    stepper: &mut dyn Stepper,
    requests: &[Request],
    d: &Decoding,
    hooks: &mut Hooks<'_>,
) -> Result<Vec<Vec<Generated>>> {
    let n = d.num_return_sequences;
    let logits = prefill(stepper, requests)?;
    let mut logits = fan_out(stepper, logits, n)?;
    let mut live: Vec<Live> = Vec::with_capacity(requests.len() * n);
    for (request, r) in requests.iter().enumerate() {
        live.extend((0..n).map(|sequence| Live {
            request,
            sequence,
            history: History { tokens: r.prompt.clone(), prompt: r.prompt.len() },
            log_probs: Vec::new(),
            stream: Stream::new(d, r, sequence),
        }));
    }
    let mut out: Vec<Vec<Option<Generated>>> = vec![vec![None; n]; requests.len()];
    let (processors, stops) = (Processors::new(d), Stops::new(d, hooks.detokenize));
    let mut broken = false;
    loop {
        let chosen = choose(&logits, &mut live, d, &processors)?;
        if d.log_probs {
            let index = Tensor::from_slice(&chosen).to_device(logits.device()).unsqueeze(1);
            let picked = logits.log_softmax(-1, Kind::Float).gather(1, &index, false).to_device(Device::Cpu);
            let picked: Vec<f32> = picked.view(-1).try_into().map_err(ragduet_torch::Error::from)?;
            live.iter_mut().zip(picked).for_each(|(row, p)| row.log_probs.push(p));
        }
        let mut keep = Vec::with_capacity(live.len());
        let mut staying = Vec::with_capacity(live.len());
        for (at, (mut row, token)) in live.into_iter().zip(&chosen).enumerate() {
            let token = *token as u32;
            row.history.tokens.push(token);
            let mut finish = ended(row.history.generated(), d, &stops)?;
            if let Some(hook) = hooks.on_token.as_mut().filter(|_| !broken) {
                let event = TokenEvent { request: row.request, sequence: row.sequence, token, finish };
                broken |= hook(&event).is_break();
            }
            if broken {
                finish = finish.or(Some(Finish::Stopped));
            }
            match finish {
                Some(finish) => {
                    let tokens = row.history.generated().to_vec();
                    out[row.request][row.sequence] =
                        Some(Generated { tokens, log_probs: row.log_probs, finish, score: None });
                }
                None => {
                    keep.push(at);
                    staying.push(row);
                }
            }
        }
        // A hook may break after rows before its own were kept; they end, too.
        if broken {
            for row in staying.drain(..) {
                let tokens = row.history.generated().to_vec();
                out[row.request][row.sequence] = Some(Generated {
                    tokens,
                    log_probs: row.log_probs,
                    finish: Finish::Stopped,
                    score: None,
                });
            }
        }
        live = staying;
        if live.is_empty() {
            break;
        }
        if keep.len() < chosen.len() {
            stepper.reorder(&keep)?;
        }
        let feed: Vec<Vec<u32>> =
            live.iter().map(|r| r.history.tokens.last().copied().into_iter().collect()).collect();
        logits = stepper.step(&feed)?;
    }
    Ok(out.into_iter().map(|r| r.into_iter().flatten().collect()).collect())
}

/// The next token of every row.
fn choose(logits: &Tensor, live: &mut [Live], d: &Decoding, processors: &Processors<'_>) -> Result<Vec<i64>> {
    let scores = {
        let histories: Vec<&History> = live.iter().map(|r| &r.history).collect();
        processors.apply(logits.to_kind(Kind::Float), &histories)
    };
    if !d.do_sample {
        return greedy(&scores);
    }
    let rows = filtered(&scores, d)?;
    Ok(rows.iter().zip(live).map(|(row, l)| i64::from(at(row, l.stream.uniform()))).collect())
}

/// The likeliest token of every row; of several the first. One read from the device.
fn greedy(scores: &Tensor) -> Result<Vec<i64>> {
    if scores.device() != Device::Cpu {
        let best = scores.argmax(-1, false).to_device(Device::Cpu);
        return Ok(best.try_into().map_err(ragduet_torch::Error::from)?);
    }
    // ATen's argmax on the CPU is scalar: copying the row and looking twice takes half as long.
    let vocab = scores.size()[1] as usize;
    let all: Vec<f32> = scores.contiguous().view(-1).try_into().map_err(ragduet_torch::Error::from)?;
    Ok(all.chunks_exact(vocab).map(|row| first_max(row) as i64).collect())
}

/// Where the greatest value is first. NaN is never greatest.
fn first_max(row: &[f32]) -> usize {
    const LANES: usize = 16;
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, greater);
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, x);
        }
    }
    let best = lanes.into_iter().fold(rest, greater);
    row.iter().position(|&x| x == best).unwrap_or(0)
}

/// Whether a sequence ends with its last token. An end-of-sequence token goes before a stop string before the length.
pub(super) fn ended(generated: &[u32], d: &Decoding, stops: &Stops<'_>) -> Result<Option<Finish>> {
    if generated.last().is_some_and(|t| d.eos_token_id.contains(t)) {
        return Ok(Some(Finish::Eos));
    }
    if let Some(which) = stops.hit(generated)? {
        return Ok(Some(Finish::StopString(which)));
    }
    Ok((generated.len() >= d.max_new_tokens).then_some(Finish::Length))
}

#[cfg(test)]
mod tests {
    use super::first_max;

    #[test]
    fn the_first_of_the_greatest_is_found_wherever_it_is() {
        for n in [1, 15, 16, 17, 100] {
            for at in 0..n {
                let mut row = vec![-2.0f32; n];
                row[at] = 1.5;
                row[n - 1] = 1.5;
                assert_eq!(first_max(&row), at);
            }
        }
        assert_eq!(first_max(&[f32::NEG_INFINITY, f32::NAN, -3.0, -2.0]), 3);
        assert_eq!(first_max(&[f32::NEG_INFINITY; 3]), 0);
    }
}
