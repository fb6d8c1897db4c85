//! Prompts of retrieval-augmented generation: one record to a conversation, or to a plain prompt and completion.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::message;

/// A passage as it is shown to a generator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Name of the passage in its corpus; for reports, not shown.
    #[serde(default)]
    pub id: String,
    /// Title, shown where the format says so.
    #[serde(default)]
    pub title: Option<String>,
    /// The passage.
    pub text: String,
}

impl Context {
    /// A passage.
    pub fn new(id: impl Into<String>, title: Option<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), title, text: text.into() }
    }
}

/// How a passage is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PassageFormat {
    /// `[1] Title: text`, and `[1] text` without a title.
    #[default]
    Numbered,
    /// `Title: text`, and the text alone without a title.
    Titled,
    /// The text alone.
    Plain,
}

/// Where the question stands. A causal model reads passages with the question in mind only where it comes before them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionPlace {
    /// After the passages.
    #[default]
    Last,
    /// Before the passages.
    First,
    /// Before and after them (Liu et al., 2023, arXiv 2307.03172, section 4.2).
    Both,
}

/// A worked example in front of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shot {
    /// Its passages; may be empty.
    #[serde(default)]
    pub contexts: Vec<Context>,
    /// Its question.
    pub question: String,
    /// Its answer.
    pub answer: String,
}

/// How prompts are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RagPrompt {
    /// Text of the system message, or at the very beginning of a plain prompt. Empty is none.
    pub system: String,
    /// What to do with passages and question; stands before the passages. Empty is none.
    pub instruction: String,
    /// How a passage is written.
    pub passages: PassageFormat,
    /// Between passages, and between the parts of a prompt.
    pub separator: String,
    /// Where the question stands.
    pub question: QuestionPlace,
    /// Before the question.
    pub question_prefix: String,
    /// Before the answer; in a conversation the template shows where the answer begins, so it is left out there.
    pub answer_prefix: String,
    /// Worked examples.
    pub shots: Vec<Shot>,
    /// Whether answers name their passages, `[1]`: the instruction says so, and training answers end with the numbers
    /// of their gold passages. Needs numbered passages.
    pub cite: bool,
    /// The answer where no passage shown holds one; if given, the instruction says so.
    pub abstain: Option<String>,
}

impl Default for RagPrompt {
    fn default() -> Self {
        Self {
            system: String::new(),
            instruction: "Answer the question using the passages.".into(),
            passages: PassageFormat::default(),
            separator: "\n\n".into(),
            question: QuestionPlace::default(),
            question_prefix: "Question: ".into(),
            answer_prefix: "Answer:".into(),
            shots: Vec::new(),
            cite: false,
            abstain: None,
        }
    }
}

