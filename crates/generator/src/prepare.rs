//! From a record to tokens: the contexts of the prompt, what fits of them, the ids and which of them are learned.

mod few_shot;
mod places;

pub use few_shot::{ExampleChoice, FewShotConfig};
pub use places::Place;

use few_shot::Pool;

use crate::contexts::{Chosen, ContextConfig, Key, Shown, Sources};
use crate::error::{Error, Result, bad};
use crate::model::Generator;
use ragduet_data::{BadRows, Message, Passage, RagRecord, Style};
use ragduet_text::{
    Built, ChatTemplate, Context, EncodeOptions, ExampleOptions, LossOn, RagPrompt, Tokenizer, TrainExample,
    Untrainable, fit_contexts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Prompt format and length limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Prompt template.
    pub template: RagPrompt,
    /// Few-shot examples, chosen for each question from a file of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<FewShotConfig>,
    /// Whether prompts use the tokenizer's chat template; absent: if it has one.
    pub chat: Option<bool>,
    /// Puts the system message before the first question, for chat templates without a system role (Gemma 2, Mistral 7B).
    pub fold_system: bool,
    /// Extra variables of the chat template, such as `enable_thinking = false`.
    pub template_variables: BTreeMap<String, serde_json::Value>,
    /// Maximum tokens of prompt and answer; passages are shortened or dropped to fit, question and answer never.
    /// Absent: the model's maximum.
    pub max_tokens: Option<usize>,
    /// Minimum tokens of a shortened passage; below it the passage is dropped.
    pub min_passage_tokens: usize,
    /// Loss mask: `completion`, `assistant` or `all`.
    pub loss_on: LossOn,
    /// Fusion-in-decoder (encoder-decoders): each passage is encoded with the question in a prompt of its own
    /// (`max_tokens` each, answer included), and the decoder attends to all of them.
    pub fusion: bool,
}

ragduet_train::config!(PromptConfig);

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            template: RagPrompt::default(),
            examples: None,
            chat: None,
            fold_system: false,
            template_variables: BTreeMap::new(),
            max_tokens: None,
            min_passage_tokens: 16,
            loss_on: LossOn::Completion,
            fusion: false,
        }
    }
}

impl PromptConfig {
    /// A hash of the few-shot examples' file, if there is one: of what prompts show beside the data.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn examples_digest(&self) -> Result<Option<String>> {
        self.examples.as_ref().map(FewShotConfig::digest).transpose()
    }

    /// With names that hold from any working directory.
    ///
    /// # Errors
    /// A path that cannot be made absolute.
    pub fn lasting(&self) -> Result<Self> {
        let mut prompt = self.clone();
        if let Some(examples) = &mut prompt.examples {
            examples.file = std::path::absolute(&examples.file)?;
        }
        Ok(prompt)
    }
}

/// What helps where a template has no system role.
pub(crate) const FOLD: &str = "for a template without a system role, fold_system = true puts the system message before the first question";

/// Puts a system message before the first question.
pub(crate) fn fold(messages: &mut Vec<serde_json::Value>) {
    let role = |m: &serde_json::Value, name: &str| m.get("role").and_then(|r| r.as_str()) == Some(name);
    let content = |m: &serde_json::Value| m.get("content").and_then(|c| c.as_str()).unwrap_or("").to_owned();
    let system = |m: &serde_json::Value| role(m, "system") || role(m, "developer");
    while let Some(at) = messages.iter().position(system)
        && let Some(user) = messages.iter().position(|m| role(m, "user"))
    {
        let text = format!("{}\n\n{}", content(&messages[at]), content(&messages[user]));
        messages[user]["content"] = text.into();
        messages.remove(at);
    }
}

/// The tools of a record, if it has any.
fn tools(record: &RagRecord) -> Option<&[serde_json::Value]> {
    (!record.tools.is_empty()).then_some(&record.tools)
}

/// Why a record's conversation is refused: what the template said, and the roles it was given.
fn refused(record: &RagRecord, why: &ragduet_text::Error) -> String {
    let mut roles: Vec<&str> = record.history.iter().map(Message::role).collect();
    roles.push("user");
    roles.extend(record.steps.iter().map(Message::role));
    format!("{why}; the conversation's roles are {}; {FOLD}", roles.join(", "))
}

