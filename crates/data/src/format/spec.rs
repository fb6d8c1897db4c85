//! What is known of a format: how a path shows it, what it can be read as, how it is written.

use std::path::Path;

use super::head::Head;
use crate::collection::parts::Parts;
use crate::stream::{ExampleIter, Examples, Passages};
use crate::{BadRows, PairLabels, Result, WriteCounts};

/// Opens a collection; `Ok(None)` where the path holds something else of the format.
type OpenCollection = fn(&Path) -> Result<Option<Box<dyn Parts>>>;

/// A format. What a format cannot do is `None`, or an empty list.
pub(crate) struct Spec {
    /// The name, as configs and the command line spell it.
    pub(crate) name: &'static str,
    /// Other spellings of the name.
    pub(crate) aliases: &'static [&'static str],
    /// Extensions of files that are taken for this format, if `content` agrees.
    pub(crate) files: &'static [&'static str],
    /// What a `.json` file of this format begins with. The format without it takes those that no other wants.
    pub(crate) content: Option<fn(&Head) -> bool>,
    /// Whether a folder holds this format.
    pub(crate) folder: Option<fn(&Path) -> bool>,
    /// The extension of the shards, where a folder of such files alone holds this format.
    pub(crate) shards: Option<&'static str>,
    /// Extensions by which a path to be written shows this format; the empty one is a folder.
    pub(crate) output: &'static [&'static str],
    /// Reads a collection: corpus, queries and judgements. `Ok(None)` where the path holds something else of the
    /// format. Examples and corpus are then read through it.
    pub(crate) collection: Option<OpenCollection>,
    /// Reads examples.
    pub(crate) examples: Option<fn(&Reading<'_>) -> Result<Examples>>,
    /// Reads passages.
    pub(crate) corpus: Option<fn(&Reading<'_>) -> Result<Passages>>,
    /// Writes.
    pub(crate) writer: Option<Writer>,
}

impl Spec {
    /// A format that can do nothing: what a row of the table is made from.
    pub(crate) const NONE: Self = Self {
        name: "",
        aliases: &[],
        files: &[],
        content: None,
        folder: None,
        shards: None,
        output: &[],
        collection: None,
        examples: None,
        corpus: None,
        writer: None,
    };
}

/// What is to be read.
pub(crate) struct Reading<'a> {
    /// File or folder.
    pub(crate) path: &'a Path,
    /// Opens the corpus that ids in the examples point to, where one is given.
    pub(crate) corpus: Option<&'a dyn Fn() -> Result<Passages>>,
    /// The queries that ids in the examples point to.
    pub(crate) queries: Option<&'a Path>,
    /// The split that is asked for, where one is.
    pub(crate) split: Option<&'a str>,
    /// What the labels of pairs mean.
    pub(crate) labels: PairLabels,
    /// Where rows are reported.
    pub(crate) bad: &'a BadRows,
}

/// How a format is written.
pub(crate) enum Writer {
    /// Examples alone, to a file.
    Examples(fn(&Path, ExampleIter<'_>) -> Result<WriteCounts>),
    /// A split of a collection: its corpus where there is one, and the examples.
    Collection(fn(&Path, &str, Option<Passages>, ExampleIter<'_>) -> Result<WriteCounts>),
}
