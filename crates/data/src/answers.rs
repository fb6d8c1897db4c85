//! Answers by question.

use std::path::Path;

use crate::bad_rows::{Fault, Problem};
use crate::collection::parts::Answers;
use crate::columns;
use crate::fields::{answers_of, first, text};
use crate::read::rows::{Holder, Place, Rows};
use crate::reads::ANSWERS;
use crate::{BadRows, Result};
use serde_json::{Map, Value};

/// Answers by question, of rows with `_id` (`id`, `qid` ...) and `answers` (`answer`), one or a list.
///
/// # Errors
/// A file that cannot be read; the first bad row with file and line, or as `bad` says.
pub fn read_answers(path: &Path, bad: &BadRows) -> Result<Answers> {
    // A collection's file has its own names, whatever is mapped elsewhere.
    let rows = Rows { files: vec![path.to_owned()], holder: Holder::ByName, reads: &ANSWERS, strict: false };
    let answer = |row: Map<String, Value>, _: Place| {
        let Some((name, id)) = first(&row, &columns::QUERY_ID) else {
            let what = format!("no question id (one of {})", columns::QUERY_ID.join(", "));
            return Err(Fault::new(Problem::MissingColumn, what));
        };
        Ok((text(name, id)?, answers_of(&row)?))
    };
    rows.stream(path, bad, answer, |_| Ok(()))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BadRowPolicy;

    #[test]
    fn bad_answers_are_named_or_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        fs_err::write(&path, "{\"_id\":\"q1\",\"answers\":\"x\"}\n{\"answers\":\"y\"}\n").unwrap();
        let e = read_answers(&path, &BadRows::default()).unwrap_err().to_string();
        assert!(e.contains("answers.jsonl:2") && e.contains("no question id"), "{e}");
        let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
        assert_eq!(read_answers(&path, &bad).unwrap().len(), 1);
        assert_eq!(bad.report().bad_rows(), 1);
    }
}
