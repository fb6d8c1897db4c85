//! A small BM25, to know how far word overlap alone gets.

use std::collections::HashMap;

use crate::Dataset;
use crate::questions::Question;

const K1: f64 = 0.9;
const B: f64 = 0.4;

/// An inverted index over titles and texts.
pub struct Bm25 {
    postings: HashMap<String, Vec<(usize, f64)>>,
    lengths: Vec<f64>,
    average: f64,
}

impl Bm25 {
    /// Indexes the corpus.
    pub fn new(data: &Dataset) -> Bm25 {
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut lengths = Vec::new();
        for (index, passage) in data.passages.iter().enumerate() {
            let words = tokens(&format!("{} {}", passage.title, passage.text));
            lengths.push(words.len() as f64);
            let mut counts: HashMap<String, f64> = HashMap::new();
            for word in words {
                *counts.entry(word).or_insert(0.0) += 1.0;
            }
            for (word, count) in counts {
                postings.entry(word).or_default().push((index, count));
            }
        }
        let average = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Bm25 { postings, lengths, average }
    }

    /// The ten best passages.
    pub fn top(&self, query: &str) -> Vec<usize> {
        let total = self.lengths.len() as f64;
        let mut scores: HashMap<usize, f64> = HashMap::new();
        for word in tokens(query) {
            let Some(list) = self.postings.get(&word) else { continue };
            let idf = (1.0 + (total - list.len() as f64 + 0.5) / (list.len() as f64 + 0.5)).ln();
            for &(index, count) in list {
                let norm = K1 * (1.0 - B + B * self.lengths[index] / self.average);
                *scores.entry(index).or_insert(0.0) += idf * count * (K1 + 1.0) / (count + norm);
            }
        }
        let mut ranked: Vec<(usize, f64)> = scores.into_iter().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.into_iter().take(10).map(|(index, _)| index).collect()
    }

    /// nDCG@10 and the share of questions with a gold passage on top.
    pub fn score(&self, questions: &[&Question]) -> (f64, f64) {
        let (mut ndcg, mut first) = (0.0, 0.0);
        for question in questions {
            let ranked = self.top(&question.text);
            let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
            let found = ranked.iter().enumerate().filter(|(_, index)| question.gold.contains(index));
            let ideal: f64 = (0..question.gold.len()).map(gain).sum();
            ndcg += found.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal;
            first += f64::from(u8::from(ranked.first().is_some_and(|index| question.gold.contains(index))));
        }
        let count = questions.len().max(1) as f64;
        (ndcg / count, first / count)
    }
}

/// Lower-case words and numbers.
pub fn tokens(text: &str) -> Vec<String> {
    let words = text.to_lowercase();
    words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_string).collect()
}
