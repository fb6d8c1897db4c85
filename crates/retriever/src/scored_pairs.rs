//! How well do a model's similarities follow the scores of pairs? Correlations, as sentence-transformers'
//! `EmbeddingSimilarityEvaluator` has them (STS benchmarks).

use crate::biencoder::BiEncoder;
use crate::encode::EncodeSettings;
use crate::search::search_exact;
use crate::{Error, Result};
use ragduet_data::{BadRows, Collection, PairLabels, ReadOptions, read_examples};
use ragduet_metrics::classification::{Regression, regression};
use std::path::Path;

/// Pairs of texts with a score each.
#[derive(Debug, Default)]
pub struct ScoredPairs {
    /// The first texts, encoded as queries.
    pub queries: Vec<String>,
    /// The second texts, encoded as passages.
    pub passages: Vec<String>,
    /// How similar they are said to be.
    pub scores: Vec<f64>,
}

impl ScoredPairs {
    /// Reads a file of pairs; `None` where its rows are something else.
    ///
    /// # Errors
    /// A file that cannot be read; pairs among other rows.
    pub fn read(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Option<Self>> {
        if options.labels != PairLabels::Judgements || Collection::find(path, options)?.is_some() {
            return Ok(None);
        }
        let options = ReadOptions { labels: PairLabels::Scores, ..options.clone() };
        let (mut pairs, mut others) = (Self::default(), 0usize);
        // Whoever reads the rows as something else reports them.
        let silent = bad.silenced();
        let first = read_examples(path, &options, &silent)?.next().transpose()?;
        let is_pair = |e: &ragduet_data::RetrievalExample| {
            e.positives.len() == 1 && e.negatives.is_empty() && e.scores.is_some()
        };
        if !first.is_some_and(|e| is_pair(&e)) {
            return Ok(None);
        }
        for example in read_examples(path, &options, bad)? {
            let mut example = example?;
            match example.scores.as_deref() {
                Some(&[score]) if is_pair(&example) => {
                    pairs.scores.push(f64::from(score));
                    pairs.queries.push(std::mem::take(&mut example.query.text));
                    pairs.passages.push(example.positives[0].full_text());
                }
                _ => others += 1,
            }
        }
        if others > 0 {
            return Err(Error::Unusable(format!(
                "{}: {others} rows are no pairs with a score, {} are; a dev set is of one kind",
                path.display(),
                pairs.scores.len()
            )));
        }
        Ok(Some(pairs))
    }

    /// The correlation of a model's similarities with the scores.
    ///
    /// # Errors
    /// The encoder's.
    pub fn evaluate(&self, model: &BiEncoder, encode: &EncodeSettings) -> Result<Regression> {
        let passages = self.passages.iter().map(|text| Ok(text.clone()));
        let asked: Vec<Vec<u32>> = (0..self.passages.len() as u32).map(|i| vec![i]).collect();
        let found = search_exact(model, passages, &self.queries, 0, &asked, encode, &mut |_, _| ())?;
        let given: Vec<f64> = found.asked.iter().flatten().map(|score| f64::from(*score)).collect();
        Ok(regression(&self.scores, &given)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_from_other_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let read = |text: &str| {
            fs_err::write(&path, text).unwrap();
            ScoredPairs::read(&path, &ReadOptions::default(), &BadRows::default())
        };
        let pair = "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 2.5}\n";
        let triplet = "{\"query\": \"a\", \"positive\": \"b\", \"negative\": \"c\"}\n";
        let pairs = read(&pair.repeat(2)).unwrap().unwrap();
        assert_eq!(
            (pairs.scores, pairs.queries, pairs.passages),
            (vec![2.5; 2], vec!["a".to_string(); 2], vec!["b".to_string(); 2])
        );
        assert!(read(triplet).unwrap().is_none());
        let e = read(&format!("{pair}{triplet}")).unwrap_err().to_string();
        assert!(e.contains("1 rows are no pairs"), "{e}");
    }
}
