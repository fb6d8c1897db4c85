//! The records that a generator learns from: questions, passages and answers, or conversations.

use serde_json::{Value, json};

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
    /// Where it was read.
    pub origin: Origin,
}

impl RagRecord {
    /// Whether it is a text to learn without a prompt, which there is nothing to answer in.
    pub fn asks_nothing(&self) -> bool {
        self.style == Style::Plain && self.question.is_empty()
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

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// As templates see it: `{"role": role, "content": content}`.
    pub fn json(&self) -> Value {
        json!({"role": self.role, "content": self.content})
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
