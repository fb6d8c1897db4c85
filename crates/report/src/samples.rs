//! Questions with passages and answers: `samples.jsonl` of a joint run (before and after it), or the lines that
//! `ragduet eval --save` writes.

use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// As asked.
    pub question: String,
    /// What is right.
    pub answers: Vec<String>,
    /// Before training; of an evaluation nothing.
    pub before: Option<Side>,
    /// After it, or as evaluated.
    pub after: Option<Side>,
}

/// An answer and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// As generated.
    pub answer: String,
    /// Its measures by name.
    pub measures: Vec<(String, f64)>,
    /// As shown, in their order.
    pub contexts: Vec<Shown>,
}

/// A passage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub text: String,
    /// Its place among what was retrieved, from 1.
    pub rank: Option<u64>,
    /// The retriever's score.
    pub score: Option<f64>,
    /// Whether it is marked as right for the question.
    pub gold: bool,
}

/// The most questions of a file that go into a page.
pub(crate) const MOST: usize = 60;

/// The first questions of a file, and how many it has. None where its lines are none of either kind.
///
/// # Errors
/// A file that does not read, or whose first line is a question and a later one is not.
pub(crate) fn read(path: &Path) -> Result<Option<(Vec<Sample>, usize)>> {
    let text = fs_err::read_to_string(path)?;
    let mut out = Vec::new();
    let mut count = 0;
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let parsed = serde_json::from_str::<Value>(line).ok();
        match parsed.as_ref().and_then(sample) {
            Some(s) => {
                count += 1;
                if out.len() < MOST {
                    out.push(s);
                }
            }
            None if count == 0 => return Ok(None),
            None => {
                let why = "no question with an answer, as the lines before it are";
                return Err(Error::Line { path: path.into(), line: i + 1, why: why.into() });
            }
        }
    }
    Ok((count > 0).then_some((out, count)))
}

fn texts(v: &Value) -> Vec<String> {
    match v {
        Value::String(s) => vec![s.clone()],
        Value::Array(a) => a.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => Vec::new(),
    }
}

fn sample(row: &Value) -> Option<Sample> {
    let question = row.get("question")?.as_str()?.to_string();
    let answers = texts(&row["answers"]);
    let (before, after) = (row.get("before").and_then(side), row.get("after").and_then(side));
    if before.is_some() || after.is_some() {
        return Some(Sample { question, answers, before, after });
    }
    Some(Sample { question, answers, before: None, after: Some(side(row)?) })
}

fn side(v: &Value) -> Option<Side> {
    let answer = v.get("answer")?.as_str()?.to_string();
    let gold = texts(&v["gold"]);
    // `passages` has ranks and scores where `contexts` is what was shown.
    let list = v.get("passages").filter(|p| p.is_array()).unwrap_or(&v["contexts"]);
    let shown = |c: &Value| {
        let text = |key: &str| match &c[key] {
            Value::String(s) => s.clone(),
            Value::Number(n) => n.to_string(),
            _ => String::new(),
        };
        let id = text("id");
        Shown {
            gold: c["gold"].as_bool().unwrap_or(false) || gold.contains(&id),
            id,
            title: text("title"),
            text: text("text"),
            rank: c["rank"].as_u64(),
            score: c["score"].as_f64(),
        }
    };
    let contexts = list.as_array().map(|l| l.iter().map(shown).collect()).unwrap_or_default();
    let measures = v.as_object()?.iter().filter_map(|(k, x)| Some((k.clone(), x.as_f64()?))).collect();
    Some(Side { answer, measures, contexts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Option<(Vec<Sample>, usize)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn both_kinds_of_lines() {
        let joint = r#"{"question":"q?","answers":["a"],"before":{"answer":"x","contexts":[]},"after":{"answer":"a","contexts":[{"id":7,"title":"T","text":"</script>"}]}}"#;
        let (all, n) = read_text(&format!("{joint}\n\n{joint}\n")).unwrap().unwrap();
        assert_eq!((n, all.len()), (2, 2));
        let after = all[0].after.as_ref().unwrap();
        assert_eq!((after.contexts[0].id.as_str(), after.contexts[0].text.as_str()), ("7", "</script>"));
        assert_eq!(all[0].before.as_ref().unwrap().answer, "x");

        let saved = r#"{"id":"1","question":"q?","answers":"a","answer":"b","f1":0.5,"gold":["p"],"contexts":[{"id":"p"}],"passages":[{"id":"p","text":"t","rank":2,"score":0.25}]}"#;
        let (all, _) = read_text(saved).unwrap().unwrap();
        let side = all[0].after.as_ref().unwrap();
        assert_eq!((all[0].answers.as_slice(), side.measures[0].1), (["a".to_string()].as_slice(), 0.5));
        assert_eq!(
            (side.contexts[0].rank, side.contexts[0].score, side.contexts[0].gold),
            (Some(2), Some(0.25), true)
        );
        assert!(all[0].before.is_none());
    }

    #[test]
    fn other_files_are_none_and_broken_ones_errors() {
        assert!(read_text("{\"step\":1}\n").unwrap().is_none());
        assert!(read_text("").unwrap().is_none());
        let good = r#"{"question":"q","answer":"a"}"#;
        let e = read_text(&format!("{good}\n{{\"question\": 3}}\n")).unwrap_err().to_string();
        assert!(e.contains("a.jsonl:2"), "{e}");
        let many = format!("{good}\n").repeat(MOST + 5);
        let (all, n) = read_text(&many).unwrap().unwrap();
        assert_eq!((all.len(), n), (MOST, MOST + 5));
    }
}
