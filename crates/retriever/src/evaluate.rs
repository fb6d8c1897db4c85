//! How well does a retriever find what was judged relevant?

use crate::biencoder::BiEncoder;
use crate::encode::{EncodeProgress, EncodeSettings};
use crate::search::search_exact;
use crate::{Error, Result};
use ragduet_data::{BadRows, Collection, MissingPolicy, Passage, Query, ReadOptions, RetrievalExample};
use ragduet_index::IdMap;
use ragduet_metrics::{Evaluation, Measure, Qrels, Run, evaluate};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Queries with judgements, and the corpus to find them in.
#[derive(Debug)]
pub struct EvalSet {
    /// (id, text) of the passages.
    pub passages: Vec<(String, String)>,
    /// (id, text) of the judged queries.
    pub queries: Vec<(String, String)>,
    /// The judgements.
    pub qrels: Qrels,
}

impl EvalSet {
    /// A split of a collection (`dev` if `options` names none), or any file of examples, whose passages are then the
    /// corpus.
    ///
    /// `max_passages` keeps all judged passages and a seeded sample of the others: quicker during training, and the
    /// figures are then higher than over the whole corpus.
    pub fn read(
        path: &Path,
        options: &ReadOptions,
        max_passages: Option<usize>,
        seed: u64,
        bad: &BadRows,
    ) -> Result<Self> {
        let collection = Collection::open(path, options, bad)?;
        let set = Self::of(&collection, options.split.as_deref().unwrap_or("dev"), bad)?;
        Ok(match max_passages {
            Some(most) => set.sampled(most, seed),
            None => set,
        })
    }

    /// A split of a collection, with the whole corpus.
    pub fn of(collection: &Collection, split: &str, bad: &BadRows) -> Result<Self> {
        let corpus = collection.corpus(bad)?.map(|p| p.map(|p| (p.id.clone(), p.full_text())));
        Self::over(collection, split, corpus.collect::<std::result::Result<_, _>>()?, bad)
    }

    /// Splits of a collection: its corpus is read once, and each has all of it.
    pub fn of_splits(collection: &Collection, splits: &[String], bad: &BadRows) -> Result<Vec<Self>> {
        let Some((first, others)) = splits.split_first() else { return Ok(Vec::new()) };
        let mut all = vec![Self::of(collection, first, bad)?];
        for split in others {
            let passages = all[0].passages.clone();
            all.push(Self::over(collection, split, passages, bad)?);
        }
        Ok(all)
    }

    fn over(
        collection: &Collection,
        split: &str,
        passages: Vec<(String, String)>,
        bad: &BadRows,
    ) -> Result<Self> {
        let mut qrels = Qrels::new();
        for q in collection.qrels(split, bad)? {
            let q = q?;
            qrels.insert(q.query, q.passage, q.grade)?;
        }
        let mut queries = Vec::new();
        for q in collection.queries(Some(split), bad)? {
            let q = q?;
            if qrels.get(&q.id).is_some() {
                queries.push((q.id, q.text));
            }
        }
        let path = collection.path().display();
        if queries.is_empty() {
            let file = collection.judgements_file(split)?;
            // Examples are their own judgements.
            let file = if file.as_os_str().is_empty() { collection.path().to_owned() } else { file };
            let file = file.display();
            return Err(Error::Unusable(match qrels.iter().next() {
                None => format!("{file}: it holds no judgement, so there is no query to measure with"),
                Some((first, _)) => format!(
                    "{file}: none of the {} queries that it judges, such as {first:?}, has a text in {path}",
                    qrels.len()
                ),
            }));
        }
        let set = Self { passages, queries, qrels };
        if let Some(first) = set.first() {
            bad.log_first(collection.path(), "example", &first);
        }
        let (texts, found) = set.missing();
        if texts + found > 0 {
            if bad.missing_policy() == MissingPolicy::Error {
                let (query, passage) = set.first_missing();
                let first: Vec<String> = [
                    query.map(|id| format!("the query {id:?} has no text")),
                    passage.map(|id| format!("the corpus has no passage {id:?}")),
                ]
                .into_iter()
                .flatten()
                .collect();
                return Err(Error::Unusable(format!(
                    "{path}: {texts} judged queries have no text, {found} relevant passages are not in the corpus; {}",
                    first.join(", ")
                )));
            }
            tracing::warn!(
                "{path}: {texts} judged queries have no text and count as 0; {found} relevant passages are not in the \
                 corpus, so that nothing finds them"
            );
        }
        Ok(set)
    }

