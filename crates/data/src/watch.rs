//! Which columns of a data set are read, found out by leaving each out: a column without which the same is read was not
//! read. No table of names can be wrong about it.
//!
//! A column's first rows are tried until it turns out to be read. What no row needed is said once: a name that another
//! reader knows, or that is one letter beside a known one, as a warning with the remedy; others by name and number.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::bad_rows::{BadRows, Fault, Problem};
use crate::map::{Mapped, Mapping};
use crate::reads::{ALL, Reads};
use crate::{Error, Result};

type Row = Map<String, Value>;

/// Rows in which a column is left out to see whether it is read.
const TRIED: u32 = 20;
/// Rows after which what is not read or not met so far is said.
const EARLY: u64 = 1000;
/// Names that are followed; files of one object with a key per query have no columns.
const MOST: usize = 1000;

/// What a reader has seen of its columns.
pub(crate) struct Watch {
    path: PathBuf,
    reads: &'static Reads,
    mapping: Mapping,
    bad: BadRows,
    rows: u64,
    /// Columns in the order in which they came.
    columns: Vec<Column>,
    /// Their places by name.
    places: HashMap<String, usize>,
    /// Whether a mapped column must be in the rows: not in the parts of a collection, whose names are fixed.
    strict: bool,
    /// Whether there is one file: its header says at once which columns there are not.
    alone: bool,
    said: usize,
}

struct Column {
    name: String,
    tried: u32,
    /// Whether it was tried in a row that can be read, or is not decoded at all.
    judged: bool,
    read: bool,
}

