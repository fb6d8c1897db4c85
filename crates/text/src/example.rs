//! Training examples of a language model: ids, and which of them are learned.
//!
//! A mask is made from byte spans of the rendered text and the offsets of one tokenization of the whole. Where the
//! tokens of the prompt are the first tokens of the whole, that is the same as counting the prompt's tokens (as TRL
//! does); where a token straddles the border, counting is wrong and this is not: the token is learned.
//!
//! The spans of a conversation come from `{% generation %}` where the template has it, else from prefix rendering:
//! the conversation up to an answer, with the generation prompt, must be the beginning of the whole. Templates that
//! render earlier turns differently from the last (Qwen 3 drops their reasoning) are handled by searching for a
//! marker put in place of the answer; that is checked, too, and what cannot be found is an error, never a guess.
//!
//! An example of an encoder-decoder is one sequence, source and then target ([`TrainExample::source`]); hidden states
//! come in that order, so losses and recipes do not know the difference.

use std::ops::Range;

use serde_json::Value;

use crate::chat::ChatTemplate;
use crate::layout::Slot;
use crate::{EncodeOptions, Error, Result, Tokenizer};

/// Which tokens are learned.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The completion; of a conversation, the last answer.
    #[default]
    Completion,
    /// Every answer of a conversation.
    Assistant,
    /// Everything.
    All,
}

/// An example that can be trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrainExample {
    /// Token ids; for an encoder-decoder those of the source, then those of the target from its start token on.
    pub ids: Vec<u32>,
    /// Whether each token is learned, as a target. At least one beside the first token is.
    pub loss: Vec<bool>,
    /// How many of the ids are an encoder-decoder's source; else 0.
    pub source: usize,
    /// Lengths of what its encoder reads apart, one after another (fusion in the decoder); empty: all of it in one.
    pub parts: Vec<usize>,
}

impl TrainExample {
    /// Number of tokens that are learned. The first token has nothing before it, so it is never a target.
    pub fn targets(&self) -> usize {
        self.predicted().filter(|&i| self.loss[i]).count()
    }

    /// Where the tokens are that the model predicts, each at the token before it.
    pub fn predicted(&self) -> Range<usize> {
        self.source + 1..self.ids.len()
    }
}

/// Why an example cannot be trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Untrainable {
    /// There is no answer.
    NoAnswer,
    /// What would be learned has weight 0.
    NoWeight,
    /// It is over the limit, and cutting it would cut the answer.
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The limit.
        max_len: usize,
    },
}

impl std::fmt::Display for Untrainable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("there is no answer to learn"),
            Self::NoWeight => f.write_str("its answer has weight 0 and is not learned"),
            Self::TooLong { tokens, max_len } => write!(f, "{tokens} tokens, {max_len} are allowed"),
        }
    }
}

/// An example, or the reason why there is none; the caller counts the reasons.
pub type Built = std::result::Result<TrainExample, Untrainable>;

/// How examples are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExampleOptions {
    /// Most tokens. Longer examples are [`Untrainable::TooLong`]; nothing is cut. `None` is no limit.
    pub max_len: Option<usize>,
    /// Which tokens are learned.
    pub loss_on: LossOn,
    /// Whether a completion ends with the end-of-sequence token, so that the model learns to stop. In a conversation
    /// it is only added where the template puts no mark behind the last answer.
    pub append_eos: bool,
    /// Messages before a conversation's last answer that [`LossOn::Completion`] learns with it, whoever says them: those
    /// of a completion of several turns, as TRL learns it.
    pub completed: usize,
}

impl Default for ExampleOptions {
    fn default() -> Self {
        Self { max_len: None, loss_on: LossOn::default(), append_eos: true, completed: 0 }
    }
}

