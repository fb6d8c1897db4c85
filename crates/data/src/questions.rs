//! Questions with answers, and with the passages known to hold them: what joint training and `retrieve` start from.

use crate::bad_rows::Fault;
use crate::columns;
use crate::rag::{answers_of, first, is_known, text};
use crate::read::rows::objects;
use crate::{BadRows, Beir, Format, Passage, Problem, RagRecord, Result, read_records};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Records without contexts: of a BEIR folder a split's judged questions with their answers (`answers`, or
/// answers.jsonl of the folder), the relevant passages as golden ones; of a file its records (see [`read_records`]),
/// whose contexts are left out. Questions without an answer are left out; the second value counts them.
///
/// # Errors
/// Files that cannot be read, rows that are refused.
pub fn read_questions(
    path: &Path,
    split: &str,
    answers: Option<&Path>,
    bad: &BadRows,
) -> Result<(Vec<RagRecord>, usize)> {
    let mut records = if path.is_dir() && Format::detect(path)? == Format::Beir {
        judged(path, split, answers, bad)?
    } else {
        read_records(path, None, bad)?
            .map(|r| r.map(|r| RagRecord { contexts: Vec::new(), ..r }))
            .collect::<Result<Vec<_>>>()?
    };
    let all = records.len();
    records.retain(|r| !r.answers.is_empty());
    let without = all - records.len();
    Ok((records, without))
}

fn judged(dir: &Path, split: &str, answers: Option<&Path>, bad: &BadRows) -> Result<Vec<RagRecord>> {
    let answers = {
        let path = answers.map_or_else(|| dir.join("answers.jsonl"), Path::to_path_buf);
        read_answers(&path, bad)?
    };
    let beir = Beir::open(dir)?;
    let mut relevant: HashMap<String, Vec<String>> = HashMap::new();
    for judgement in beir.qrels(split, bad)? {
        let judgement = judgement?;
        let of = relevant.entry(judgement.query).or_default();
        if judgement.grade > 0 {
            of.push(judgement.passage);
        }
    }
    let wanted: HashSet<&String> = relevant.values().flatten().collect();
    let mut passages: HashMap<String, Passage> = HashMap::new();
    for passage in beir.corpus(bad)? {
        let passage = passage?;
        if wanted.contains(&passage.id) {
            passages.insert(passage.id.clone(), passage);
        }
    }
    let mut out = Vec::new();
    for question in beir.queries(bad)? {
        let question = question?;
        let Some(ids) = relevant.get(&question.id) else { continue };
        let mut ids = ids.clone();
        ids.sort();
        out.push(RagRecord {
            answers: answers.get(&question.id).cloned().unwrap_or_default(),
            gold: ids.iter().filter_map(|p| passages.get(p).cloned()).collect(),
            id: question.id,
            question: question.text,
            ..RagRecord::default()
        });
    }
    Ok(out)
}

/// Answers by question, of rows with `_id` (`id`, `qid` ...) and `answers` (`answer`), one or a list.
///
/// # Errors
/// A file that cannot be read; the first bad row with file and line, or as `bad` says.
pub fn read_answers(path: &Path, bad: &BadRows) -> Result<HashMap<String, Vec<String>>> {
    objects(path, bad, is_known, |row, _| {
        let Some((name, id)) = first(&row, &columns::QUERY_ID) else {
            let what = format!("no question id (one of {})", columns::QUERY_ID.join(", "));
            return Err(Fault::new(Problem::MissingColumn, what));
        };
        Ok((text(name, id)?, answers_of(&row)?))
    })?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BadRowPolicy;

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