    /// The first query with a relevant passage.
    fn first(&self) -> Option<RetrievalExample> {
        let (id, text) = self.queries.first()?;
        let relevant = |p: &&(String, String)| self.qrels.get(id).is_some_and(|of| of.get(&p.0) > Some(&0));
        let passage = self.passages.iter().find(relevant);
        let positives = passage
            .map(|(id, text)| Passage { id: id.clone(), title: None, text: text.clone() })
            .into_iter()
            .collect();
        let query = Query { id: id.clone(), text: text.clone() };
        Some(RetrievalExample { query, positives, ..RetrievalExample::default() })
    }

    /// Judged queries without a text, and pairs whose relevant passage the corpus lacks.
    fn missing(&self) -> (usize, usize) {
        let ids: HashSet<&str> = self.passages.iter().map(|(id, _)| id.as_str()).collect();
        let lost = |docs: &HashMap<String, i32>| {
            docs.iter().filter(|(id, grade)| **grade > 0 && !ids.contains(id.as_str())).count()
        };
        let passages = self.queries.iter().filter_map(|(id, _)| self.qrels.get(id)).map(lost).sum();
        (self.qrels.len() - self.queries.len(), passages)
    }

    /// The first of the judged queries without a text, and of the relevant passages that the corpus lacks.
    fn first_missing(&self) -> (Option<&str>, Option<&str>) {
        let ids: HashSet<&str> = self.passages.iter().map(|(id, _)| id.as_str()).collect();
        let texts: HashSet<&str> = self.queries.iter().map(|(id, _)| id.as_str()).collect();
        let query = self.qrels.iter().map(|(id, _)| id).find(|id| !texts.contains(id));
        let relevant = self.qrels.iter().flat_map(|(_, docs)| docs).filter(|(_, grade)| **grade > 0);
        let passage = relevant.map(|(id, _)| id.as_str()).filter(|id| !ids.contains(id)).min();
        (query, passage)
    }

    fn sampled(mut self, most: usize, seed: u64) -> Self {
        if self.passages.len() <= most {
            return self;
        }
        let judged: HashSet<&str> =
            self.qrels.iter().flat_map(|(_, docs)| docs.keys().map(String::as_str)).collect();
        let (keep, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.passages).into_iter().partition(|(id, _)| judged.contains(id.as_str()));
        let room = most.saturating_sub(keep.len()).min(rest.len());
        let mut chosen = sample(&mut ChaCha8Rng::seed_from_u64(seed), rest.len(), room).into_vec();
        chosen.sort_unstable();
        let mut passages = keep;
        passages.extend(chosen.into_iter().map(|i| rest[i].clone()));
        Self { passages, ..self }
    }
}

/// The measures that are reported when nothing else is asked for.
pub fn default_measures() -> Vec<Measure> {
    ["ndcg@10", "mrr@10", "recall@10", "recall@100", "map@100", "mrr"]
        .iter()
        .filter_map(|m| m.parse().ok())
        .collect()
}

