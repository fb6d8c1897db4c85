//! Rows of preferences as sequences: prompt and answer in tokens.

use crate::error::{Error, Result, bad as refused};
use crate::learned::as_learned;
use crate::loss::PreferenceLossKind;
use crate::model::Generator;
use crate::prepare::{FOLD, fold};
use crate::recipe::config::PreferenceConfig;
use ragduet_data::{BadRows, Message, Origin, Prompt, read_judged, read_preferences};
use ragduet_text::{Built, ChatTemplate, ExampleOptions, TrainExample, message};
use ragduet_train::Fingerprint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The sequences of a row: a pair has a chosen and a rejected one, a judged completion one of them and a mismatched one.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Its number among the rows that were read of the file, from 1.
    pub number: usize,
    chosen: Option<TrainExample>,
    rejected: Option<TrainExample>,
    mismatched: Option<TrainExample>,
}

impl Row {
    pub fn sides(&self) -> [Option<&TrainExample>; 3] {
        [self.chosen.as_ref(), self.rejected.as_ref(), self.mismatched.as_ref()]
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sides().into_iter().flatten().map(|e| e.ids.len()).sum()
    }
}

/// A hash of rows.
pub(super) fn fingerprint(rows: &[Row]) -> u64 {
    let of = |e: Option<&TrainExample>| {
        let ids = e.map_or(&[][..], |e| &e.ids);
        let learned = e.map_or(0, |e| e.targets() as u64);
        [ids.len() as u64, learned].into_iter().chain(ids.iter().map(|&id| u64::from(id))).collect::<Vec<_>>()
    };
    let sides = rows.iter().flat_map(Row::sides);
    sides.fold(Fingerprint::default(), |all, side| all.numbers(of(side))).digest()
}

/// The most tokens that a prompt with its answer may have: a pair stays together.
pub(super) fn usual_limit(config: &PreferenceConfig, generator: &Generator) -> usize {
    generator.max_tokens().min(config.batch.tokens / 2)
}

/// Prompts and answers to sequences of at most so many tokens.
struct Examples<'a> {
    generator: &'a Generator,
    /// What an encoder-decoder's answers start with.
    start: Option<u32>,
    chat: Option<ChatTemplate>,
    fallback: ChatTemplate,
    options: ExampleOptions,
    fold_system: bool,
    path: &'a Path,
    bad: &'a BadRows,
}

impl<'a> Examples<'a> {
    fn new(
        config: &PreferenceConfig,
        generator: &'a Generator,
        path: &'a Path,
        bad: &'a BadRows,
    ) -> Result<Self> {
        let tokenizer = &generator.tokenizer;
        let start = generator.decoder_start();
        if config.chat == Some(true) && start.is_some() {
            return Err(refused("chat", "an encoder-decoder reads plain prompts"));
        }
        let plain = config.chat == Some(false) || start.is_some();
        let chat = if plain { None } else { tokenizer.chat_template()? };
        if config.chat == Some(true) && chat.is_none() {
            return Err(refused("chat", "the tokenizer has no chat template"));
        }
        let limit = usual_limit(config, generator);
        let max_len = config.max_tokens.unwrap_or(limit);
        if max_len > limit {
            let why = format!("the model and half of batch.tokens allow {limit}: a pair stays together");
            return Err(refused("max_tokens", why));
        }
        let options = ExampleOptions { max_len: Some(max_len), ..ExampleOptions::default() };
        let (fallback, fold_system) = (tokenizer.fallback_chat_template()?, config.fold_system);
        Ok(Self { generator, start, chat, fallback, options, fold_system, path, bad })
    }

    /// Logs a sequence of the first row as the model reads it.
    fn log(&self, which: &str, example: &TrainExample) -> Result<()> {
        let words = as_learned(&self.generator.tokenizer, example, 600)?;
        tracing::info!("{}: the first {which} answer as the model reads it: {words}", self.path.display());
        Ok(())
    }