impl Watch {
    /// Of a file or folder.
    ///
    /// # Errors
    /// A mapping that the reader cannot have.
    pub(crate) fn new(
        path: &Path,
        reads: &'static Reads,
        strict: bool,
        alone: bool,
        bad: &BadRows,
    ) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            reads,
            mapping: Mapping::new(&bad.columns(), reads)?,
            bad: bad.clone(),
            rows: 0,
            columns: Vec::new(),
            places: HashMap::new(),
            strict,
            alone,
            said: 0,
        })
    }

    /// The mapping.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// What the reader takes.
    pub(crate) fn reads(&self) -> &'static Reads {
        self.reads
    }

    /// Columns that a file has and that are not even decoded.
    pub(crate) fn left(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if let Some(column) = self.follow(&name) {
                column.judged = true;
            }
        }
    }

    /// What `parse` makes of a row with its columns mapped.
    pub(crate) fn row<T: PartialEq>(
        &mut self,
        row: Row,
        parse: impl Fn(Row) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.rows += 1;
        // For the fault of a row; they are alike.
        let names: Vec<String> = if self.rows <= EARLY { row.keys().cloned().collect() } else { Vec::new() };
        let row = self.mapping.apply(row);
        for mapped in self.mapping.of.iter().filter(|m| m.rows == 1) {
            self.bad.now_mapped(&mapped.said);
        }
        let mut untried = Vec::new();
        if !self.bad.is_silent() {
            for (name, value) in &row {
                if !says(value) {
                    continue;
                }
                if let Some(column) = self.follow(name).filter(|c| !c.read && c.tried < TRIED) {
                    column.tried += 1;
                    untried.push(name.clone());
                }
            }
        }
        let (reads, mapping) = (self.reads, &self.mapping);
        let told = |fault: Fault| match fault.problem {
            Problem::MissingColumn => {
                Fault { detail: fault.detail + &mapping.lacking() + &meant(&names, reads, mapping), ..fault }
            }
            _ => fault,
        };
        if untried.is_empty() {
            return parse(row).map_err(told);
        }
        let read = parse(row.clone()).map_err(told)?;
        let mut rest = row;
        // Wide rows: what no name speaks for is first left out together.
        let strange: HashSet<String> = untried.iter().filter(|name| !(reads.known)(name)).cloned().collect();
        if strange.len() > 1 {
            let mut without = rest.clone();
            without.retain(|name, _| !strange.contains(name));
            if parse(without.clone()).is_ok_and(|other| other == read) {
                rest = without;
                untried.retain(|name| !strange.contains(name));
                for column in strange {
                    if let Some(column) = self.follow(&column) {
                        column.judged = true;
                    }
                }
            }
        }
        for name in untried {
            let mut without = rest.clone();
            without.shift_remove(&name);
            if parse(without.clone()).is_ok_and(|other| other == read) {
                rest = without;
                if let Some(column) = self.follow(&name) {
                    column.judged = true;
                }
            } else if let Some(column) = self.follow(&name) {
                (column.judged, column.read) = (true, true);
            }
        }
        Ok(read)
    }

    fn follow(&mut self, name: &str) -> Option<&mut Column> {
        let place = match self.places.get(name) {
            Some(&place) => place,
            None if self.columns.len() == MOST => return None,
            None => {
                self.columns.push(Column { name: name.to_owned(), tried: 0, judged: false, read: false });
                self.places.insert(name.to_owned(), self.columns.len() - 1);
                self.columns.len() - 1
            }
        };
        self.columns.get_mut(place)
    }

    /// Says what is due after a row.
    pub(crate) fn after_row(&mut self) {
        if self.rows != EARLY {
            return;
        }
        // A column may be rare: that no row has it is known at the end.
        for mapped in self.mapping.of.iter().filter(|m| m.rows == 0 && self.needs(m) && !self.bad.is_silent())
        {
            tracing::warn!(
                "{}: none of the first {EARLY} rows has `{}`, which {} is mapped to",
                self.path.display(),
                mapped.column,
                mapped.said
            );
        }
        self.say();
    }

    /// Whether a mapped column must be in some row.
    fn needs(&self, mapped: &Mapped) -> bool {
        self.strict && !mapped.borrowed
    }

    /// A mapped column that the header of a file does not name. Where there are several files, another one may: that is
    /// known at the end.
    ///
    /// # Errors
    /// The column, with those that are there.
    pub(crate) fn header<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
        for mapped in &self.mapping.of {
            let is = |name: &str| {
                name == mapped.column || mapped.column.split('.').next().is_some_and(|root| root == name)
            };
            let needed = self.needs(mapped) && self.alone;
            if needed && !names.clone().any(is) && !self.bad.was_mapped(&mapped.said) {
                let found: Vec<&str> = names.clone().collect();
                return Err(absent(&self.path, &mapped.said, &mapped.column, &found));
            }
            // Its cells may all be empty.
            if names.clone().any(|name| name == mapped.column) {
                self.bad.now_mapped(&mapped.said);
            }
        }
        Ok(())
    }

    /// Says what was not read, and checks that mapped columns were there.
    ///
    /// # Errors
    /// A mapped column that no row has.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        for mapped in self.mapping.of.iter().filter(|_| !self.bad.is_silent()) {
            let (path, column, said) = (self.path.display(), &mapped.column, &mapped.said);
            let lacking = self.rows - mapped.rows;
            if mapped.rows > 0 && lacking > 0 {
                tracing::info!(
                    "{path}: {lacking} of {} rows have no `{column}`, which {said} is mapped to; they are read by their \
                     own names",
                    self.rows
                );
            } else if mapped.rows == 0 && self.needs(mapped) {
                if !self.bad.was_mapped(said) {
                    let found: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
                    return Err(absent(&self.path, said, column, &found));
                }
                tracing::warn!(
                    "{path}: no row has `{column}`, which {said} is mapped to; it is read by its own names"
                );
            }
        }
        self.say();
        Ok(())
    }

    /// Says which columns were not read and were not named before.
    fn say(&mut self) {
        if self.bad.is_silent() {
            return;
        }
        let mut others = Vec::new();
        let unread = self.columns[self.said..].iter().filter(|c| c.judged && !c.read);
        // What a mapped path leads into is read in part.
        let part = |name: &str| self.mapping.of.iter().any(|m| m.column.split('.').next() == Some(name));
        for name in unread.map(|c| c.name.as_str()).filter(|name| !part(name)) {
            if !self.bad.shows(&format!("unread {name} {}", self.path.display())) {
                continue;
            }
            let written = self.mapping.of.iter().find(|m| m.role.name == name).map(|m| m.column.as_str());
            match remedy(name, self.reads) {
                Some(remedy) => {
                    let name = written.unwrap_or(name);
                    tracing::warn!("{}: `{name}` is not read; {remedy}", self.path.display());
                }
                None => others.push(written.unwrap_or(name)),
            }
        }
        if !others.is_empty() {
            let (count, more) = (others.len(), others.len().saturating_sub(20));
            others.truncate(20);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            tracing::info!(
                "{}: {count} column{} not read: {}{more}",
                self.path.display(),
                if count == 1 { " is" } else { "s are" },
                others.join(", ")
            );
        }
        self.said = self.columns.len();
    }
}

impl Drop for Watch {
    /// Readers that were not read to their end say what they saw.
    fn drop(&mut self) {
        if self.rows > 0 && !std::thread::panicking() {
            self.say();
        }
    }
}

fn absent(path: &Path, said: &str, column: &str, found: &[&str]) -> Error {
    Error::Unsupported {
        path: path.to_owned(),
        reason: format!(
            "no row has a column `{column}`, which {said} is mapped to; the columns are {}",
            found.join(", ")
        ),
    }
}

/// What a row that lacks a column may have under another name.
fn meant(names: &[String], reads: &Reads, mapping: &Mapping) -> String {
    let named = names.iter().filter(|name| reads.role(name).is_none() && !mapping.names(name));
    let remedies = named.filter_map(|name| Some((name, remedy(name, reads)?)));
    let maps = remedies.filter(|(_, remedy)| remedy.contains("--map"));
    maps.take(3).map(|(name, remedy)| format!("; `{name}` is not read: {remedy}")).collect()
}