/// What became of the records and passages that were prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PrepareReport {
    /// Records that became examples.
    pub examples: usize,
    /// Records left out, by reason.
    pub left_out: BTreeMap<String, usize>,
    /// Passages shown whole.
    pub kept: usize,
    /// Passages shown shortened.
    pub shortened: usize,
    /// Passages for which there was no room.
    pub dropped: usize,
    /// Tokens of all prompts.
    pub read: usize,
    /// Tokens of shortened and dropped passages that no prompt shows.
    pub unread: usize,
    /// Examples that learn to abstain.
    pub abstaining: usize,
    /// Few-shot examples that were left out for want of room.
    pub examples_dropped: usize,
    /// Conversations and plain texts, which show no few-shot examples.
    pub without_examples: usize,
    /// Records whose golden passages were cut to a few sentences (`contexts.excerpt_epochs`).
    pub excerpts: usize,
}

impl PrepareReport {
    /// Share of the tokens of prompts and passages that was not read.
    pub fn unread_share(&self) -> f64 {
        self.unread as f64 / (self.read + self.unread).max(1) as f64
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.examples += other.examples;
        self.kept += other.kept;
        self.shortened += other.shortened;
        self.dropped += other.dropped;
        self.read += other.read;
        self.unread += other.unread;
        self.abstaining += other.abstaining;
        self.examples_dropped += other.examples_dropped;
        self.without_examples += other.without_examples;
        self.excerpts += other.excerpts;
        for (why, n) in &other.left_out {
            *self.left_out.entry(why.clone()).or_default() += n;
        }
    }
}

impl std::fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} examples; passages: {} whole, {} shortened, {} dropped for want of room",
            self.examples, self.kept, self.shortened, self.dropped
        )?;
        if self.unread > 0 {
            write!(f, " ({:.1} % of all tokens unread)", 100.0 * self.unread_share())?;
        }
        if self.abstaining > 0 {
            write!(f, "; {} learn to abstain", self.abstaining)?;
        }
        if self.examples_dropped > 0 {
            write!(f, "; {} few-shot examples left out for want of room", self.examples_dropped)?;
        }
        if self.without_examples > 0 {
            write!(f, "; {} conversations or plain texts without few-shot examples", self.without_examples)?;
        }
        if self.excerpts > 0 {
            write!(f, "; {} show an excerpt", self.excerpts)?;
        }
        for (why, n) in &self.left_out {
            write!(f, "; {n} left out: {why}")?;
        }
        Ok(())
    }
}

/// A prompt, and the passages that it shows.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Lengths of what is read apart (fusion in the decoder); empty: all of it in one.
    pub parts: Vec<usize>,
    /// Its passages, in order, as shown.
    pub contexts: Vec<Context>,
}

/// Examples behind one prompt, or the reason why there are none.
pub type Several = std::result::Result<Vec<TrainExample>, Untrainable>;

/// A prompt before it is tokens.
enum Put<'a> {
    Messages(&'a ChatTemplate, Vec<serde_json::Value>),
    Text(String),
    /// Fusion in the decoder: one for each passage.
    Texts(Vec<String>),
}

/// Turns records into prompts and examples.
///
/// What is over the limit loses passages and nothing else: a question, a conversation or an answer is never cut. What
/// is too long without passages is counted and left out, as is what has no answer, such as a conversation that ends
/// with the user's message.
#[derive(Debug)]
pub struct Preparer<'a> {
    tokenizer: Cow<'a, Tokenizer>,
    chat: Option<ChatTemplate>,
    /// What an encoder-decoder's answers start with.
    start: Option<u32>,
    /// For conversations where the tokenizer has no template.
    fallback: ChatTemplate,
    config: Cow<'a, PromptConfig>,
    /// Few-shot examples to choose from.
    examples: Option<Arc<Pool>>,
    contexts: ContextConfig,
    max_tokens: usize,
    /// Most tokens of all that is read apart, with the answer.
    limit: usize,
    seed: u64,
    /// Where the model's positions end, if they do.
    positions: Option<usize>,
}