impl Tokenizer {
    /// The example of a plain prompt and its completion, joined as they are. Special tokens that the tokenizer puts
    /// in front (`<s>`) are there; those behind only as the end of the completion.
    pub fn completion_example(
        &self,
        prompt: &str,
        completion: &str,
        options: &ExampleOptions,
    ) -> Result<Built> {
        if completion.trim().is_empty() {
            return Ok(Err(Untrainable::NoAnswer));
        }
        let text = format!("{prompt}{completion}");
        let (mut ids, mut loss) = self.front(options.loss_on);
        // Without a prompt and a token before it, the first token is no target: the rest still is.
        let (body, on) =
            self.spanned(&text, std::slice::from_ref(&(prompt.len()..text.len())), options.loss_on)?;
        ids.extend(body);
        loss.extend(on);
        if let Some(eos) = self.eos_id().filter(|&eos| options.append_eos && ids.last() != Some(&eos)) {
            ids.push(eos);
            loss.push(true);
        }
        Ok(checked(ids, loss, options))
    }

    /// The tokens of a prompt as [`Tokenizer::completion_example`] has them: special tokens in front, none behind.
    pub fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>> {
        let (mut ids, _) = self.front(LossOn::Completion);
        ids.extend(self.spanned(prompt, &[], LossOn::Completion)?.0);
        Ok(ids)
    }

    /// The tokens that an encoder reads: the prompt with all special tokens that the tokenizer puts around a text, as
    /// transformers' tokenizer gives them. Nothing is cut; an empty prompt is the end-of-sequence token alone.
    ///
    /// # Errors
    /// An empty prompt without such a token.
    pub fn source_ids(&self, prompt: &str) -> Result<Vec<u32>> {
        let options = EncodeOptions { max_len: Some(usize::MAX), strip: false, ..EncodeOptions::default() };
        let mut ids = self.encode(prompt, &options)?.ids;
        if ids.is_empty() {
            ids.extend(self.eos_id());
        }
        if ids.is_empty() {
            return Err(Error::Encode { index: 0, reason: "an empty prompt is no source".into() });
        }
        Ok(ids)
    }

    /// The example of an encoder-decoder: the prompt is the source, the completion (without white space around it) and
    /// its end-of-sequence token the target, behind the start token. The target is learned, whatever the options say.
    pub fn seq2seq_example(
        &self,
        prompt: &str,
        completion: &str,
        start: u32,
        options: &ExampleOptions,
    ) -> Result<Built> {
        let built = self.fusion_example(&[prompt], completion, start, options)?;
        Ok(built.map(|e| TrainExample { parts: Vec::new(), ..e }))
    }

    /// [`Tokenizer::seq2seq_example`] of prompts that the encoder reads apart and the decoder sees together.
    pub fn fusion_example<S: AsRef<str>>(
        &self,
        prompts: &[S],
        completion: &str,
        start: u32,
        options: &ExampleOptions,
    ) -> Result<Built> {
        let completion = completion.trim();
        if completion.is_empty() {
            return Ok(Err(Untrainable::NoAnswer));
        }
        let read = prompts.iter().map(|p| self.source_ids(p.as_ref())).collect::<Result<Vec<_>>>()?;
        let parts = read.iter().map(Vec::len).collect();
        let mut ids = read.concat();
        let source = ids.len();
        ids.push(start);
        let plain = EncodeOptions {
            max_len: Some(usize::MAX),
            add_special_tokens: false,
            ..EncodeOptions::default()
        };
        ids.extend(self.encode(completion, &plain)?.ids);
        if let Some(eos) = self.eos_id().filter(|&eos| options.append_eos && ids.last() != Some(&eos)) {
            ids.push(eos);
        }
        if let Some(max_len) = options.max_len.filter(|&max_len| ids.len() > max_len) {
            return Ok(Err(Untrainable::TooLong { tokens: ids.len(), max_len }));
        }
        let loss = (0..ids.len()).map(|i| i > source).collect();
        Ok(counted(TrainExample { ids, loss, source, parts }))
    }