/// Whether a value says something.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// What can be done about a column that is not read and whose name says that it should be; `None` where it says nothing.
fn remedy(name: &str, reads: &Reads) -> Option<String> {
    const IDS: [&str; 10] =
        ["id", "_id", "idx", "qid", "pid", "query_id", "docid", "passage_id", "psg_id", "document_id"];
    if IDS.contains(&name) {
        return None;
    }
    let lower = name.to_lowercase();
    // Its own role, in other letters or with one wrong; or a role of other readers that this one has too.
    let mut own = reads.roles.iter().filter(|role| !IDS.contains(&role.name));
    let near = own.find(|role| role.columns.iter().any(|column| misspelt(&lower, column)));
    if let Some(role) = near.or_else(|| reads.role(&lower).filter(|_| lower != name)) {
        return Some(format!("if it is the {}, map it with --map {}={name}", role.name, role.name));
    }
    if let Some(role) = reads.role(&lower) {
        return Some(format!(
            "another column is the {}; if this one is, --map {}={name}",
            role.name, role.name
        ));
    }
    let known = ALL.iter().any(|other| other.role(&lower).is_some()) || OTHERS.contains(&lower.as_str());
    if !known {
        return None;
    }
    let meant = MEANS.iter().find(|(names, _)| names.contains(&lower.as_str()));
    let role =
        meant.and_then(|(_, roles)| roles.iter().find_map(|r| reads.roles.iter().find(|x| x.name == *r)));
    Some(match role {
        Some(role) => format!("map it with --map {}={name}", role.name),
        None => format!("{} are read for {}", reads.what, reads.names()),
    })
}

/// Names that data sets give to what is read, and that no reader knows.
const OTHERS: [&str; 12] = [
    "documents",
    "docs",
    "passage_text",
    "page_content",
    "response",
    "responses",
    "target",
    "gold_answer",
    "hard_negative",
    "negative_docs",
    "scores_teacher",
    "relevance",
];

/// Names, and the roles that they most likely are, by reader.
type Meaning = (&'static [&'static str], &'static [&'static str]);
const MEANS: [Meaning; 6] = [
    (
        &[
            "context",
            "contexts",
            "ctxs",
            "passage",
            "passages",
            "document",
            "documents",
            "docs",
            "positive",
            "positives",
            "pos",
            "positive_passages",
            "positive_ctxs",
            "retrieved_contexts",
            "passage_text",
            "page_content",
            "text",
            "content",
            "contents",
            "body",
        ],
        &["positives", "contexts", "text"],
    ),
    (
        &["negative", "negatives", "neg", "hard_negative", "negative_docs", "rejected"],
        &["negatives", "rejected"],
    ),
    (
        &[
            "answer",
            "answers",
            "output",
            "response",
            "responses",
            "completion",
            "target",
            "gold_answer",
            "ground_truth",
            "ground_truths",
            "reference",
            "golden_answers",
            "long_answer",
            "chosen",
        ],
        &["answers", "completion", "chosen", "output"],
    ),
    (
        &["question", "query", "anchor", "query_text", "prompt", "instruction", "user_input"],
        &["query", "question", "prompt", "text"],
    ),
    (&["score", "scores", "label", "labels", "relevance", "scores_teacher"], &["scores", "label", "answer"]),
    (&["title"], &["title"]),
];

/// Whether a name is a known one with a letter wrong, missing, too many or two exchanged, or in other case or number.
fn misspelt(name: &str, known: &str) -> bool {
    if name == known || known.len() < 4 {
        return false;
    }
    let distance = strsim::osa_distance(name, known);
    distance == 1 || (distance == 2 && known.len() > 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reads::{EXAMPLES, RECORDS};

    #[test]
    fn remedies_name_the_role() {
        let of = |name: &str, reads: &'static Reads| remedy(name, reads).unwrap_or_default();
        assert!(of("context", &EXAMPLES).contains("--map positives=context"));
        assert!(of("passage", &RECORDS).contains("--map contexts=passage"));
        assert!(of("qurey", &EXAMPLES).contains("--map query=qurey"));
        assert!(of("Answer", &RECORDS).contains("--map answers=Answer"));
        assert!(of("Question", &EXAMPLES).contains("if it is the query, map it with --map query=Question"));
        assert!(of("negatvies", &EXAMPLES).contains("--map negatives=negatvies"));
        assert!(of("label", &RECORDS).contains("read for question"));
        assert_eq!(remedy("url", &EXAMPLES), None);
        assert_eq!(remedy("id", &RECORDS), None);
    }
}
