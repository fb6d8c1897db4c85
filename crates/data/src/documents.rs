//! A data set in BEIR's layout from a folder of documents and a file of questions.
//!
//! Documents are `.txt` and `.md` files; a passage is a paragraph: what stands between blank lines. A heading of a
//! Markdown file is the title of what follows it, a text file's name the title of its passages. Questions are lines of
//! `question<TAB>words of the paragraph that answers it<TAB>answer`, where the answer may be left out, or rows with these
//! columns by name.

use crate::bad_rows::{Fault, Problem};
use crate::fields::{answers_of, first, text};
use crate::read::rows::{Holder, Place, Rows};
use crate::read::table::has_header;
use crate::reads::QUESTIONS;
use crate::source::inner_extension;
use crate::write::atomic::AtomicFile;
use crate::{
    BadRows, Error, Passage, Qrel, QrelsLayout, Query, Result, write_corpus, write_qrels, write_queries,
};
use fs_err as fs;
use ragduet_files::OutputFolder;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What was made, and what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DocumentsReport {
    /// Files that were read.
    pub files: usize,
    /// Passages of them.
    pub passages: usize,
    /// Files of other kinds, by extension.
    pub other_files: BTreeMap<String, usize>,
    /// Questions of the training split, and of dev.
    pub train: usize,
    /// See `train`.
    pub dev: usize,
    /// Questions with an answer.
    pub answers: usize,
    /// Questions whose words stand in no passage; by line.
    pub unmatched: Vec<(usize, String)>,
    /// Questions whose words stand in several passages, all of which are taken as right.
    pub several: usize,
}

impl fmt::Display for DocumentsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passages of {} files; {} questions for training, {} for dev, {} with an answer",
            self.passages, self.files, self.train, self.dev, self.answers
        )?;
        if self.several > 0 {
            write!(
                f,
                "\n{} questions: their words stand in several passages, which all count as right",
                self.several
            )?;
        }
        for (kind, n) in &self.other_files {
            write!(f, "\n{n} files left out: {kind} is not read (.txt and .md are)")?;
        }
        for (line, question) in self.unmatched.iter().take(10) {
            write!(f, "\nline {line} left out: no passage has these words: {question}")?;
        }
        match self.unmatched.len().saturating_sub(10) {
            0 => Ok(()),
            more => write!(f, "\n{more} more questions left out likewise"),
        }
    }
}

/// A question, words of the passage that answers it, answers.
#[derive(Debug, PartialEq)]
struct Asked {
    line: usize,
    question: String,
    words: String,
    said: Vec<String>,
}

/// The questions of a file: by the names of its header, or in TSV without one by their place.
fn asked(path: &Path, columns: &BadRows) -> Result<Vec<Asked>> {
    let rows = ["csv", "jsonl", "json", "ndjson", "parquet"].contains(&inner_extension(path).as_str());
    if rows || has_header(path, &QUESTIONS, columns)? {
        let parse = |row: Map<String, Value>, place: Place| {
            let get = |name: &str| {
                let found = QUESTIONS.role(name).and_then(|role| first(&row, role.columns));
                let missing = || {
                    Fault::new(
                        Problem::MissingColumn,
                        format!("no {name} (read are {})", QUESTIONS.understood()),
                    )
                };
                found.ok_or_else(missing).and_then(|(column, value)| text(column, value))
            };
            let (question, words) = (get("question")?, get("passage")?);
            Ok(Asked { line: place.line as usize, question, words, said: answers_of(&row)? })
        };
        let holder = if rows { Holder::ByName } else { Holder::Table };
        let rows = Rows { files: vec![path.to_owned()], holder, reads: &QUESTIONS, strict: true };
        return rows.stream(path, columns, parse, |_| Ok(()))?.collect();
    }
    let mut all = Vec::new();
    for (number, line) in fs::read_to_string(path)?.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}');
        if line.trim().is_empty() {
            continue;
        }
        let mut fields = line.split('\t').map(str::trim);
        let (Some(question), Some(words)) = (fields.next(), fields.next().filter(|w| !w.is_empty())) else {
            let reason =
                format!("line {}: a question and words of its passage, with a tab between them", number + 1);
            return Err(Error::Unsupported { path: path.to_owned(), reason });
        };
        let said = fields.filter(|a| !a.is_empty()).map(str::to_owned).collect();
        all.push(Asked { line: number + 1, question: question.into(), words: words.into(), said });
    }
    Ok(all)
}