    /// The example of a conversation. Messages are passed to the template as they are; answers are the messages whose
    /// role is `assistant`. A message with `weight` 0 or `train` false is not learned, whatever the options say.
    pub fn chat_example(
        &self,
        template: &ChatTemplate,
        messages: &[Value],
        tools: Option<&[Value]>,
        options: &ExampleOptions,
    ) -> Result<Built> {
        let answers: Vec<usize> = (0..messages.len()).filter(|&i| is_answer(&messages[i])).collect();
        let Some(&last) = answers.last() else { return Ok(Err(Untrainable::NoAnswer)) };
        let whole = template.render(messages, tools, false)?;
        let first = last.saturating_sub(options.completed);
        let learned: Vec<usize> = match options.loss_on {
            LossOn::All => (0..messages.len()).collect(),
            LossOn::Assistant => answers.clone(),
            LossOn::Completion => (first..=last).collect(),
        };
        let unlearned: Vec<usize> = learned.iter().copied().filter(|&i| is_unlearned(&messages[i])).collect();
        if unlearned == learned {
            return Ok(Err(Untrainable::NoWeight));
        }
        // Blocks that are one for each answer are told apart by their place.
        let own = template.marks_answers() && whole.answers.len() == answers.len();
        let span = |i: usize| match answers.iter().position(|&a| a == i).filter(|_| own) {
            Some(place) => Ok(whole.answers[place].clone()),
            None => answer_span(template, messages, tools, i, &whole.text),
        };
        let silent = unlearned.iter().map(|&i| span(i)).collect::<Result<Vec<_>>>()?;
        let spans = match options.loss_on {
            LossOn::All if silent.is_empty() => Vec::new(),
            LossOn::All => std::iter::once(0..whole.text.len()).collect(),
            LossOn::Assistant if template.marks_answers() => whole.answers.clone(),
            LossOn::Completion if first < last => {
                // All from the first answer's words to the last one's end.
                let span = |i: usize| answer_span(template, messages, tools, i, &whole.text);
                std::iter::once(span(first)?.start..span(last)?.end).collect()
            }
            LossOn::Completion if template.marks_answers() => {
                whole.answers.last().cloned().into_iter().collect()
            }
            LossOn::Assistant => answers
                .iter()
                .map(|&i| answer_span(template, messages, tools, i, &whole.text))
                .collect::<Result<_>>()?,
            LossOn::Completion => vec![answer_span(template, messages, tools, last, &whole.text)?],
        };
        let (spans, on) = match silent.is_empty() {
            true => (spans, options.loss_on),
            false => (without(spans, &silent), LossOn::Assistant),
        };
        let (mut ids, mut loss) = self.spanned(&whole.text, &spans, on)?;
        if options.append_eos && last + 1 == messages.len() && !unlearned.contains(&last) {
            let span = match spans.last() {
                // Of a completion of several turns the span is all of them, and an earlier one may hold the words.
                Some(span) if options.completed == 0 => Some(span.clone()),
                _ => answer_span(template, messages, tools, last, &whole.text).ok(),
            };
            let content = messages[last].get("content").and_then(Value::as_str).unwrap_or_default();
            let calls = messages[last].get("tool_calls").is_some();
            // Bytes of the answer's own words; what follows them is the template's.
            let words = span.and_then(|s| {
                let at = whole.text[s.clone()].find(content.trim())? + s.start;
                Some(at + content.trim().len())
            });
            let from = match words {
                Some(end) => {
                    let encoding = self.inner.encode(whole.text.as_str(), false);
                    let encoding = encoding.map_err(|e| Error::Encode { index: 0, reason: e.to_string() })?;
                    encoding.get_offsets().iter().filter(|(start, _)| *start < end).count()
                }
                None => 0,
            };
            self.end_turn(&mut ids, &mut loss, from, calls)?;
        }
        let built = checked(ids, loss, options);
        Ok(match built {
            Err(Untrainable::NoAnswer) if !silent.is_empty() => Err(Untrainable::NoWeight),
            built => built,
        })
    }