/// Ranks the whole corpus for every query by exact search, `depth` deep, and scores the ranking.
pub fn evaluate_model(
    model: &BiEncoder,
    set: &EvalSet,
    measures: &[Measure],
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<(Evaluation, Run)> {
    let mut all = evaluate_splits(model, std::slice::from_ref(set), measures, depth, encode, progress)?;
    all.pop().ok_or_else(|| Error::Unusable("there is no query to measure with".into()))
}

/// As [`evaluate_model`] for several splits of one collection: its corpus, that of the first, is encoded once.
pub fn evaluate_splits(
    model: &BiEncoder,
    sets: &[EvalSet],
    measures: &[Measure],
    depth: usize,
    encode: &EncodeSettings,
    progress: EncodeProgress<'_>,
) -> Result<Vec<(Evaluation, Run)>> {
    let Some(EvalSet { passages, .. }) = sets.first() else { return Ok(Vec::new()) };
    // A name that two passages have would be two documents of one ranking.
    IdMap::from_ids(passages.iter().map(|(id, _)| id))?;
    let texts = passages.iter().map(|(_, t)| Ok(t.clone()));
    let queries: Vec<String> = sets.iter().flat_map(|set| &set.queries).map(|(_, t)| t.clone()).collect();
    let found = search_exact(model, texts, &queries, depth.max(1), &[], encode, progress)?;
    let mut hits = found.hits.into_iter();
    let one = |set: &EvalSet| {
        let mut run = Run::new();
        for ((name, _), hits) in set.queries.iter().zip(hits.by_ref()) {
            let docs = hits.into_iter().map(|h| (passages[h.id as usize].0.clone(), h.score)).collect();
            run.insert(name.clone(), docs)?;
        }
        Ok((evaluate(&set.qrels, &run, measures), run))
    };
    sets.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_is_whole_in_every_format() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
        };
        put("mm/collection.tsv", "1\tone\n2\ttwo\n3\tthree\n");
        put("mm/queries.dev.tsv", "a\tq\n");
        put("mm/qrels.dev.tsv", "a\t0\t1\t1\na\t0\t9\t1\nb\t0\t2\t1\n");
        let squad = |i: u8| format!("{{\"context\": \"text {i}\", \"qas\": []}}");
        let asked = "{\"context\": \"one\", \"qas\": [{\"id\": \"a\", \"question\": \"q\", \"answers\": [{\"text\": \"o\"}]}]}";
        put("s.json", &format!("{{\"data\": [{{\"paragraphs\": [{asked}, {}, {}]}}]}}", squad(2), squad(3)));
        put("e.jsonl", "{\"query\": \"q\", \"positive\": \"one\", \"negative\": [\"two\", \"three\"]}\n");
        for (name, missing) in [("mm", (1, 1)), ("s.json", (0, 0)), ("e.jsonl", (0, 0))] {
            let path = dir.path().join(name);
            let set = EvalSet::read(&path, &ReadOptions::default(), None, 0, &BadRows::default()).unwrap();
            assert_eq!((set.passages.len(), set.queries.len()), (3, 1), "{name}");
            assert_eq!((set.passages[0].1.as_str(), set.queries[0].1.as_str()), ("one", "q"), "{name}");
            assert_eq!(set.missing(), missing, "{name}");
        }
    }

    #[test]
    fn without_judged_queries_the_file_of_judgements_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("corpus.jsonl", "{\"_id\": \"d\", \"text\": \"p\"}\n"),
            ("queries.jsonl", "{\"_id\": \"q\", \"text\": \"q\"}\n"),
            ("qrels/dev.tsv", ""),
            ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nother\td\t1\n"),
        ] {
            fs_err::create_dir_all(dir.path().join("qrels")).unwrap();
            fs_err::write(dir.path().join(name), text).unwrap();
        }
        for (split, words) in
            [("dev", "dev.tsv: it holds no judgement"), ("test", "such as \"other\", has a text")]
        {
            let options = ReadOptions { split: Some(split.into()), ..ReadOptions::default() };
            let e =
                EvalSet::read(dir.path(), &options, None, 0, &BadRows::default()).unwrap_err().to_string();
            assert!(e.contains(&format!("qrels/{split}.tsv: ")) && e.contains(words), "{e}");
        }
    }
}
