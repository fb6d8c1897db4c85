//! Which kind of data a path holds: what it would be read for.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::columns;
use crate::fields::{ANSWERS, CONTEXTS, QUESTION};
use crate::pairs;
use crate::read::rows::{Holder, objects, objects_in};
use crate::read::{alone, arrow};
use crate::{BadRows, Error, Format, ReadOptions, Result};

/// A kind of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// Queries with passages, or a collection of them: for retrievers and cross-encoders.
    Examples,
    /// Passages alone.
    Corpus,
    /// Questions with answers and passages, conversations, instructions, texts: for generators.
    Records,
    /// Pairs of a chosen and a rejected answer.
    Preferences,
    /// Completions with a label.
    Judged,
}

impl DataKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Examples, Self::Corpus, Self::Records, Self::Preferences, Self::Judged];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Corpus => "corpus",
            Self::Records => "records",
            Self::Preferences => "preferences",
            Self::Judged => "labelled-completions",
        }
    }

    /// Finds the kind by the columns of the first row. A named format, and a file that has no rows with names, is data
    /// for retrievers.
    ///
    /// # Errors
    /// A path whose format is not known.
    pub fn of(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        let path = &*alone(path.as_ref())?;
        let format = options.format_of(path)?;
        let with_names = matches!(format, Format::Jsonl | Format::Parquet | Format::Arrow | Format::Dpr);
        if options.format.is_some() || !with_names {
            let passages_alone = format.spec().examples.is_none() && format.collection(path)?.is_none();
            return Ok(if passages_alone { Self::Corpus } else { Self::Examples });
        }
        let files = match format {
            Format::Arrow => arrow::files(path, options.split.as_deref())?,
            _ => vec![path.to_owned()],
        };
        let first = match files.as_slice() {
            // A folder or a pattern is taken apart by the reader.
            [_] => objects(&files[0], &BadRows::silent(), |_| true, |row, _| Ok(row))?.next(),
            _ => objects_in(files, Holder::ByName, &BadRows::silent(), |_| true, |row, _| Ok(row)).next(),
        };
        let first = first.transpose()?;
        Ok(first.map_or(Self::Examples, |row| Self::of_row(&row)))
    }

    fn of_row(row: &Map<String, Value>) -> Self {
        const RECORDS: [&str; 10] = [
            "context",
            "retrieved_contexts",
            "reference_contexts",
            "user_input",
            "golden_answers",
            "ground_truth",
            "ground_truths",
            "gold",
            "long_answer",
            "supporting_facts",
        ];
        let has = |name: &str| row.get(name).is_some_and(|value| !value.is_null());
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        if has("chosen") && has("rejected") {
            return Self::Preferences;
        }
        if any(&["messages", "conversations", "instruction", "prompt"]) {
            let judged = has("prompt") && has("completion") && has("label");
            return if judged { Self::Judged } else { Self::Records };
        }
        let passages = columns::POSITIVE.iter().any(|name| has(name)) || columns::has_negative(row);
        if passages || any(&pairs::DOCUMENTS) || any(&pairs::DOCUMENT_IDS) || has("positive_document_ids") {
            return Self::Examples;
        }
        // KILT has `input` and `output`; a question with one `answer` alone is a pair for a retriever.
        let kilt = has("input") && has("output");
        let asked = any(&QUESTION) || has("user_input");
        if kilt || asked && (any(&CONTEXTS) || any(&RECORDS) || any(&["answers", "output"])) {
            return Self::Records;
        }
        let corpus = any(&columns::PASSAGE_TEXT) || any(&["page_content", "kwargs", "text_resource"]);
        match corpus && !asked && !any(&ANSWERS) {
            true => Self::Corpus,
            false => Self::Examples,
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Config {
            key: "kind".into(),
            reason: format!(
                "no kind is named {name:?}; the kinds are {}",
                Self::ALL.map(Self::name).join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::parse_object;

    #[test]
    fn the_first_row_shows_the_kind() {
        for (row, kind) in [
            (r#"{"query":"q","positive":"p"}"#, DataKind::Examples),
            (r#"{"question":"q","answer":"a"}"#, DataKind::Examples),
            (r#"{"query":"q","docs":["a"],"labels":[1]}"#, DataKind::Examples),
            (r#"{"query_id":1,"document_ids":[2],"scores":[1]}"#, DataKind::Examples),
            (r#"{"question":"q","answers":["a"],"positive_ctxs":[]}"#, DataKind::Examples),
            (r#"{"question":"q","answers":["a"]}"#, DataKind::Records),
            (r#"{"question":"q","context":"c","answer":"a"}"#, DataKind::Records),
            (r#"{"messages":[]}"#, DataKind::Records),
            (r#"{"instruction":"i","output":"o"}"#, DataKind::Records),
            (r#"{"prompt":"p","completion":"c"}"#, DataKind::Records),
            (r#"{"prompt":"p","completion":"c","label":true}"#, DataKind::Judged),
            (r#"{"prompt":"p","chosen":"c","rejected":"r"}"#, DataKind::Preferences),
            (r#"{"_id":"1","text":"t"}"#, DataKind::Corpus),
            (r#"{"page_content":"t","metadata":{}}"#, DataKind::Corpus),
        ] {
            assert_eq!(DataKind::of_row(&parse_object(row).unwrap()), kind, "{row}");
        }
        assert_eq!("records".parse::<DataKind>().unwrap(), DataKind::Records);
        assert!("x".parse::<DataKind>().unwrap_err().to_string().contains("labelled-completions"));
    }
}