    /// Puts the end-of-sequence token behind a last answer that the template ends with no mark of its own: without
    /// one the model would not learn to stop. Where a mark is there, learned or not, the template is left as it is.
    ///
    /// `from`: the first token behind the answer's own words. Before it nothing is a mark: an answer of one token would
    /// else be ended by the mark that begins it. Of an answer that calls tools, marks are special tokens alone: what
    /// ends the call (`</tool_call>`) does not end the answer.
    fn end_turn(&self, ids: &mut Vec<u32>, loss: &mut Vec<bool>, from: usize, calls: bool) -> Result<()> {
        /// Tokens from the answer's end on in which a mark is looked for: templates put a line's end around it.
        const NEAR: usize = 3;
        let (Some(eos), Some(end)) = (self.eos_id(), loss.iter().rposition(|&on| on)) else { return Ok(()) };
        let added = self.inner.get_added_tokens_decoder();
        let mark = |id: &u32| *id == eos || added.get(id).is_some_and(|token| token.special || !calls);
        let marked = |ids: &[u32]| ids.iter().any(mark);
        let behind = &ids[end + 1..];
        if marked(&ids[(end + 1).saturating_sub(NEAR).max(from).min(ids.len())..])
            || !self.decode(behind, false)?.trim().is_empty()
        {
            return Ok(());
        }
        ids.truncate(end + 1);
        loss.truncate(end + 1);
        ids.push(eos);
        loss.push(true);
        Ok(())
    }

    /// The token that a template puts behind an answer: what a model learns as its end. None where it puts none, or
    /// no single token.
    pub fn turn_end(&self, template: &ChatTemplate) -> Option<u32> {
        const WORDS: &str = "zqanswerqz";
        let turns = [crate::chat::message("user", "hello"), crate::chat::message("assistant", WORDS)];
        let whole = template.render(&turns, None, false).ok()?.text;
        let tail = &whole[whole.rfind(WORDS)? + WORDS.len()..];
        let first = *self.inner.encode(tail.trim_start(), false).ok()?.get_ids().first()?;
        let added = self.inner.get_added_tokens_decoder();
        (self.eos_id() == Some(first) || added.contains_key(&first)).then_some(first)
    }

    /// Ids of a rendered text and which of them touch a span. No special tokens are added: templates write them.
    fn spanned(&self, text: &str, spans: &[Range<usize>], on: LossOn) -> Result<(Vec<u32>, Vec<bool>)> {
        let encoding =
            self.inner.encode(text, false).map_err(|e| Error::Encode { index: 0, reason: e.to_string() })?;
        let ids = encoding.get_ids().to_vec();
        if on == LossOn::All {
            return Ok((ids.clone(), vec![true; ids.len()]));
        }
        let mut loss = Vec::with_capacity(ids.len());
        let mut next = 0;
        for &(start, end) in encoding.get_offsets() {
            // Byte-level tokenizers may trim spaces from offsets, so the token of a lone space can be empty; it lies
            // behind the space, at the very end of a span perhaps.
            while spans.get(next).is_some_and(|span| start >= span.end && end > span.end) {
                next += 1;
            }
            loss.push(spans.get(next).is_some_and(|span| end > span.start));
        }
        Ok((ids, loss))
    }

    /// The special tokens in front of a text.
    fn front(&self, on: LossOn) -> (Vec<u32>, Vec<bool>) {
        let slots = self.layouts.single(true).0.iter();
        let ids: Vec<u32> = slots
            .map_while(|slot| match slot {
                Slot::Special { id, .. } => Some(*id),
                Slot::First { .. } | Slot::Second { .. } => None,
            })
            .collect();
        let loss = vec![on == LossOn::All; ids.len()];
        (ids, loss)
    }
}

fn is_answer(message: &Value) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

/// Whether a message is not to be learned: `weight` 0 (OpenAI), `train` false (Axolotl).
fn is_unlearned(message: &Value) -> bool {
    ["weight", "train"].iter().any(|name| match message.get(name) {
        Some(Value::Bool(learned)) => !learned,
        Some(Value::Number(weight)) => weight.as_f64() == Some(0.0),
        _ => false,
    })
}

/// Spans without what lies in others; both ascend.
fn without(spans: Vec<Range<usize>>, silent: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut out = Vec::with_capacity(spans.len());
    for span in spans {
        let mut start = span.start;
        for gap in silent.iter().filter(|gap| gap.start < span.end && gap.end > span.start) {
            if gap.start > start {
                out.push(start..gap.start);
            }
            start = start.max(gap.end);
        }
        if start < span.end {
            out.push(start..span.end);
        }
    }
    out
}