impl RagPrompt {
    /// Refuses settings that contradict each other: the key and the reason.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.cite && self.passages != PassageFormat::Numbered {
            return Err(("cite", "passages must be numbered to be cited"));
        }
        match &self.abstain {
            Some(text) if text.trim().is_empty() => {
                Err(("abstain", "must not be empty; leave it out instead"))
            }
            _ => Ok(()),
        }
    }

    /// The prompt as messages, without the answer: system, shots as turns, the question with its passages.
    pub fn messages(&self, question: &str, contexts: &[Context]) -> Vec<Value> {
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(message("system", &self.system));
        }
        for shot in &self.shots {
            messages.push(message("user", &self.turn(&shot.question, &shot.contexts, true)));
            messages.push(message("assistant", &shot.answer));
        }
        messages.push(message("user", &self.turn(question, contexts, true)));
        messages
    }

    /// The prompt as plain text, up to and with the answer's prefix. [`RagPrompt::completion`] goes behind it.
    pub fn plain(&self, question: &str, contexts: &[Context]) -> String {
        let mut parts: Vec<String> = vec![self.system.clone(), self.task()];
        for shot in &self.shots {
            let turn = self.turn(&shot.question, &shot.contexts, false);
            parts.push(format!(
                "{turn}{}{}{}",
                self.separator,
                self.answer_prefix,
                self.completion(&shot.answer)
            ));
        }
        parts.push(self.turn(question, contexts, false));
        parts.push(self.answer_prefix.clone());
        parts.retain(|part| !part.is_empty());
        parts.join(&self.separator)
    }

    /// An answer as it stands behind a plain prompt: with a space in front, unless the prefix ends with one.
    pub fn completion(&self, answer: &str) -> String {
        let open = self.answer_prefix.is_empty() || self.answer_prefix.ends_with(char::is_whitespace);
        if open { answer.to_owned() } else { format!(" {answer}") }
    }

    /// The answer to train on. With `cite`, the numbers of the gold passages shown stand behind it; with `abstain`,
    /// that text takes its place where gold passages are known and none of them is shown.
    pub fn target(&self, answer: &str, contexts: &[Context], gold: &[String]) -> String {
        let shown: Vec<usize> =
            (0..contexts.len()).filter(|&i| gold.contains(&contexts[i].id)).map(|i| i + 1).collect();
        if let Some(abstain) = self.abstain.as_ref().filter(|_| !gold.is_empty() && shown.is_empty()) {
            return abstain.clone();
        }
        if !self.cite || shown.is_empty() {
            return answer.to_owned();
        }
        let marks: String = shown.iter().map(|n| format!("[{n}]")).collect();
        format!("{answer} {marks}")
    }

    /// Instruction with what citing and abstaining add to it.
    fn task(&self) -> String {
        let mut sentences = vec![self.instruction.clone()];
        if self.cite {
            sentences.push("Cite the passages that support the answer by their numbers, like [1].".into());
        }
        if let Some(abstain) = &self.abstain {
            sentences.push(format!("If the passages do not hold the answer, say: {abstain}"));
        }
        sentences.retain(|s| !s.is_empty());
        sentences.join(" ")
    }

    /// Question with its passages, and with `task` the instruction before them.
    pub fn turn(&self, question: &str, contexts: &[Context], task: bool) -> String {
        let mut parts = Vec::new();
        if task {
            parts.push(self.task());
        }
        let asked = format!("{}{question}", self.question_prefix);
        if self.question != QuestionPlace::Last {
            parts.push(asked.clone());
        }
        parts.extend(contexts.iter().enumerate().map(|(index, context)| self.passage(index + 1, context)));
        if self.question != QuestionPlace::First {
            parts.push(asked);
        }
        parts.retain(|part| !part.is_empty());
        parts.join(&self.separator)
    }

    fn passage(&self, number: usize, context: &Context) -> String {
        let titled = match context.title.as_deref().filter(|t| !t.is_empty()) {
            Some(title) => format!("{title}: {}", context.text),
            None => context.text.clone(),
        };
        match self.passages {
            PassageFormat::Numbered => format!("[{number}] {titled}"),
            PassageFormat::Titled => titled,
            PassageFormat::Plain => context.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> Vec<Context> {
        vec![Context::new("a", Some("Rome".into()), "A city."), Context::new("b", None, "A river.")]
    }

    #[test]
    fn plain_and_chat() {
        let shot = Shot { contexts: Vec::new(), question: "1+1?".into(), answer: "2".into() };
        let prompt = RagPrompt {
            system: "Be brief.".into(),
            separator: "\n".into(),
            shots: vec![shot],
            ..Default::default()
        };
        assert_eq!(
            prompt.plain("Where?", &contexts()) + &prompt.completion("Rome"),
            "Be brief.\nAnswer the question using the passages.\nQuestion: 1+1?\nAnswer: 2\n\
             [1] Rome: A city.\n[2] A river.\nQuestion: Where?\nAnswer: Rome"
        );
        let messages = prompt.messages("Where?", &contexts());
        let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(
            messages[3]["content"],
            "Answer the question using the passages.\n[1] Rome: A city.\n[2] A river.\nQuestion: Where?"
        );
    }

    #[test]
    fn the_question_stands_where_it_is_wanted() {
        let at = |question| {
            let prompt = RagPrompt {
                question,
                instruction: String::new(),
                separator: "|".into(),
                ..Default::default()
            };
            prompt.plain("Where?", &contexts()[1..])
        };
        assert_eq!(at(QuestionPlace::First), "Question: Where?|[1] A river.|Answer:");
        assert_eq!(at(QuestionPlace::Both), "Question: Where?|[1] A river.|Question: Where?|Answer:");
    }

    #[test]
    fn citing_and_abstaining() {
        let prompt = RagPrompt { cite: true, abstain: Some("I do not know.".into()), ..Default::default() };
        assert_eq!(prompt.target("Tiber", &contexts(), &["b".into()]), "Tiber [2]");
        assert_eq!(prompt.target("Tiber", &contexts(), &["z".into()]), "I do not know.");
        assert_eq!(prompt.target("Tiber", &contexts(), &[]), "Tiber");
        assert!(prompt.plain("q", &[]).contains("say: I do not know."));
        let contradiction = RagPrompt { passages: PassageFormat::Plain, ..prompt };
        assert_eq!(contradiction.validate().unwrap_err().0, "cite");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = serde_json::from_str::<RagPrompt>(r#"{"sistem": ""}"#).unwrap_err().to_string();
        assert!(error.contains("sistem"), "{error}");
    }
}
