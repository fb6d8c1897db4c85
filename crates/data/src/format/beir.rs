//! BEIR directories: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, perhaps `answers.jsonl`, each optionally
//! compressed.

use std::path::{Path, PathBuf};

use super::spec::{Spec, Writer};
use crate::answers::read_answers;
use crate::collection::parts::{Answers, Parts, Places};
use crate::read::{corpora, named};
use crate::source::{find, listing, require};
use crate::stream::{NumberedQrels, Passages, Queries};
use crate::write::beir;
use crate::{BadRows, Error, Result};

pub(crate) const BEIR: Spec = Spec {
    name: "beir",
    folder: Some(|dir| find(dir, "corpus.jsonl").is_some()),
    output: &[""],
    collection: Some(|path| Ok(Some(Box::new(Beir::open(path)?)))),
    writer: Some(Writer::Collection(beir::write)),
    ..Spec::NONE
};

/// A BEIR directory. Opening reads nothing; each part is streamed when asked for.
#[derive(Debug)]
struct Beir {
    dir: PathBuf,
    corpus: PathBuf,
    queries: PathBuf,
}

impl Beir {
    /// Finds the parts of the directory.
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            corpus: require(dir, "corpus.jsonl")?,
            queries: require(dir, "queries.jsonl")?,
            dir: dir.to_owned(),
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        let qrels = self.dir.join("qrels");
        let mut splits = Vec::new();
        if qrels.is_dir() {
            for entry in fs_err::read_dir(&qrels)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let stem = name.trim_end_matches(".gz").trim_end_matches(".zst").strip_suffix(".tsv");
                splits.extend(stem.filter(|s| !s.starts_with('.')).map(str::to_owned));
            }
        }
        splits.sort();
        Ok(splits)
    }

    fn qrels_path(&self, split: &str) -> Result<PathBuf> {
        let folder = self.dir.join("qrels");
        find(&folder, &format!("{split}.tsv")).ok_or_else(|| Error::Missing {
            path: folder.join(format!("{split}.tsv")),
            remedy: match self.names() {
                Ok(splits) if !splits.is_empty() => format!("the splits are {}", splits.join(", ")),
                _ => format!("{} holds {}", self.dir.display(), listing(&self.dir)),
            },
        })
    }
}

impl Parts for Beir {
    fn splits(&self) -> Result<Option<Vec<String>>> {
        self.names().map(Some)
    }

    /// Memory holds a hash per id, for telling duplicates.
    fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        named::corpus_part(self.corpus.clone(), bad)
    }

    fn queries(&self, _: Option<&str>, bad: &BadRows) -> Result<Queries> {
        corpora::jsonl_queries(&self.queries, bad)
    }

    fn qrels(&self, split: &str, bad: &BadRows) -> Result<NumberedQrels> {
        Ok(corpora::qrels(&self.qrels_path(split)?, bad))
    }

    fn places(&self, split: &str) -> Result<Places> {
        Ok(Places { qrels: self.qrels_path(split)?, queries: self.queries.clone(), key: None })
    }

    fn answers(&self, bad: &BadRows) -> Result<Option<Answers>> {
        find(&self.dir, "answers.jsonl").map(|path| read_answers(&path, bad)).transpose()
    }
}
