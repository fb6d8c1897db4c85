//! A record as it was understood: its roles with their values, for a log's first example and `data preview`.

use std::path::Path;

use crate::labelled::Label;
use crate::rag_record::{Prompt, Style};
use crate::{
    BadRows, ChoiceRecord, JudgedRecord, LabelledRecord, Message, Passage, PreferenceRecord, RagRecord,
    Result, RetrievalExample,
};
use serde_json::Value;

/// A record that can be shown.
pub trait Shown {
    /// Its roles with their values, in the order in which a person reads them.
    fn roles(&self) -> Vec<(&'static str, String)>;

    /// A line for each role, values cut to `most` characters.
    fn lines(&self, most: usize) -> String {
        let roles = self.roles();
        let width = roles.iter().map(|(role, _)| role.len()).max().unwrap_or(0);
        let lines: Vec<String> = roles
            .iter()
            .map(|(role, value)| format!("  {role:<width$}  {}", one_line(value, most)))
            .collect();
        lines.join("\n")
    }
}

/// A text in one line, of at most so many characters.
pub fn one_line(text: &str, most: usize) -> String {
    let line = text.trim().replace('\r', "").replace('\n', "⏎").replace('\t', " ");
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}… ({} characters)", &line[..at], text.chars().count()),
        None => line,
    }
}

/// Values of a log's first example.
const MOST: usize = 160;

/// Passes a stream on, and logs its first record.
pub(crate) fn with_first<T: Shown, I: Iterator<Item = Result<T>> + Send + 'static>(
    path: &Path,
    what: &'static str,
    bad: &BadRows,
    stream: I,
) -> Box<dyn Iterator<Item = Result<T>> + Send> {
    let (path, bad, mut first) = (path.to_owned(), bad.clone(), true);
    Box::new(stream.inspect(move |record| {
        if let (true, Ok(record)) = (std::mem::take(&mut first), record) {
            log_first(&path, what, &bad, record);
        }
    }))
}

/// Logs a record as the first one of a file, once.
pub(crate) fn log_first(path: &Path, what: &str, bad: &BadRows, record: &impl Shown) {
    if bad.shows(&format!("{what} {}", path.display())) {
        tracing::info!("{}: the first {what} as it is read:\n{}", path.display(), record.lines(MOST));
    }
}

fn passage(p: &Passage) -> String {
    match &p.title {
        Some(title) => format!("[{}] {title}: {}", p.id, p.text),
        None => format!("[{}] {}", p.id, p.text),
    }
}

/// A passage with an id of its own, or the text alone.
fn text_of(p: &Passage) -> String {
    let made = Passage::from_text(p.title.clone(), p.text.clone()).id == p.id;
    match (&p.title, made) {
        (None, true) => p.text.clone(),
        (Some(title), true) => format!("{title}: {}", p.text),
        _ => passage(p),
    }
}

/// The first of several values, and how many there are.
fn several<T>(role: &'static str, list: &[T], show: impl Fn(&T) -> String) -> Option<(&'static str, String)> {
    let first = list.first()?;
    Some((role, if list.len() == 1 { show(first) } else { format!("({}) {}", list.len(), show(first)) }))
}

fn prompt(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Turns(turns) => {
            let all: Vec<String> = turns.iter().map(|t| format!("{}: {}", t.role(), turn(t).1)).collect();
            all.join("\n")
        }
    }
}

impl Shown for RetrievalExample {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("query", self.query.text.clone())];
        if crate::Query::from_text(self.query.text.clone()).id != self.query.id {
            all.push(("query id", self.query.id.clone()));
        }
        all.extend(several("positive", &self.positives, text_of));
        all.extend(several("negative", &self.negatives, text_of));
        if let Some(scores) = &self.scores {
            all.push(("scores", format!("{scores:?}")));
        }
        all.extend(several("answer", &self.answers, String::clone));
        all
    }
}

impl Shown for Passage {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let title = self.title.clone().map(|title| ("title", title));
        [("id", self.id.clone())].into_iter().chain(title).chain([("text", self.text.clone())]).collect()
    }
}

