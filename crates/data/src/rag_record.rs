//! The records that a generator learns from: questions, passages and answers, or conversations.

use serde_json::{Map, Value};

use crate::{Origin, Passage};

/// A question with what a generator needs to learn its answer, or to be measured on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RagRecord {
    /// Name of the question.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// Right answers, the one to learn first; may be empty where only answering is wanted.
    pub answers: Vec<String>,
    /// What a retriever found, best first.
    pub contexts: Vec<Found>,
    /// Passages known to hold the answer.
    pub gold: Vec<Passage>,
    /// How the question is put to the model.
    pub style: Style,
    /// What was said before the question, oldest first; of conversations alone.
    pub history: Vec<Message>,
    /// What was said between question and answer: calls of tools and their results. Of conversations alone.
    pub steps: Vec<Message>,
    /// The question's message where there is more to it than words, such as a name.
    pub asked: Option<Message>,
    /// The answer's message where there is more to it than words: a call of a tool, reasoning, a weight.
    pub reply: Option<Message>,
    /// Messages before the reply that belong to what is completed, as the reply does: of prompts with a completion of
    /// several turns, else 0.
    pub completed: usize,
    /// Tools that may be called, as templates see them.
    pub tools: Vec<Value>,
    /// Where it was read.
    pub origin: Origin,
}

impl RagRecord {
    /// Whether it is a text to learn without a prompt, which there is nothing to answer in.
    pub fn asks_nothing(&self) -> bool {
        self.style == Style::Plain && self.question.is_empty()
    }

    /// The message of the question, in the words given.
    pub fn asking(&self, words: &str) -> Message {
        match &self.asked {
            Some(asked) => asked.clone().saying(words),
            None => Message::new("user", words),
        }
    }

    /// The message of an answer: in the words given, with what else the record's own says.
    pub fn answered(&self, words: &str) -> Message {
        match &self.reply {
            // A call without words stays without.
            Some(reply) if words.is_empty() => reply.clone(),
            Some(reply) => reply.clone().saying(words),
            None => Message::new("assistant", words),
        }
    }

    /// The answer to learn: the first, or nothing in words where the answer is the call of a tool.
    pub fn learned_answer(&self) -> Option<&str> {
        self.answers.first().map(String::as_str).or(self.reply.as_ref().map(|_| ""))
    }
}

/// How a record's question is put to the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// In the words of the prompt's template.
    #[default]
    Question,
    /// As a user's message, as it is; in the template's words only where there are passages to show.
    Chat,
    /// As plain text, with the answer right behind it.
    Plain,
}

/// A passage and how well it matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The passage.
    pub passage: Passage,
    /// The retriever's score, where the file has it.
    pub score: Option<f32>,
}

/// A message, as chat templates see it: an object with `role`, `content` and what else its data set has (`tool_calls`,
/// `reasoning_content`, `weight` ...).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of words alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let pairs = [("role", role.into()), ("content", content.into())];
        Self(pairs.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
    }

    /// Of an object that has a role.
    pub(crate) fn of(row: Map<String, Value>) -> Self {
        Self(row)
    }

    /// Who speaks: `system`, `developer`, `user`, `assistant` or `tool`.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What is said in words; empty beside a tool call, perhaps.
    pub fn content(&self) -> &str {
        self.0.get("content").and_then(Value::as_str).unwrap_or_default()
    }

    /// The same with other words.
    #[must_use]
    pub fn saying(mut self, content: impl Into<String>) -> Self {
        self.0.insert("content".into(), content.into().into());
        self
    }

    /// Whether there is more to it than a role and words.
    pub fn says_more(&self) -> bool {
        self.0.keys().any(|key| key != "role" && key != "content")
    }

    /// As templates see it.
    pub fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// What an answer stands behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// A text, as it is written.
    Text(String),
    /// A conversation so far.
    Turns(Vec<Message>),
}