fn checked(ids: Vec<u32>, loss: Vec<bool>, options: &ExampleOptions) -> Built {
    if let Some(max_len) = options.max_len.filter(|&max_len| ids.len() > max_len) {
        return Err(Untrainable::TooLong { tokens: ids.len(), max_len });
    }
    counted(TrainExample { ids, loss, source: 0, parts: Vec::new() })
}

fn counted(example: TrainExample) -> Built {
    if example.targets() == 0 { Err(Untrainable::NoAnswer) } else { Ok(example) }
}

/// Bytes of the whole text that message `index` adds behind the generation prompt.
fn answer_span(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&[Value]>,
    index: usize,
    whole: &str,
) -> Result<Range<usize>> {
    // A template may refuse a part of a conversation; then this way is not open, which is not an error yet.
    let render =
        |upto: usize, prompt: bool| template.render(&messages[..upto], tools, prompt).map(|r| r.text).ok();
    let prompted = if is_answer(&messages[index]) { render(index, true) } else { None };
    let before = prompted.or_else(|| render(index, false));
    let after = if index + 1 == messages.len() { Some(whole.to_owned()) } else { render(index + 1, false) };
    if let (Some(before), Some(after)) = (&before, &after)
        && whole.starts_with(before.as_str())
        && whole.starts_with(after.as_str())
        && before.len() < after.len()
    {
        return Ok(before.len()..after.len());
    }
    let unmaskable = || Error::Unmaskable { message: index, rendered: whole.to_owned() };
    let span = replaced_span(template, messages, tools, index, whole).ok_or_else(unmaskable)?;
    // What the template puts between generation prompt and answer (an empty reasoning block) is learned as well.
    let start = before.filter(|b| whole.starts_with(b.as_str()) && b.len() <= span.start);
    Ok(start.map_or(span.start, |before| before.len())..span.end)
}

/// Finds what a message says by rendering other words in its place, without calls of tools: those stand where the words
/// do. The end of the turn, a special token directly behind, belongs to the answer: without it the model would not learn
/// to stop.
fn replaced_span(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&[Value]>,
    index: usize,
    whole: &str,
) -> Option<Range<usize>> {
    const MARK: &str = "\u{10fffc}answer\u{10fffd}";
    let mut changed = messages.to_vec();
    let message = changed.get_mut(index)?.as_object_mut()?;
    message.insert("content".into(), MARK.into());
    message.shift_remove("tool_calls");
    message.shift_remove("function_call");
    let other = template.render(&changed, tools, false).ok()?.text;
    let at = other.find(MARK)?;
    let (head, tail) = (&other[..at], &other[at + MARK.len()..]);
    // Some templates put white space before words alone.
    let head = if whole.starts_with(head) { head } else { head.trim_end() };
    if !whole.starts_with(head) || !whole.ends_with(tail) || head.len() + tail.len() >= whole.len() {
        return None;
    }
    let end = whole.len() - tail.len();
    let turn_end = turn_end(tail);
    Some(head.len()..end + turn_end)
}

