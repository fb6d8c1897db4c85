//! Formats that are one JSON document: DPR and SQuAD, an array element at a time.

use std::collections::VecDeque;
use std::path::Path;

use serde::Deserialize;

use super::Examples;
use super::elements::Elements;
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::columns;
use crate::source::Fallible;
use crate::{BadRows, Passage, Query, Result, RetrievalExample};

/// DPR: `question`, `answers`, `positive_ctxs`, `hard_negative_ctxs`, `negative_ctxs`.
pub(crate) fn dpr(path: &Path, bad: &BadRows) -> Result<Examples> {
    let mut elements = Elements::open(path, None, bad)?;
    let bad = bad.clone();
    Ok(Box::new(Fallible::new(move || {
        let example = elements.next_element(|_, text| columns::example(columns::parse_object(text)?))?;
        if example.is_some() {
            bad.good();
        }
        Ok(example)
    })))
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: Option<String>,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    #[serde(default)]
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: serde_json::Value,
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// SQuAD 1.1 and 2.0: each context is a passage, relevant to its questions. A passage is named by the positions of
/// its article and paragraph, since titles repeat.
pub(crate) fn squad(path: &Path, bad: &BadRows) -> Result<Examples> {
    let mut articles = Articles::open(path, bad)?;
    let (bad, path) = (bad.clone(), path.to_owned());
    let mut ready: VecDeque<RetrievalExample> = VecDeque::new();
    Ok(Box::new(Fallible::new(move || {
        loop {
            if let Some(example) = ready.pop_front() {
                bad.good();
                return Ok(Some(example));
            }
            let Some((number, line, article)) = articles.next_article()? else { return Ok(None) };
            for (index, paragraph) in article.paragraphs.into_iter().enumerate() {
                let passage =
                    match paragraph_passage(number, index, article.title.as_deref(), &paragraph.context) {
                        Ok(passage) => passage,
                        Err(fault) => {
                            set_aside(
                                &bad,
                                &path,
                                line,
                                fault,
                                format!("article {number}, paragraph {index}"),
                            )?;
                            continue;
                        }
                    };
                for question in paragraph.qas {
                    if question.is_impossible || question.answers.is_empty() {
                        bad.note(|report| report.unanswerable += 1);
                        continue;
                    }
                    match question_example(question, &passage) {
                        Ok(example) => ready.push_back(example),
                        Err(fault) => {
                            set_aside(
                                &bad,
                                &path,
                                line,
                                fault,
                                format!("a question to passage {}", passage.id),
                            )?;
                        }
                    }
                }
            }
        }
    })))
}

/// The contexts of a SQuAD file as a corpus.
pub(crate) fn squad_corpus(path: &Path, bad: &BadRows) -> Result<super::Passages> {
    let mut articles = Articles::open(path, bad)?;
    let (bad, path) = (bad.clone(), path.to_owned());
    let mut ready: VecDeque<Passage> = VecDeque::new();
    Ok(Box::new(Fallible::new(move || {
        loop {
            if let Some(passage) = ready.pop_front() {
                bad.good();
                return Ok(Some(passage));
            }
            let Some((number, line, article)) = articles.next_article()? else { return Ok(None) };
            for (index, paragraph) in article.paragraphs.iter().enumerate() {
                match paragraph_passage(number, index, article.title.as_deref(), &paragraph.context) {
                    Ok(passage) => ready.push_back(passage),
                    Err(fault) => {
                        set_aside(&bad, &path, line, fault, format!("article {number}, paragraph {index}"))?;
                    }
                }
            }
        }
    })))
}

struct Articles {
    elements: Elements,
    number: usize,
}

impl Articles {
    fn open(path: &Path, bad: &BadRows) -> Result<Self> {
        Ok(Self { elements: Elements::open(path, Some("data"), bad)?, number: 0 })
    }

    /// The next article with its number and the line where it begins.
    fn next_article(&mut self) -> Result<Option<(usize, u64, Article)>> {
        let number = &mut self.number;
        self.elements.next_element(|line, text| {
            *number += 1;
            let article = serde_json::from_str(text).map_err(|e| {
                let problem = if e.is_data() { Problem::WrongType } else { Problem::BrokenJson };
                Fault::new(problem, format!("article {number}: {e}"))
            })?;
            Ok((*number - 1, line, article))
        })
    }
}

fn paragraph_passage(
    article: usize,
    index: usize,
    title: Option<&str>,
    context: &str,
) -> Result<Passage, Fault> {
    if context.trim().is_empty() {
        return Err(Fault::new(Problem::EmptyText, format!("the context of paragraph {index} is empty")));
    }
    let title = title.map(str::trim).filter(|t| !t.is_empty()).map(|t| t.replace('_', " "));
    Ok(Passage { id: format!("{article}-{index}"), title, text: context.to_owned() })
}

fn question_example(question: Question, passage: &Passage) -> Result<RetrievalExample, Fault> {
    let id = match question.id {
        serde_json::Value::String(id) => id,
        other => other.to_string(),
    };
    if question.question.trim().is_empty() {
        return Err(Fault::new(Problem::EmptyText, format!("question {id:?} is empty")));
    }
    let mut answers: Vec<String> = Vec::new();
    for Answer { text } in question.answers {
        if !answers.contains(&text) {
            answers.push(text);
        }
    }
    let query = Query { id, text: question.question };
    Ok(RetrievalExample { query, positives: vec![passage.clone()], answers, ..RetrievalExample::default() })
}

fn set_aside(bad: &BadRows, path: &Path, line: u64, fault: Fault, row: String) -> Result<()> {
    bad.bad(BadRow { path: path.to_owned(), line, problem: fault.problem, detail: fault.detail, row })
}
