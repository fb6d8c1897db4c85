//! SQuAD 1.1 and 2.0: articles of paragraphs with questions, read an article at a time.
//!
//! Each context is a passage, relevant to its questions, so a file is a collection without splits; contexts that
//! nothing is asked about are in its corpus, too. A passage is named by the positions of its article and paragraph,
//! since titles repeat.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::spec::Spec;
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::collection::parts::{Answers, Parts, Places};
use crate::ids::unique;
use crate::read::elements::Elements;
use crate::source::Fallible;
use crate::stream::{Examples, NumberedQrels, Passages, Queries};
use crate::{BadRows, Passage, Qrel, Query, Result, RetrievalExample};

pub(crate) const SQUAD: Spec = Spec {
    name: "squad",
    files: &["json"],
    content: Some(|head| matches!(head.keys().first(), Some(("data" | "version", _)))),
    collection: Some(|path| Ok(Some(Box::new(Squad { path: path.to_owned() })))),
    ..Spec::NONE
};

/// A SQuAD file. Opening reads nothing.
#[derive(Debug)]
struct Squad {
    path: PathBuf,
}

impl Parts for Squad {
    fn splits(&self) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        let mut articles = Articles::open(&self.path, bad)?;
        let (bad, path) = (bad.clone(), self.path.clone());
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
                            let row = format!("article {number}, paragraph {index}");
                            set_aside(&bad, &path, line, fault, row)?;
                        }
                    }
                }
            }
        })))
    }

    fn queries(&self, _: Option<&str>, bad: &BadRows) -> Result<Queries> {
        // Contexts are for the reader of the corpus to report.
        let questions = Questions::open(&self.path, bad, &BadRows::silent(), bad)?.with_unique_ids();
        Ok(Box::new(questions.rows().map(|row| row.map(|(_, example)| example.query))))
    }

    fn qrels(&self, _: &str, bad: &BadRows) -> Result<NumberedQrels> {
        let silent = BadRows::silent();
        let questions = Questions::open(&self.path, bad, &silent, &silent)?.with_unique_ids();
        Ok(Box::new(questions.rows().map(|row| {
            row.map(|(line, mut example)| {
                let passage = example.positives.pop().map(|p| p.id).unwrap_or_default();
                (line, Qrel { query: example.query.id, passage, grade: 1 })
            })
        })))
    }

    fn places(&self, _: &str) -> Result<Places> {
        Ok(Places { qrels: self.path.clone(), queries: self.path.clone(), key: None })
    }

    fn answers(&self, _: &BadRows) -> Result<Option<Answers>> {
        let silent = BadRows::silent();
        let questions = Questions::open(&self.path, &silent, &silent, &silent)?.with_unique_ids();
        let answers: HashMap<_, _> = questions
            .rows()
            .map(|row| row.map(|(_, example)| (example.query.id, example.answers)))
            .collect::<Result<_>>()?;
        Ok(Some(answers))
    }

    /// In one pass: a question and its context stand together.
    fn examples(&self, _: &str, bad: &BadRows, shared: &BadRows) -> Result<Examples> {
        let questions = Questions::open(&self.path, bad, shared, shared)?;
        Ok(Box::new(questions.rows().map(|row| row.map(|(_, example)| example))))
    }
}

/// Streams the questions that have an answer, each with its context and the line of its article.
struct Questions {
    articles: Articles,
    path: PathBuf,
    /// Where usable questions are counted.
    good: BadRows,
    /// Where articles and contexts are reported.
    contexts: BadRows,
    /// Where questions are reported.
    bad: BadRows,
    seen: Option<HashSet<u64>>,
    ready: VecDeque<(u64, RetrievalExample)>,
}

impl Questions {
    fn open(path: &Path, good: &BadRows, contexts: &BadRows, bad: &BadRows) -> Result<Self> {
        Ok(Self {
            articles: Articles::open(path, contexts)?,
            path: path.to_owned(),
            good: good.clone(),
            contexts: contexts.clone(),
            bad: bad.clone(),
            seen: None,
            ready: VecDeque::new(),
        })
    }

    /// Refuses a question whose id was used before.
    fn with_unique_ids(self) -> Self {
        Self { seen: Some(HashSet::new()), ..self }
    }

    fn rows(mut self) -> impl Iterator<Item = Result<(u64, RetrievalExample)>> + Send {
        Fallible::new(move || {
            loop {
                if let Some(row) = self.ready.pop_front() {
                    self.good.good();
                    return Ok(Some(row));
                }
                let Some((number, line, article)) = self.articles.next_article()? else { return Ok(None) };
                for (index, paragraph) in article.paragraphs.into_iter().enumerate() {
                    match paragraph_passage(number, index, article.title.as_deref(), &paragraph.context) {
                        Ok(passage) => self.ask(line, &passage, paragraph.qas)?,
                        Err(fault) => {
                            let row = format!("article {number}, paragraph {index}");
                            set_aside(&self.contexts, &self.path, line, fault, row)?;
                        }
                    }
                }
            }
        })
    }

    fn ask(&mut self, line: u64, passage: &Passage, questions: Vec<Question>) -> Result<()> {
        for question in questions {
            if question.is_impossible || question.answers.is_empty() {
                self.bad.note(|report| report.unanswerable += 1);
                continue;
            }
            let example = question_example(question, passage).and_then(|example| {
                if let Some(seen) = &mut self.seen {
                    unique(seen, &example.query.id)?;
                }
                Ok(example)
            });
            match example {
                Ok(example) => self.ready.push_back((line, example)),
                Err(fault) => {
                    let row = format!("a question to passage {}", passage.id);
                    set_aside(&self.bad, &self.path, line, fault, row)?;
                }
            }
        }
        Ok(())
    }
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
