//! The kinds of data: what a job takes a file for, and what a file looks like.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bad_rows::Fault;
use crate::pairs;
use crate::read::rows::{EXTENSIONS, Holder, Rows, objects};
use crate::read::table::{self, has_header};
use crate::read::{alone, arrow};
use crate::reads::{ALL, QUERY_TEXT, Reads};
use crate::source::inner_extension;
use crate::{
    BadRows, Error, Format, ReadOptions, Result, Shown, columns, fields, labelled, read_choices, read_corpus,
    read_examples, read_judged, read_labelled, read_preferences, read_records,
};

/// What rows are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Queries with positives and negatives.
    Examples,
    /// Passages.
    Corpus,
    /// What generators learn from and answer.
    Records,
    /// Pairs of a better and a worse answer.
    Preferences,
    /// Single answers that are good or bad (KTO).
    Completions,
    /// Questions with choices.
    Choices,
    /// Labelled texts.
    Texts,
}

/// All columns.
pub(crate) static ANY: Reads = Reads { what: "rows", roles: &[], beside: &[], known: |_| true };
/// All columns that some reader knows.
static KNOWN: Reads = Reads {
    what: "rows",
    roles: &[],
    beside: &[],
    known: |name| ALL.iter().any(|reads| (reads.known)(name)),
};

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Examples,
        Self::Corpus,
        Self::Records,
        Self::Preferences,
        Self::Completions,
        Self::Choices,
        Self::Texts,
    ];

    /// The name, as the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Corpus => "corpus",
            Self::Records => "records",
            Self::Preferences => "preferences",
            Self::Completions => "completions",
            Self::Choices => "choices",
            Self::Texts => "texts",
        }
    }

    /// What takes it.
    pub fn used_by(self) -> &'static str {
        match self {
            Self::Examples => "train retriever, train cross-encoder, mine, eval retriever",
            Self::Corpus => "index build, encode, train contriever",
            Self::Records => "train generator, train distil, train joint, generate, eval generator",
            Self::Preferences => "train preference, train reward",
            Self::Completions => "train preference with the KTO loss",
            Self::Choices => "train tfew, eval choices",
            Self::Texts => "train classifier, classify, eval classifier",
        }
    }

    /// What a file looks like, by its format and the columns of its first row.
    ///
    /// # Errors
    /// A file that cannot be read; columns that are no kind's.
    pub fn detect(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Self> {
        if let Ok(format) = options.format_of(path)
            && format.collection(path)?.is_some()
        {
            return Ok(Self::Examples);
        }
        let path = &*alone(path)?;
        let format = options.format_of(path).ok();
        if format.is_some_and(|f| f.spec().examples.is_none() && f.spec().corpus.is_some()) {
            return Ok(Self::Corpus);
        }
        if options.format.is_none() && inner_extension(path) == "txt" {
            return Ok(Self::Corpus);
        }
        // Columns are looked for by the name of the file; under another one it is what its format is mostly used for.
        let by_lines = [Format::Jsonl, Format::Tevatron, Format::FlagEmbedding, Format::Arrow];
        if options.format.is_some_and(|said| !by_lines.contains(&said))
            && path.is_file()
            && !EXTENSIONS.contains(&inner_extension(path).as_str())
        {
            return Ok(Self::Examples);
        }
        // What is looked at here could not be read again.
        if path.exists() && !path.is_file() && !path.is_dir() {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                reason: format!(
                    "a pipe can be read once only, and not to look what it holds; say which kind of data it is (--as {})",
                    Self::ALL.map(Self::name).join("|")
                ),
            });
        }
        let silent = BadRows::silent();
        let mapped = !bad.columns().is_empty();
        if inner_extension(path) == "tsv" && !mapped && !has_header(path, &KNOWN, &silent)? {
            return Ok(Self::Examples);
        }
        let keys = |row: serde_json::Map<String, serde_json::Value>, _: u64| {
            Ok::<_, Fault>(
                row.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key).collect::<Vec<_>>(),
            )
        };
        let found = match format {
            Some(Format::Arrow) => {
                let files = arrow::files(path, options.split.as_deref())?;
                let rows = Rows { files, holder: Holder::Parquet, reads: &ANY, strict: false };
                rows.stream(path, &silent, move |row, place| keys(row, place.line), |_| Ok(()))?
                    .next()
                    .transpose()?
            }
            _ => match objects(path, &silent, &ANY, keys)?.next().transpose()? {
                Some(found) => Some(found),
                // What is wrong with its rows.
                None => objects(path, &BadRows::default().quietly(), &ANY, keys)?.next().transpose()?,
            },
        };
        let found = found.ok_or_else(|| Error::Empty {
            what: path.display().to_string(),
            hint_text: "it has no row".into(),
        })?;
        // A mapped role is there under its own name.
        let names: Vec<String> =
            found.iter().cloned().chain(bad.columns().iter().map(|(role, _)| role.to_owned())).collect();
        Self::of_columns(&names).ok_or_else(|| Error::Unsupported {
            path: path.to_owned(),
            reason: format!(
                "the columns {}{} are no known kind of data; say which it is (--as {}) and name columns with --map",
                found.join(", "),
                if table::EXTENSIONS.contains(&inner_extension(path).as_str()) { " (of the first row)" } else { "" },
                Self::ALL.map(Self::name).join("|")
            ),
        })
    }

    /// What a row with some columns most likely is.
    fn of_columns(names: &[String]) -> Option<Self> {
        let has = |name: &str| names.iter().any(|n| n.to_lowercase().replace([' ', '-'], "_") == name);
        let any = |known: &[&str]| known.iter().any(|name| has(name));
        let question = any(&QUERY_TEXT[1..]) || has("user_input");
        let positive = any(&columns::POSITIVE) || has("positive_document_ids");
        let contexts =
            any(&fields::CONTEXTS) || any(&["context", "retrieved_contexts", "reference_contexts"]);
        let answers =
            any(&["answers", "answer", "golden_answers", "ground_truth", "ground_truths", "reference"]);
        let label = any(&labelled::LABEL);
        Some(match () {
            () if has("chosen") && has("rejected") => Self::Preferences,
            () if has("choices") => Self::Choices,
            () if has("prompt") && has("completion") && has("label") => Self::Completions,
            () if any(&["messages", "conversations"]) => Self::Records,
            // Of instructions and prompts, those that go with what is to be written.
            () if has("instruction") && any(&["output", "response"]) => Self::Records,
            () if has("prompt") && has("completion") => Self::Records,
            // Others go with the queries of retrievers.
            () if question && positive && any(&["sentence1", "premise"]) && label => Self::Texts,
            () if question && positive => Self::Examples,
            () if any(&["instruction", "prompt"]) => Self::Records,
            () if any(&pairs::DOCUMENTS) || any(&pairs::DOCUMENT_IDS) => Self::Examples,
            () if question && (contexts || answers) => Self::Records,
            () if has("input") && has("output") => Self::Records,
            () if label && any(&labelled::FIRST) => Self::Texts,
            () if any(&columns::PASSAGE_TEXT) || any(&["page_content", "kwargs", "text_resource"]) => {
                Self::Corpus
            }
            () if any(&labelled::FIRST) => Self::Texts,
            () => return None,
        })
    }

    /// Streams a file's records as this kind's reader understands them.
    ///
    /// # Errors
    /// As the reader's.
    pub fn read(self, path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<ShownRecords> {
        fn shown<T: Shown + Send + 'static>(
            stream: impl Iterator<Item = Result<T>> + Send + 'static,
        ) -> ShownRecords {
            Box::new(stream.map(|record| record.map(|record| Box::new(record) as Box<dyn Shown + Send>)))
        }
        Ok(match self {
            Self::Examples => shown(read_examples(path, options, bad)?),
            Self::Corpus => shown(read_corpus(path, options, bad)?),
            Self::Records => shown(read_records(path, None, bad)?),
            Self::Preferences => shown(read_preferences(path, bad)?),
            Self::Completions => shown(read_judged(path, bad)?),
            Self::Choices => shown(read_choices(path, bad)?),
            Self::Texts => {
                // Texts that are to be classified have no label yet.
                let labelled = match read_labelled(path, true, &bad.silenced())?.next() {
                    Some(first) => first.is_ok(),
                    None => read_labelled(path, false, &bad.silenced())?.next().is_none(),
                };
                shown(read_labelled(path, labelled, bad)?)
            }
        })
    }
}

/// Records that can be shown.
pub type ShownRecords = Box<dyn Iterator<Item = Result<Box<dyn Shown + Send>>> + Send>;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Config {
            key: name.into(),
            reason: format!("the kinds of data are {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}