impl<'a> Preparer<'a> {
    /// For a generator, which takes so many tokens, and no more than `limit`. An encoder-decoder reads plain prompts.
    ///
    /// # Errors
    /// Settings that contradict each other or the generator.
    pub fn new(
        generator: &'a Generator,
        config: &'a PromptConfig,
        contexts: ContextConfig,
        limit: usize,
        seed: u64,
    ) -> Result<Self> {
        config.template.validate().map_err(|(key, why)| bad(&format!("prompt.template.{key}"), why))?;
        contexts.check()?;
        let (tokenizer, start) = (&generator.tokenizer, generator.decoder_start());
        let plain = config.chat == Some(false) || start.is_some();
        let template = if plain { None } else { tokenizer.chat_template()? };
        if config.chat == Some(true) && start.is_some() {
            return Err(bad("prompt.chat", "an encoder-decoder reads plain prompts"));
        }
        if config.chat == Some(true) && template.is_none() {
            return Err(bad("prompt.chat", "the tokenizer has no chat template"));
        }
        let limit = limit.min(generator.max_tokens());
        let max_tokens = config.max_tokens.unwrap_or(limit.min(generator.usual_tokens()));
        if max_tokens > limit {
            return Err(bad(
                "prompt.max_tokens",
                format!("at most {limit} fit: the model's positions, in training also batch.tokens"),
            ));
        }
        if config.fusion && start.is_none() {
            return Err(bad("prompt.fusion", "only an encoder-decoder (such as T5) reads passages apart"));
        }
        if config.fusion && config.template.cite {
            return Err(bad(
                "prompt.fusion",
                "passages that are read apart have no numbers to cite (template.cite)",
            ));
        }
        let examples = config.examples.as_ref().map(|c| Pool::of(c, &config.template)).transpose()?;
        let template = template.map(|t| t.with_variables(config.template_variables.clone())).transpose()?;
        let fallback = tokenizer.fallback_chat_template()?;
        let (tokenizer, config) = (Cow::Borrowed(tokenizer), Cow::Borrowed(config));
        let positions = generator.positions();
        Ok(Self {
            tokenizer,
            chat: template,
            fallback,
            start,
            config,
            examples,
            contexts,
            max_tokens,
            limit,
            seed,
            positions,
        })
    }

    /// The same with a tokenizer and settings of its own.
    pub fn into_owned(self) -> Preparer<'static> {
        let Self { tokenizer, config, chat, start, fallback, examples, .. } = self;
        let (contexts, max_tokens, limit) = (self.contexts, self.max_tokens, self.limit);
        let (seed, positions) = (self.seed, self.positions);
        let (tokenizer, config) = (Cow::Owned(tokenizer.into_owned()), Cow::Owned(config.into_owned()));
        Preparer {
            tokenizer,
            chat,
            start,
            fallback,
            config,
            examples,
            contexts,
            max_tokens,
            limit,
            seed,
            positions,
        }
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Takes out records whose conversation the chat template refuses; each is a bad row. What records have and the
    /// template does not show is counted in a warning.
    ///
    /// # Errors
    /// The first such row with its place, unless bad rows are skipped.
    pub fn set_refused_aside(&self, records: &mut Vec<RagRecord>, bad: &BadRows) -> Result<()> {
        let refusal = |record: &RagRecord| -> Result<Option<String>> {
            let tried = match (self.put(record, &self.config.template, &[]), record.learned_answer()) {
                (Ok(Put::Messages(chat, mut messages)), Some(answer)) => {
                    messages.push(record.answered(answer).json());
                    let options = self.options(record);
                    self.tokenizer.chat_example(chat, &messages, tools(record), &options).map(|_| ())
                }
                (Ok(Put::Messages(chat, messages)), None) => {
                    chat.render(&messages, tools(record), true).map(|_| ())
                }
                (put, _) => put.map(|_| ()),
            };
            match tried {
                Err(why) if why.is_refusal() => Ok(Some(refused(record, &why))),
                other => Ok(other.map(|()| None)?),
            }
        };
        // A conversation is tokenized for it, so only what a template may refuse is tried.
        if self.start.is_none() && (self.chat.is_some() || records.iter().any(|r| r.style == Style::Chat)) {
            let mut kept = Vec::with_capacity(records.len());
            for record in records.drain(..) {
                match refusal(&record)? {
                    Some(why) => bad.refuse(&record.origin, why, ragduet_data::rag_line(&record))?,
                    None => kept.push(record),
                }
            }
            *records = kept;
        }
        self.warn_of_unshown(records);
        Ok(())
    }

