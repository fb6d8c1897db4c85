//! Plain text as a corpus: a table of ids and texts, a passage a line, paragraphs.

use std::path::PathBuf;

use super::ms_marco;
use super::spec::{Reading, Spec};
use crate::read::rows::Holder;
use crate::read::table::has_header;
use crate::read::{corpora, named};
use crate::reads::PASSAGES;
use crate::source::{Fallible, Lines, rows_of, shards};
use crate::stream::Passages;
use crate::{BadRows, PairLabels, Passage, Result};

pub(crate) const TSV: Spec =
    Spec { name: "tsv", examples: Some(ms_marco::triples), corpus: Some(tsv), ..Spec::NONE };

pub(crate) const TXT: Spec = Spec {
    name: "txt",
    files: &["txt"],
    corpus: Some(|from| Ok(txt(shards(from.path, &["txt"])?, from.bad))),
    ..Spec::NONE
};

pub(crate) const PARAGRAPHS: Spec = Spec {
    name: "paragraphs",
    corpus: Some(|from| Ok(paragraphs(shards(from.path, &["txt"])?, from.bad))),
    ..Spec::NONE
};

/// Passages, a line each: id, text, perhaps a title.
pub(crate) fn tsv(from: &Reading<'_>) -> Result<Passages> {
    of_tsv(shards(from.path, &["tsv"])?, from.bad)
}

/// Passages of files with a header, by its names; without one by their place.
pub(crate) fn of_tsv(files: Vec<PathBuf>, bad: &BadRows) -> Result<Passages> {
    let Some(first) = files.first().cloned() else { return Ok(Box::new(std::iter::empty())) };
    if has_header(&first, &PASSAGES, bad)? {
        let labels = PairLabels::default();
        let from = Reading { path: &first, corpus: None, queries: None, split: None, labels, bad };
        return named::corpus(&from, files, Holder::Table);
    }
    if !bad.is_silent() {
        tracing::info!("{}: no header; columns are id, text and title by their place", first.display());
    }
    Ok(corpora::tsv(files, bad))
}

/// One passage per line; its id is the line number, across files of one directory the running number.
fn txt(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let mut number = 0u64;
    Box::new(rows_of(files, bad, move |_, line| {
        number += 1;
        Ok(Some(Passage { id: number.to_string(), title: None, text: line.trim().into() }))
    }))
}

/// Passages parted by blank lines, as e-books and exports of editors have them; ids as in [`txt`], counting passages.
fn paragraphs(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let bad = bad.clone();
    let mut files = files.into_iter();
    let mut open: Option<Lines> = None;
    let (mut count, mut held) = (0u64, None::<(u64, String)>);
    Box::new(Fallible::new(move || {
        loop {
            let row = match &mut open {
                Some(lines) => {
                    let line = lines.next_row(|_, line| Ok(Some(line.trim().to_owned())))?;
                    line.map(|line| (lines.number(), line))
                }
                None => None,
            };
            if row.is_none() {
                open = files.next().map(|path| Lines::open(&path, &bad)).transpose()?;
            }
            match (&mut held, row) {
                // Blank lines are passed over: where the numbers have a gap, there was one.
                (Some((last, text)), Some((number, line))) if number == *last + 1 => {
                    *last = number;
                    text.push(' ');
                    text.push_str(&line);
                }
                (None, None) if open.is_none() => return Ok(None),
                (_, row) => {
                    if let Some((_, text)) = std::mem::replace(&mut held, row) {
                        count += 1;
                        return Ok(Some(Passage { id: count.to_string(), title: None, text }));
                    }
                }
            }
        }
    }))
}
