//! Questions with answers, and with the passages known to hold them: what joint training and `retrieve` start from.

use std::path::Path;

use crate::collection::Collection;
use crate::source::inner_extension;
use crate::{BadRows, Error, Format, RagRecord, ReadOptions, Result, read_records};

/// Records without contexts: of a collection a split's judged questions with their answers (`answers`, or those of the
/// collection), the relevant passages as golden ones; of a file its records (see [`read_records`]), whose contexts are
/// left out. Questions without an answer are left out; the second value counts them.
///
/// # Errors
/// Files that cannot be read, rows that are refused.
pub fn read_questions(
    path: &Path,
    split: &str,
    answers: Option<&Path>,
    bad: &BadRows,
) -> Result<(Vec<RagRecord>, usize)> {
    let mut records = match collection(path)? {
        Some(collection) => judged(&collection, split, answers, bad)?,
        None => read_records(path, None, bad)?
            .map(|r| r.map(|r| RagRecord { contexts: Vec::new(), ..r }))
            .collect::<Result<Vec<_>>>()?,
    };
    let all = records.len();
    records.retain(|r| !r.answers.is_empty());
    let without = all - records.len();
    Ok((records, without))
}

/// The collection that a path holds; `None` if it holds records, whose files may have any extension.
fn collection(path: &Path) -> Result<Option<Collection>> {
    match Format::detect(path) {
        Ok(format) => Collection::find(path, &ReadOptions::format(format)),
        Err(Error::UnknownFormat { .. }) if path.is_file() && inner_extension(path) != "json" => Ok(None),
        Err(error) => Err(error),
    }
}

fn judged(
    collection: &Collection,
    split: &str,
    answers: Option<&Path>,
    bad: &BadRows,
) -> Result<Vec<RagRecord>> {
    let mut answers = collection.answers(answers, bad)?;
    let judged = collection.judged(split, bad)?;
    Ok(judged
        .into_iter()
        .map(|example| {
            let mut gold = example.positives;
            gold.sort_by(|a, b| a.id.cmp(&b.id));
            RagRecord {
                answers: answers.remove(&example.query.id).unwrap_or_default(),
                gold,
                id: example.query.id,
                question: example.query.text,
                ..RagRecord::default()
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_file_give_the_same_questions() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs_err::write(dir.path().join(name), text).unwrap();
        put(
            "corpus.jsonl",
            "{\"_id\":\"p1\",\"title\":\"T\",\"text\":\"one\"}\n{\"_id\":\"p2\",\"text\":\"two\"}\n",
        );
        put(
            "queries.jsonl",
            "{\"_id\":\"q1\",\"text\":\"a?\"}\n{\"_id\":\"q2\",\"text\":\"b?\"}\n{\"_id\":\"q3\",\"text\":\"c?\"}\n",
        );
        fs_err::create_dir(dir.path().join("qrels")).unwrap();
        put("qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq1\tp2\t1\nq1\tp1\t0\nq2\tp1\t1\n");
        put("answers.jsonl", "{\"_id\":\"q1\",\"answers\":[\"x\",\"y\"]}\n{\"_id\":7,\"answer\":\"z\"}\n");
        let bad = BadRows::default();
        let (records, without) = read_questions(dir.path(), "dev", None, &bad).unwrap();
        assert_eq!((records.len(), without), (1, 1));
        let r = &records[0];
        assert_eq!((r.id.as_str(), r.question.as_str(), r.answers.len()), ("q1", "a?", 2));
        assert_eq!(r.gold.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["p2"]);
        let line = "{\"id\":\"q1\",\"question\":\"a?\",\"answers\":[\"x\",\"y\"],\"contexts\":[{\"id\":\"p2\",\"text\":\"two\"}],\"gold\":\"p2\"}";
        put("rows.jsonl", line);
        let (same, _) = read_questions(&dir.path().join("rows.jsonl"), "dev", None, &bad).unwrap();
        assert_eq!(same, records);
    }
}