    /// Counts in one warning what records have and the chat template does not show, and weights beside a loss that learns
    /// one answer alone.
    pub fn warn_of_unshown(&self, records: &[RagRecord]) {
        let unshown = self.unshown(records);
        if !unshown.is_empty() {
            let counts: Vec<String> = unshown.iter().map(|(what, n)| format!("{what} ({n})")).collect();
            tracing::warn!(
                "not shown by the chat template, so not learned or read: {}; the prompt is the same without",
                counts.join(", ")
            );
        }
        let weighed = |m: &Message| {
            let json = m.json();
            m.role() == "assistant" && (json.get("weight").is_some() || json.get("train").is_some())
        };
        let earlier = |r: &&RagRecord| r.history.iter().chain(&r.steps).any(weighed);
        let weighed = records.iter().filter(earlier).count();
        if weighed > 0 && self.config.loss_on == LossOn::Completion {
            tracing::warn!(
                "{weighed} of {} conversations weigh answers before the last, which are not learned: \
                 prompt.loss_on = \"assistant\" learns all whose weight is not 0",
                records.len()
            );
        }
    }

    /// How a record becomes an example.
    fn options(&self, record: &RagRecord) -> ExampleOptions {
        let loss_on = self.config.loss_on;
        ExampleOptions { loss_on, completed: record.completed, ..ExampleOptions::default() }
    }

    /// What records have and the chat template does not show, with how often.
    pub fn unshown(&self, records: &[RagRecord]) -> BTreeMap<String, usize> {
        let plain = |m: &Message| !m.says_more() && matches!(m.role(), "user" | "assistant");
        let mut out = BTreeMap::new();
        for r in records {
            let more = !r.history.iter().chain(&r.steps).all(plain)
                || r.asked.is_some()
                || r.reply.is_some()
                || !r.tools.is_empty();
            if !more {
                continue;
            }
            let found = match (r.style, &self.chat) {
                (Style::Chat, chat) => {
                    let template = match self.start {
                        Some(_) => &self.fallback,
                        None => chat.as_ref().unwrap_or(&self.fallback),
                    };
                    let mut messages = self.conversation(r, &[]);
                    messages.extend(r.learned_answer().map(|words| r.answered(words).json()));
                    template.unshown(&messages, tools(r)).ok()
                }
                (Style::Question, Some(chat)) => {
                    let messages = self.config.template.messages(&r.question, &[]);
                    chat.unshown(&messages, tools(r)).ok()
                }
                // Plain text has no place for tools.
                _ => Some(BTreeMap::from([("tools".to_owned(), 1)])),
            };
            for (what, n) in found.into_iter().flatten() {
                *out.entry(what).or_default() += n;
            }
        }
        out
    }

    /// The messages of a conversation up to its answer.
    fn conversation(&self, record: &RagRecord, contexts: &[Context]) -> Vec<serde_json::Value> {
        let template = &self.config.template;
        let mut messages: Vec<_> = record.history.iter().map(Message::json).collect();
        let own = record.history.iter().any(|m| matches!(m.role(), "system" | "developer"));
        if !own && !template.system.is_empty() {
            messages.insert(0, ragduet_text::message("system", &template.system));
        }
        let turn = match contexts {
            [] => record.question.clone(),
            _ => template.turn(&record.question, contexts, true),
        };
        messages.push(record.asking(&turn).json());
        messages.extend(record.steps.iter().map(Message::json));
        if self.config.fold_system {
            fold(&mut messages);
        }
        messages
    }

    /// The passages that a record's prompt shows in an epoch.
    fn choose(&self, record: &RagRecord, epoch: u64) -> Chosen<usize> {
        // Passages by place: first the candidates, then golden ones that were not found.
        let gold: Vec<usize> = record
            .gold
            .iter()
            .enumerate()
            .map(|(i, g)| {
                let found = record.contexts.iter().position(|f| f.passage.id == g.id);
                found.unwrap_or(record.contexts.len() + i)
            })
            .collect();
        let candidates: Vec<usize> = (0..record.contexts.len()).collect();
        let holds = |text: &str| {
            let text = text.to_lowercase();
            record.answers.iter().any(|a| text.contains(&a.to_lowercase()))
        };
        let answering: Vec<bool> = record.contexts.iter().map(|f| holds(&f.passage.text)).collect();
        let sources = Sources { golden: &gold, candidates: &candidates, answering: &answering };
        self.contexts.choose(&sources, Key { seed: self.seed, epoch, example: &record.id })
    }