impl Shown for RagRecord {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("id", self.id.clone())];
        if !self.tools.is_empty() {
            let name = |tool: &Value| {
                let name = tool.get("name").or_else(|| tool.get("function")?.get("name"));
                name.and_then(Value::as_str).map_or_else(|| tool.to_string(), str::to_owned)
            };
            all.push(("tools", self.tools.iter().map(name).collect::<Vec<_>>().join(", ")));
        }
        all.extend(self.history.iter().map(turn));
        let (question, answer) = match self.style {
            Style::Question => ("question", "answer"),
            Style::Chat => ("user", "assistant"),
            Style::Plain => ("prompt", "completion"),
        };
        all.push((question, self.question.clone()));
        all.extend(self.steps.iter().map(turn));
        all.extend(several("context", &self.contexts, |found| text_of(&found.passage)));
        all.extend(several("gold", &self.gold, text_of));
        match (&self.reply, self.style) {
            (Some(reply), _) => all.push(turn(reply)),
            // A text without a prompt.
            (None, Style::Plain) if self.asks_nothing() => {
                all.retain(|(role, _)| *role != question);
                all.extend(several("text", &self.answers, String::clone));
            }
            (None, _) => all.extend(several(answer, &self.answers, String::clone)),
        }
        all
    }
}

/// A message: its words, and what it says beside them.
fn turn(message: &Message) -> (&'static str, String) {
    let mut more = message.json();
    if let Some(more) = more.as_object_mut() {
        more.retain(|key, value| key != "role" && key != "content" && !value.is_null());
    }
    let words = match (message.content(), message.says_more()) {
        (words, false) => words.to_owned(),
        ("", true) => more.to_string(),
        (words, true) => format!("{words} {more}"),
    };
    match message.role() {
        "system" => ("system", words),
        "user" => ("user", words),
        "assistant" => ("assistant", words),
        other => ("message", format!("{other}: {words}")),
    }
}

impl Shown for PreferenceRecord {
    fn roles(&self) -> Vec<(&'static str, String)> {
        vec![
            ("prompt", prompt(&self.prompt)),
            ("chosen", self.chosen.content().to_owned()),
            ("rejected", self.rejected.content().to_owned()),
        ]
    }
}

impl Shown for JudgedRecord {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let label = if self.good { "desirable" } else { "undesirable" };
        vec![
            ("prompt", prompt(&self.prompt)),
            ("completion", self.completion.content().to_owned()),
            ("label", label.into()),
        ]
    }
}

impl Shown for ChoiceRecord {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let mut all: Vec<_> = self
            .record
            .roles()
            .into_iter()
            .filter(|(role, _)| !["answer", "completion"].contains(role))
            .collect();
        all.extend(
            self.choices.iter().enumerate().map(|(i, choice)| {
                (if i == self.answer { "right choice" } else { "choice" }, choice.clone())
            }),
        );
        all.extend(self.task.clone().map(|task| ("task", task)));
        all
    }
}

impl Shown for LabelledRecord {
    fn roles(&self) -> Vec<(&'static str, String)> {
        let mut all: Vec<_> = self.id.clone().map(|id| ("id", id)).into_iter().collect();
        all.push(("text", self.text.clone()));
        all.extend(self.pair.clone().map(|pair| ("second text", pair)));
        all.extend(self.label.as_ref().map(|label| {
            let label = match label {
                Label::Number(n) => n.to_string(),
                Label::Name(name) => name.clone(),
                Label::Names(names) => names.join(", "),
            };
            ("label", label)
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_and_lines_are_joined() {
        assert_eq!(one_line("a\nb\tc", 10), "a⏎b c");
        assert_eq!(one_line("äöüß", 2), "äö… (4 characters)");
        let p = |text: &str| Passage::from_text(None, text);
        let example = RetrievalExample {
            query: crate::Query::from_text("q"),
            positives: vec![p("p")],
            negatives: vec![p("n"), p("m")],
            ..RetrievalExample::default()
        };
        assert_eq!(example.lines(9), "  query     q\n  positive  p\n  negative  (2) n");
    }
}