    /// [`Examples::of`]; none where the template refuses the row, which is then a bad one.
    fn kept(
        &self,
        prompt: &Prompt,
        answer: &Message,
        tools: &[Value],
        number: usize,
    ) -> Result<Option<Built>> {
        match self.of(prompt, answer, tools) {
            Err(Error::Text(why)) if why.is_refusal() => {
                let origin = Origin { path: self.path.into(), line: number as u64 };
                self.bad.refuse(&origin, format!("{why}; {FOLD}"), answer.json().to_string())?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn of(&self, prompt: &Prompt, answer: &Message, tools: &[Value]) -> Result<Built> {
        let tokenizer = &self.generator.tokenizer;
        let (words, tools) = (answer.content(), (!tools.is_empty()).then_some(tools));
        let mut turns = match (prompt, &self.chat) {
            (Prompt::Text(text), None) => {
                return Ok(match self.start {
                    Some(start) => tokenizer.seq2seq_example(text, words, start, &self.options)?,
                    None => tokenizer.completion_example(text, words, &self.options)?,
                });
            }
            (Prompt::Text(text), Some(_)) => vec![message("user", text)],
            (Prompt::Turns(turns), _) => turns.iter().map(Message::json).collect(),
        };
        if self.fold_system {
            fold(&mut turns);
        }
        if let Some(start) = self.start {
            // An encoder reads the conversation as text.
            let text = self.fallback.render(&turns, tools, true)?.text;
            return Ok(tokenizer.seq2seq_example(&text, words, start, &self.options)?);
        }
        turns.push(answer.json());
        let template = self.chat.as_ref().unwrap_or(&self.fallback);
        Ok(tokenizer.chat_example(template, &turns, tools, &self.options)?)
    }

    /// Counts what a row has and the template does not show.
    fn unshown(
        &self,
        prompt: &Prompt,
        answer: &Message,
        tools: &[Value],
        counts: &mut BTreeMap<String, usize>,
    ) {
        let template = match self.start {
            Some(_) => &self.fallback,
            None => self.chat.as_ref().unwrap_or(&self.fallback),
        };
        let mut turns: Vec<Value> = match prompt {
            Prompt::Turns(turns) => turns.iter().map(Message::json).collect(),
            // Plain text has no place for tools.
            Prompt::Text(_) if self.chat.is_none() => {
                *counts.entry("tools".to_owned()).or_default() += usize::from(!tools.is_empty());
                return;
            }
            Prompt::Text(text) => vec![message("user", text)],
        };
        turns.push(answer.json());
        if self.fold_system {
            fold(&mut turns);
        }
        let found = template.unshown(&turns, (!tools.is_empty()).then_some(tools));
        for (what, n) in found.into_iter().flatten() {
            *counts.entry(what).or_default() += n;
        }
    }

    /// Says what rows had that the template did not show.
    fn warn(&self, mut counts: BTreeMap<String, usize>) {
        counts.retain(|_, n| *n > 0);
        if !counts.is_empty() {
            let counts: Vec<String> = counts.iter().map(|(what, n)| format!("{what} ({n})")).collect();
            tracing::warn!(
                "{}: not shown by the chat template, so not learned: {}; the prompt is the same without",
                self.path.display(),
                counts.join(", ")
            );
        }
    }
}

/// The rows of a file that fit, and how many do not. Nothing is cut: half an answer is no answer.
///
/// # Errors
/// Rows that cannot be read, settings that the generator cannot have.
pub(super) fn read(
    config: &PreferenceConfig,
    generator: &Generator,
    path: &Path,
    bad: &BadRows,
) -> Result<(Vec<Row>, usize)> {
    let examples = Examples::new(config, generator, path, bad)?;
    if matches!(config.preference.loss, PreferenceLossKind::Kto(_)) {
        return judged(&examples, path, bad);
    }
    let (mut pairs, mut left_out, mut unshown) = (Vec::new(), 0, BTreeMap::new());
    for (i, record) in read_preferences(path, bad)?.enumerate() {
        let record = record?;
        let (prompt, tools) = (&record.prompt, &record.tools);
        let Some(chosen) = examples.kept(prompt, &record.chosen, tools, i + 1)? else { continue };
        let Some(rejected) = examples.kept(prompt, &record.rejected, tools, i + 1)? else { continue };
        examples.unshown(prompt, &record.chosen, tools, &mut unshown);
        match (chosen, rejected) {
            (Ok(chosen), Ok(rejected)) => {
                if pairs.is_empty() {
                    examples.log("chosen", &chosen)?;
                    examples.log("rejected", &rejected)?;
                }
                let (chosen, rejected) = (Some(chosen), Some(rejected));
                pairs.push(Row { number: i + 1, chosen, rejected, mismatched: None });
            }
            _ => left_out += 1,
        }
    }
    examples.warn(unshown);
    Ok((pairs, left_out))
}

/// Judged completions, each with another prompt's completion behind its own prompt.
fn judged(examples: &Examples<'_>, path: &Path, bad: &BadRows) -> Result<(Vec<Row>, usize)> {
    /// Partners tried for one that fits.
    const TRIES: usize = 16;
    let (mut kept, mut left_out, mut unshown) = (Vec::new(), 0, BTreeMap::new());
    for (i, record) in read_judged(path, bad)?.enumerate() {
        let record = record?;
        match examples.kept(&record.prompt, &record.completion, &record.tools, i + 1)? {
            None => {}
            Some(Ok(example)) => {
                if kept.is_empty() {
                    examples.log(if record.good { "desirable" } else { "undesirable" }, &example)?;
                }
                examples.unshown(&record.prompt, &record.completion, &record.tools, &mut unshown);
                kept.push((record, example, i + 1));
            }
            Some(Err(_)) => left_out += 1,
        }
    }
    examples.warn(unshown);
    if kept.iter().all(|(r, ..)| r.prompt == kept[0].0.prompt) && !kept.is_empty() {
        let why = format!("{}: kto needs rows of two prompts or more", path.display());
        return Err(Error::Unusable(why));
    }
    let mut rows = Vec::with_capacity(kept.len());
    for (i, (record, example, number)) in kept.iter().enumerate() {
        let others = (1..kept.len()).map(|k| &kept[(i + k) % kept.len()].0);
        let mut mismatched = None;
        for other in others.filter(|o| o.prompt != record.prompt).take(TRIES) {
            if let Ok(e) = examples.of(&record.prompt, &other.completion, &record.tools)? {
                mismatched = Some(e);
                break;
            }
        }
        if mismatched.is_none() {
            left_out += 1;
            continue;
        }
        let (own, number) = (Some(example.clone()), *number);
        rows.push(match record.good {
            true => Row { number, chosen: own, rejected: None, mismatched },
            false => Row { number, chosen: None, rejected: own, mismatched },
        });
    }
    Ok((rows, left_out))
}