    fn passage(record: &RagRecord, place: usize) -> &Passage {
        match record.contexts.get(place) {
            Some(found) => &found.passage,
            None => &record.gold[place - record.contexts.len()],
        }
    }

    /// The template of a record's prompt: with its few-shot examples, as many as fit into half of the room beside what
    /// `measure` counts of the prompt without passages.
    fn template_of(
        &self,
        record: &RagRecord,
        report: &mut PrepareReport,
        mut measure: impl FnMut(&RagPrompt) -> ragduet_text::Result<usize>,
    ) -> Result<Cow<'_, RagPrompt>> {
        let template = Cow::Borrowed(&self.config.template);
        let Some(pool) = &self.examples else { return Ok(template) };
        if record.style != Style::Question {
            report.without_examples += 1;
            return Ok(template);
        }
        let mut template = RagPrompt { shots: pool.choose(&record.question)?, ..template.into_owned() };
        while !template.shots.is_empty() && measure(&template)? > self.max_tokens / 2 {
            template.shots.remove(0);
            report.examples_dropped += 1;
        }
        Ok(Cow::Owned(template))
    }

    /// A record's prompt in the form that its style asks for.
    fn put(
        &self,
        record: &RagRecord,
        template: &RagPrompt,
        contexts: &[Context],
    ) -> ragduet_text::Result<Put<'_>> {
        Ok(match (record.style, &self.chat) {
            (Style::Plain, _) => Put::Text(record.question.clone()),
            (Style::Question, None) if self.config.fusion && !contexts.is_empty() => {
                let alone = |c: &Context| template.plain(&record.question, std::slice::from_ref(c));
                Put::Texts(contexts.iter().map(alone).collect())
            }
            (Style::Question, None) => Put::Text(template.plain(&record.question, contexts)),
            (Style::Question, Some(chat)) => {
                let mut messages = template.messages(&record.question, contexts);
                if self.config.fold_system {
                    fold(&mut messages);
                }
                Put::Messages(chat, messages)
            }
            (Style::Chat, chat) => {
                let messages = self.conversation(record, contexts);
                match self.start {
                    // An encoder reads the conversation as text.
                    Some(_) => Put::Text(self.fallback.render(&messages, tools(record), true)?.text),
                    None => Put::Messages(chat.as_ref().unwrap_or(&self.fallback), messages),
                }
            }
        })
    }

    /// The example of a record in an epoch, and what was cut for it.
    pub fn example(&self, record: &RagRecord, epoch: u64, report: &mut PrepareReport) -> Result<Built> {
        let Some(answer) = record.learned_answer().map(str::to_owned) else {
            *report.left_out.entry(Untrainable::NoAnswer.to_string()).or_default() += 1;
            return Ok(Err(Untrainable::NoAnswer));
        };
        let built = self.examples(record, &[answer], epoch, report)?;
        Ok(built.and_then(|examples| examples.into_iter().next().ok_or(Untrainable::NoAnswer)))
    }

    /// Examples of a record, one for each of some answers, behind the same prompt: passages are cut until the longest
    /// fits. None where one of them cannot be made.
    pub fn examples(
        &self,
        record: &RagRecord,
        answers: &[String],
        epoch: u64,
        report: &mut PrepareReport,
    ) -> Result<Several> {
        Ok(self.built(record, answers, epoch, report)?.0)
    }

    /// [`Preparer::examples`], the passages that they show, and the template with its few-shot examples.
    fn built(
        &self,
        record: &RagRecord,
        answers: &[String],
        epoch: u64,
        report: &mut PrepareReport,
    ) -> Result<(Several, Vec<Context>, Cow<'_, RagPrompt>)> {
        let chosen = self.choose(record, epoch);
        let gold: Vec<String> = record.gold.iter().map(|g| g.id.clone()).collect();
        let one = |template: &RagPrompt, contexts: &[Context], answer: &str| {
            let target = match (&template.abstain, chosen.abstain) {
                (Some(abstain), true) => abstain.clone(),
                // The call of a tool is no text that could cite or abstain.
                _ if answer.is_empty() => String::new(),
                _ => template.target(answer, contexts, &gold),
            };
            let options = self.options(record);
            match self.put(record, template, contexts)? {
                Put::Messages(chat, mut messages) => {
                    messages.push(record.answered(&target).json());
                    self.tokenizer.chat_example(chat, &messages, tools(record), &options)
                }
                Put::Text(prompt) => {
                    let target = match record.style {
                        Style::Plain => target,
                        Style::Question | Style::Chat => template.completion(&target),
                    };
                    match self.start {
                        Some(start) => self.tokenizer.seq2seq_example(&prompt, &target, start, &options),
                        None => self.tokenizer.completion_example(&prompt, &target, &options),
                    }
                }
                Put::Texts(prompts) => {
                    let start = self.start.unwrap_or_default();
                    self.tokenizer.fusion_example(&prompts, &template.completion(&target), start, &options)
                }
            }
        };
        let made = |template: &RagPrompt, contexts: &[Context]| -> ragduet_text::Result<Several> {
            let all = answers.iter().map(|a| one(template, contexts, a));
            Ok(all.collect::<ragduet_text::Result<Vec<Built>>>()?.into_iter().collect())
        };
        let longest = |all: &[TrainExample]| all.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let tokens = |built: &Several| built.as_ref().map_or(0, |all| longest(all));
        let template = self.template_of(record, report, |template| Ok(tokens(&made(template, &[])?)))?;
        let build = |contexts: &[Context]| made(&template, contexts);
        // What is measured last is what is shown: it is not made twice.
        let mut last = None;
        let contexts = self.fit(record, &chosen, report, |c| {
            let built = build(c)?;
            let tokens = tokens(&built);
            last = Some(built);
            Ok(tokens)
        })?;
        let max_len = if contexts.len() > 1 { self.whole() } else { self.max_tokens };
        let built = match last.map_or_else(|| build(&contexts), Ok)? {
            Ok(all) if longest(&all) > max_len => {
                Err(Untrainable::TooLong { tokens: longest(&all), max_len })
            }
            other => other,
        };
        match &built {
            Ok(_) => {
                report.examples += 1;
                report.abstaining += usize::from(chosen.abstain);
            }
            Err(why @ (Untrainable::NoAnswer | Untrainable::NoWeight)) => {
                *report.left_out.entry(why.to_string()).or_default() += 1;
            }
            Err(Untrainable::TooLong { .. }) => {
                let why = format!("question and answer alone are over {} tokens", self.max_tokens);
                *report.left_out.entry(why).or_default() += 1;
            }
        }
        Ok((built, contexts, template))
    }

    /// The prompt of a record, leaving `reserve` tokens for the answer. None, and counted, where the question alone leaves
    /// no room for an answer, or with `reserve` is beyond the model's positions.
    ///
    /// # Errors
    /// A conversation that the chat template refuses, with its place; those of the tokenizer.
    pub fn prompt(
        &self,
        record: &RagRecord,
        reserve: usize,
        report: &mut PrepareReport,
    ) -> Result<Option<Prompt>> {
        self.made_prompt(record, reserve, report).map_err(|e| match e {
            Error::Text(why) if why.is_refusal() => {
                let place =
                    if record.origin.line == 0 { String::new() } else { format!("{}: ", record.origin) };
                Error::Unusable(format!("{place}question {}: {}", record.id, refused(record, &why)))
            }
            e => e,
        })
    }

    fn made_prompt(
        &self,
        record: &RagRecord,
        reserve: usize,
        report: &mut PrepareReport,
    ) -> Result<Option<Prompt>> {
        if record.asks_nothing() {
            *report.left_out.entry("a text without a question or prompt".into()).or_default() += 1;
            return Ok(None);
        }
        let chosen = self.choose(record, 0);
        type Encoded = (Vec<u32>, Vec<usize>);
        let encoded = |template: &RagPrompt, contexts: &[Context]| -> ragduet_text::Result<Encoded> {
            let ids = match self.put(record, template, contexts)? {
                Put::Messages(chat, messages) => {
                    let text = chat.render(&messages, tools(record), true)?.text;
                    // The template writes special tokens itself.
                    // All of it: what is too long loses passages, and is no prompt otherwise.
                    let options = EncodeOptions {
                        max_len: Some(usize::MAX),
                        add_special_tokens: false,
                        strip: false,
                        ..EncodeOptions::default()
                    };
                    self.tokenizer.encode(&text, &options)?.ids
                }
                Put::Text(prompt) => match self.start {
                    Some(_) => self.tokenizer.source_ids(&prompt)?,
                    None => self.tokenizer.prompt_ids(&prompt)?,
                },
                Put::Texts(prompts) => {
                    let read = prompts.iter().map(|p| self.tokenizer.source_ids(p));
                    let read = read.collect::<ragduet_text::Result<Vec<_>>>()?;
                    return Ok((read.concat(), read.iter().map(Vec::len).collect()));
                }
            };
            Ok((ids, Vec::new()))
        };
        let template = self.template_of(record, report, |t| Ok(encoded(t, &[])?.0.len() + reserve))?;
        let encode = |contexts: &[Context]| encoded(&template, contexts);
        let mut last = None;
        let contexts = self.fit(record, &chosen, report, |c| {
            let (ids, parts) = encode(c)?;
            let tokens = ids.len() + reserve;
            last = Some((ids, parts));
            Ok(tokens)
        })?;
        let (ids, parts) = last.map_or_else(|| encode(&contexts), Ok)?;
        let budget = if parts.is_empty() { self.max_tokens } else { self.whole() };
        let why = match self.positions {
            Some(n) if ids.len() + reserve > n => {
                Some(format!("the prompt and {reserve} new tokens are over the model's {n} positions"))
            }
            _ if ids.len() >= budget => Some(format!("the question alone is over {budget} tokens")),
            _ => None,
        };
        if let Some(why) = why {
            *report.left_out.entry(why).or_default() += 1;
            return Ok(None);
        }
        report.examples += 1;
        Ok(Some(Prompt { ids, parts, contexts }))
    }

    /// Cuts the least relevant passages until the whole fits; the order of the prompt stays.
    fn fit(
        &self,
        record: &RagRecord,
        chosen: &Chosen<usize>,
        report: &mut PrepareReport,
        mut measure: impl FnMut(&[Context]) -> ragduet_text::Result<usize>,
    ) -> Result<Vec<Context>> {
        let mut by_rank: Vec<&Shown<usize>> = chosen.passages.iter().collect();
        by_rank.sort_by_key(|s| s.rank);
        let named = |s: &Shown<usize>| {
            let p = Self::passage(record, s.passage);
            Context::new(&p.id, p.title.clone(), &p.text)
        };
        let ranked: Vec<Context> = by_rank.iter().map(|s| named(s)).collect();
        let order: Vec<String> =
            chosen.passages.iter().map(|s| Self::passage(record, s.passage).id.clone()).collect();
        let in_order = |shown: &[Context]| -> Vec<Context> {
            order.iter().filter_map(|id| shown.iter().find(|c| &c.id == id)).cloned().collect()
        };
        let least = self.config.min_passage_tokens;
        // What is read apart is cut apart first.
        let mut ranked = ranked;
        let mut cut = 0;
        if self.config.fusion {
            let mut shown = Vec::with_capacity(ranked.len());
            for c in &ranked {
                let alone = fit_contexts(
                    &self.tokenizer,
                    std::slice::from_ref(c),
                    self.max_tokens,
                    least,
                    &mut measure,
                )?;
                cut += alone.shortened.len();
                report.dropped += alone.dropped.len();
                report.unread += alone.unread;
                shown.extend(alone.contexts);
            }
            ranked = shown;
        }
        let fitted = fit_contexts(&self.tokenizer, &ranked, self.whole(), least, |c| measure(&in_order(c)))?;
        let cut = cut.min(fitted.kept.len());
        report.kept += fitted.kept.len() - cut;
        report.shortened += fitted.shortened.len() + cut;
        report.dropped += fitted.dropped.len();
        report.read += fitted.tokens;
        report.unread += fitted.unread;
        Ok(in_order(&fitted.contexts))
    }

    /// Most tokens of a prompt with its answer, whether read in one or apart.
    fn whole(&self) -> usize {
        if self.config.fusion { self.limit } else { self.max_tokens }
    }
}