/// Makes the folder `out` from documents and questions. `dev`: the share of the questions that measure, from 0 to 1.
///
/// # Errors
/// Files that cannot be read; a folder that holds something; no passage, or no question that a passage answers.
pub fn dataset_from_documents(
    docs: &Path,
    questions: &Path,
    out: &Path,
    dev: f64,
    columns: &BadRows,
) -> Result<DocumentsReport> {
    let unusable = |path: &Path, reason: String| Error::Unsupported { path: path.to_owned(), reason };
    if out.exists() && fs::read_dir(out)?.next().is_some() {
        return Err(unusable(out, "the folder holds something already; name another".into()));
    }
    let mut report = DocumentsReport::default();
    let passages = read_documents(docs, &mut report)?;
    if passages.is_empty() {
        return Err(unusable(docs, "no .txt or .md file with a paragraph".into()));
    }
    let folded: Vec<String> = passages.iter().map(|p| fold(&p.full_text())).collect();
    let (mut queries, mut answers) = (Vec::new(), Vec::new());
    let mut splits = [Vec::new(), Vec::new()];
    for Asked { line, question, words, said } in asked(questions, columns)? {
        let wanted = fold(&words);
        let found: Vec<usize> = (0..folded.len()).filter(|&i| folded[i].contains(&wanted)).collect();
        if found.is_empty() || question.is_empty() {
            report.unmatched.push((line, question));
            continue;
        }
        report.several += usize::from(found.len() > 1);
        let id = format!("q{}", queries.len());
        // Evenly over the file: every n-th.
        let (before, after) = (queries.len() as f64 * dev, (queries.len() + 1) as f64 * dev);
        let split = usize::from(after.floor() > before.floor());
        splits[split].push((id.clone(), found));
        if !said.is_empty() {
            answers.push(json!({"_id": id, "answers": said}));
        }
        queries.push(Query { id, text: question });
    }
    if queries.is_empty() {
        return Err(unusable(questions, "no question whose words stand in a passage".into()));
    }
    (report.passages, report.answers) = (passages.len(), answers.len());
    (report.train, report.dev) = (splits[0].len(), splits[1].len());

    let folder = OutputFolder::create(out)?;
    let out = folder.path();
    write_corpus(out.join("corpus.jsonl"), passages.iter().cloned().map(Ok))?;
    write_queries(out.join("queries.jsonl"), queries.into_iter().map(Ok))?;
    if !answers.is_empty() {
        let mut file = AtomicFile::create(&out.join("answers.jsonl"))?;
        for row in &answers {
            file.write_json(row)?;
            file.write_all(b"\n")?;
        }
        file.finish()?;
    }
    for (name, rows) in ["dev", "train"].iter().zip(splits.iter().rev()).filter(|(_, rows)| !rows.is_empty())
    {
        let judged = rows.iter().flat_map(|(query, found)| {
            found
                .iter()
                .map(|&i| Ok(Qrel { query: query.clone(), passage: passages[i].id.clone(), grade: 1 }))
        });
        write_qrels(out.join(format!("qrels/{name}.tsv")), QrelsLayout::Beir, judged.collect::<Vec<_>>())?;
    }
    folder.finish()?;
    Ok(report)
}

/// Letters and white space do not have to agree.
fn fold(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn read_documents(docs: &Path, report: &mut DocumentsReport) -> Result<Vec<Passage>> {
    let mut files = Vec::new();
    walk(docs, &mut files)?;
    files.sort();
    let (mut passages, mut ids) = (Vec::new(), HashSet::new());
    for path in files {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if !["txt", "md"].contains(&extension.as_str()) {
            *report.other_files.entry(format!(".{extension}")).or_default() += 1;
            continue;
        }
        report.files += 1;
        let inner = path.strip_prefix(docs).unwrap_or(&path);
        let mut name = inner.with_extension("").to_string_lossy().replace(['/', ' ', '\t'], "-");
        if !ids.insert(name.clone()) {
            // `a.txt` beside `a.md`.
            name = format!("{name}.{extension}");
            ids.insert(name.clone());
        }
        let text = fs::read_to_string(&path)?;
        let mut title = path.file_stem().map(|s| s.to_string_lossy().into_owned());
        for (number, paragraph) in paragraphs(&text).enumerate() {
            let heading = (extension == "md").then(|| heading(&paragraph)).flatten();
            if let Some(heading) = heading {
                title = Some(heading);
                continue;
            }
            passages.push(Passage { id: format!("{name}-{number}"), title: title.clone(), text: paragraph });
        }
    }
    Ok(passages)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        match (hidden, path.is_dir()) {
            (true, _) => {}
            (false, true) => walk(&path, files)?,
            (false, false) => files.push(path),
        }
    }
    Ok(())
}