/// Bytes of the mark that ends a turn at the start of `tail`, with spaces before it: `<|im_end|>`, ` </s>`,
/// `<end_of_turn>`. 0 where there is none.
fn turn_end(tail: &str) -> usize {
    let mark = tail.trim_start_matches(' ');
    let Some(inner) = mark.strip_prefix('<') else { return 0 };
    match inner.find(|c: char| c == '>' || c == '<' || c.is_whitespace()) {
        Some(n) if n > 0 && inner[n..].starts_with('>') => tail.len() - mark.len() + n + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_that_ends_a_turn_is_learned_whatever_it_looks_like() {
        for (tail, mark) in [
            ("<|im_end|>\n<|im_start|>user", "<|im_end|>"),
            ("</s>", "</s>"),
            (" </s><s>", " </s>"),
            ("<end_of_turn>\n", "<end_of_turn>"),
            // The next turn begins here: not the answer's.
            ("\n<|user|>", ""),
            ("\nUser: 1 < 2", ""),
            ("< b>", ""),
            ("<>", ""),
            ("", ""),
        ] {
            assert_eq!(&tail[..turn_end(tail)], mark, "{tail}");
        }
    }

    #[test]
    fn a_short_answer_behind_a_mark_learns_to_stop_and_a_turns_own_end_is_found() {
        use crate::chat::message;
        let tokenizer = crate::train_byte_bpe(["user: hi assistant: yes"], &Default::default()).unwrap();
        let (eos, pad) = (tokenizer.eos_id().unwrap(), tokenizer.pad_id().unwrap());
        let mark = tokenizer.id_to_token(pad).unwrap();
        let template = |behind: &str| {
            let body = format!(
                "{{% for m in messages %}}{mark}{{{{ m.content }}}}{behind}{{% endfor %}}\
                {{% if add_generation_prompt %}}{mark}{{% endif %}}"
            );
            ChatTemplate::new(&body, Vec::new()).unwrap()
        };
        for answer in ["A", "AB", "yes and more than that", mark.as_str()] {
            for on in [LossOn::Completion, LossOn::Assistant, LossOn::All] {
                let options = ExampleOptions { loss_on: on, ..ExampleOptions::default() };
                let turns = [message("user", "hi"), message("assistant", answer)];
                let e = tokenizer.chat_example(&template(""), &turns, None, &options).unwrap().unwrap();
                assert_eq!((e.ids.last(), e.loss.last()), (Some(&eos), Some(&true)), "{answer} {on:?}");
                let e = tokenizer.chat_example(&template(&mark), &turns, None, &options).unwrap().unwrap();
                assert_eq!((e.ids.last(), e.loss.last()), (Some(&pad), Some(&true)), "{answer} {on:?}");
            }
        }
        assert_eq!(tokenizer.turn_end(&template("")), None);
        assert_eq!(tokenizer.turn_end(&template(&mark)), Some(pad));
        assert_eq!(tokenizer.turn_end(&template(&format!("{mark}\n"))), Some(pad));
    }

    #[test]
    fn an_answer_that_the_template_does_not_end_learns_to_stop() {
        use crate::chat::message;
        let tokenizer = crate::train_byte_bpe(["user: hi assistant: yes"], &Default::default()).unwrap();
        let eos = tokenizer.eos_id().unwrap();
        let turns = [message("user", "hi"), message("assistant", "yes")];
        let body = "{% for m in messages %}{{ m.role }}: {{ m.content }}END\n{% endfor %}\
                    {% if add_generation_prompt %}assistant: {% endif %}";
        let own = tokenizer.id_to_token(eos).unwrap();
        for (end, on) in [("", LossOn::Completion), ("", LossOn::All), (own.as_str(), LossOn::Completion)] {
            let template = ChatTemplate::new(&body.replace("END", end), Vec::new()).unwrap();
            let options = ExampleOptions { loss_on: on, ..ExampleOptions::default() };
            let e = tokenizer.chat_example(&template, &turns, None, &options).unwrap().unwrap();
            let learned: Vec<u32> =
                e.ids.iter().zip(&e.loss).filter_map(|(id, on)| on.then_some(*id)).collect();
            let answers = 1 + usize::from(on == LossOn::All && !end.is_empty());
            assert_eq!(learned.iter().filter(|&&id| id == eos).count(), answers, "{end:?} {on:?}");
        }
        // The fallback names roles, and ends and learns each answer.
        let template = tokenizer.fallback_chat_template().unwrap();
        let more = [turns.clone(), turns].concat();
        let options = ExampleOptions { loss_on: LossOn::Assistant, ..ExampleOptions::default() };
        let e = tokenizer.chat_example(&template, &more, None, &options).unwrap().unwrap();
        let learned: Vec<u32> = e.ids.iter().zip(&e.loss).filter_map(|(id, on)| on.then_some(*id)).collect();
        assert_eq!(tokenizer.decode(&learned, false).unwrap(), format!("yes{own}yes{own}"));
        let text = tokenizer.decode(&e.ids, true).unwrap();
        assert!(text.contains("User:\nhi\n\nAssistant:\nyes"), "{text}");
    }
}