/// What stands between blank lines; a heading is a paragraph of its own, also without a blank line behind it.
fn paragraphs(text: &str) -> impl Iterator<Item = String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        let is_heading = heading(line).is_some();
        if line.is_empty() {
            open = false;
        } else if open && !is_heading {
            let last = all.last_mut().into_iter();
            last.for_each(|p| *p = format!("{p}\n{line}"));
        } else {
            all.push(line.into());
            open = !is_heading;
        }
    }
    all.into_iter()
}

/// The text of a line such as `## Tides`.
fn heading(line: &str) -> Option<String> {
    let text = line.trim_start_matches('#');
    let depth = line.len() - text.len();
    ((1..=6).contains(&depth) && text.starts_with(' ') && !line.contains('\n'))
        .then(|| text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRows, Collection, ReadOptions};

    #[test]
    fn documents_and_questions_become_a_collection_and_nothing_is_lost_silently() {
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("docs");
        std::fs::create_dir_all(docs.join("more")).unwrap();
        let put = |name: &str, text: &str| std::fs::write(docs.join(name), text).unwrap();
        put("tides.txt", "\u{feff}Tides are caused by\n the Moon.\n\n \nThey rise twice a day.\n");
        put("more/sea.md", "# The sea\nIt is salty.\n\n## Depth\n\nIt is deep. #1 in size.\n");
        put("more/notes.pdf", "%PDF");
        put(".hidden.txt", "secret");
        let questions = dir.path().join("q.tsv");
        let lines = "What causes tides?\tcaused by the MOON\tthe moon\n\nHow salty?\tis salty\nWhat is it?\tit is\n\
                     Who?\tno such words\thim\n";
        std::fs::write(&questions, lines).unwrap();
        let bad = BadRows::default();
        let out = dir.path().join("out");
        let report = dataset_from_documents(&docs, &questions, &out, 0.34, &bad).unwrap();
        assert_eq!((report.files, report.passages, report.train, report.dev), (2, 4, 2, 1));
        assert_eq!((report.answers, report.several), (1, 1));
        assert_eq!(report.unmatched, [(5, "Who?".to_string())]);
        let said = report.to_string();
        assert!(said.contains(".pdf is not read") && said.contains("line 5 left out"), "{said}");
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        assert!(
            read("corpus.jsonl").contains(
                "{\"_id\":\"more-sea-3\",\"title\":\"Depth\",\"text\":\"It is deep. #1 in size.\"}"
            )
        );
        assert!(read("answers.jsonl").contains("\"the moon\""));
        assert_eq!(
            read("qrels/train.tsv"),
            "query-id\tcorpus-id\tscore\nq0\ttides-0\t1\nq1\tmore-sea-1\t1\n"
        );
        assert_eq!(read("qrels/dev.tsv").lines().count(), 3, "both passages with these words");
        // It is a collection like any other.
        assert!(Collection::open(&out, &ReadOptions::default(), &BadRows::default()).is_ok());
        // Under a header by name, in a table of any kind.
        let table = dir.path().join("q.csv");
        std::fs::write(&table, "answer,passage,question\n,\"deep. #1\",\"How deep, really?\"\n").unwrap();
        let by_name = dataset_from_documents(&docs, &table, &dir.path().join("named"), 0.0, &bad).unwrap();
        assert_eq!((by_name.train, by_name.answers), (1, 0));
        let queries = std::fs::read_to_string(dir.path().join("named/queries.jsonl")).unwrap();
        assert!(queries.contains("How deep, really?") && queries.lines().count() == 1, "{queries}");
        // Never into something that is there.
        let e = dataset_from_documents(&docs, &questions, &out, 0.25, &bad).unwrap_err().to_string();
        assert!(e.contains("holds something already"), "{e}");
        std::fs::write(&questions, "no tab here\n").unwrap();
        let e = dataset_from_documents(&docs, &questions, &dir.path().join("x"), 0.25, &bad)
            .unwrap_err()
            .to_string();
        assert!(e.contains("line 1") && e.contains("tab"), "{e}");
        std::fs::write(&questions, "Who?\tno such words\n").unwrap();
        let e = dataset_from_documents(&docs, &questions, &dir.path().join("x"), 0.25, &bad)
            .unwrap_err()
            .to_string();
        assert!(e.contains("no question whose words"), "{e}");
    }
}
