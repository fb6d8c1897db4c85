//! What is in a data set, before a day is spent on training with it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::text_key;
use crate::{BadRows, Collection, Passage, ReadOptions, ReadReport, Result, RetrievalExample, read_examples};

/// A distribution in five numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Smallest value.
    pub min: u32,
    /// Median.
    pub p50: u32,
    /// 95th percentile.
    pub p95: u32,
    /// Largest value.
    pub max: u32,
}

impl Distribution {
    /// The distribution of some values.
    pub fn of(mut values: Vec<u32>) -> Self {
        values.sort_unstable();
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Self::default() };
        let total: u64 = values.iter().map(|&v| u64::from(v)).sum();
        // The smallest value that at least this share of the values does not exceed.
        let percentile = |p: usize| values[(values.len() * p).div_ceil(100).max(1) - 1];
        Self { mean: total as f64 / values.len() as f64, min, p50: percentile(50), p95: percentile(95), max }
    }
}

/// The lengths of some texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// In words, split at white space.
    pub words: Distribution,
    /// In characters.
    pub chars: Distribution,
}

/// One split of a data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitStats {
    /// Its name.
    pub name: String,
    /// Examples.
    pub examples: u64,
    /// Distinct query texts.
    pub queries: u64,
    /// Distinct texts among the positives.
    pub positives: u64,
    /// Distinct texts among the negatives.
    pub negatives: u64,
    /// Examples whose query text occurs in an earlier example.
    pub repeated_queries: u64,
    /// Positives per query text.
    pub positives_per_query: Distribution,
    /// Negatives per query text.
    pub negatives_per_query: Distribution,
    /// Passages that are relevant to more than one query.
    pub passages_of_several_queries: u64,
    /// Negatives that another example calls relevant to the same query.
    pub contradictions: u64,
    /// Examples with teacher scores.
    pub with_scores: u64,
    /// Examples with answers.
    pub with_answers: u64,
    /// Lengths of the distinct queries.
    pub query_lengths: Lengths,
    /// Lengths of the distinct passages of the examples.
    pub passage_lengths: Lengths,
}

/// A corpus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CorpusStats {
    /// Passages.
    pub passages: u64,
    /// Passages whose text occurs in an earlier passage.
    pub repeated: u64,
    /// Passages with a title.
    pub with_title: u64,
    /// Lengths of title and text together.
    pub lengths: Lengths,
}

/// What two splits have in common: a leak, if one is for testing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// One split.
    pub first: String,
    /// The other.
    pub second: String,
    /// Query texts in both.
    pub queries: u64,
    /// Relevant passages in both.
    pub positives: u64,
}

/// What is in a data set. `Display` shows it as tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetStats {
    /// The splits.
    pub splits: Vec<SplitStats>,
    /// The corpus, where the format has one of its own.
    pub corpus: Option<CorpusStats>,
    /// Every pair of splits.
    pub overlaps: Vec<Overlap>,
    /// What reading met: missing passages and queries, broken rows.
    pub read: ReadReport,
}

/// Reads a data set through and describes it: of a collection every split, unless `options` names one.
pub fn dataset_stats(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<DatasetStats> {
    let path = path.as_ref();
    let collection = Collection::find(path, options)?;
    let mut stats = DatasetStats::default();
    let mut names = vec![options.split().to_owned()];
    if let Some(collection) = &collection {
        if let (None, Some(splits)) = (&options.split, collection.splits()?) {
            names = splits;
        }
        stats.corpus = Some(corpus_stats(collection.corpus(bad)?)?);
        for query in collection.queries(None, bad)? {
            query?;
        }
    }
    let mut seen: Vec<Tally> = Vec::new();
    for name in names {
        let mut tally = Tally::default();
        let examples = match &collection {
            // Corpus and queries are reported above, once for all splits.
            Some(collection) => collection.examples_of_read(&name, bad)?,
            None => read_examples(path, options, bad)?,
        };
        for example in examples {
            tally.add(&example?);
        }
        stats.splits.push(tally.stats(name));
        seen.push(tally);
    }
    for (i, a) in seen.iter().enumerate() {
        for (j, b) in seen.iter().enumerate().skip(i + 1) {
            stats.overlaps.push(Overlap {
                first: stats.splits[i].name.clone(),
                second: stats.splits[j].name.clone(),
                queries: a.queries.keys().filter(|key| b.queries.contains_key(key)).count() as u64,
                positives: a.relevant_to.keys().filter(|key| b.relevant_to.contains_key(key)).count() as u64,
            });
        }
    }
    stats.read = bad.report();
    Ok(stats)
}

/// Describes a corpus.
pub fn corpus_stats(passages: impl IntoIterator<Item = Result<Passage>>) -> Result<CorpusStats> {
    let (mut stats, mut seen, mut sizes) = (CorpusStats::default(), HashSet::new(), Sizes::default());
    for passage in passages {
        let passage = passage?;
        let text = passage.full_text();
        stats.passages += 1;
        stats.with_title += u64::from(passage.title.is_some());
        stats.repeated += u64::from(!seen.insert(text_key(&text)));
        sizes.add(&text);
    }
    stats.lengths = sizes.lengths();
    Ok(stats)
}

#[derive(Default)]
pub(crate) struct Sizes {
    words: Vec<u32>,
    chars: Vec<u32>,
}

impl Sizes {
    pub(crate) fn add(&mut self, text: &str) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.words.push(count(text.split_whitespace().count()));
        self.chars.push(count(text.chars().count()));
    }

    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { words: Distribution::of(self.words.clone()), chars: Distribution::of(self.chars.clone()) }
    }
}

/// Texts are kept as hashes, so a data set larger than memory can be described.
#[derive(Default)]
struct Tally {
    stats: SplitStats,
    queries: HashMap<u64, (HashSet<u64>, HashSet<u64>)>,
    relevant_to: HashMap<u64, HashSet<u64>>,
    passages: HashSet<u64>,
    query_sizes: Sizes,
    passage_sizes: Sizes,
}

impl Tally {
    fn add(&mut self, example: &RetrievalExample) {
        let query = text_key(&example.query.text);
        self.stats.examples += 1;
        self.stats.with_scores += u64::from(example.scores.is_some());
        self.stats.with_answers += u64::from(!example.answers.is_empty());
        if self.queries.contains_key(&query) {
            self.stats.repeated_queries += 1;
        } else {
            self.query_sizes.add(&example.query.text);
        }
        let (positives, negatives) = self.queries.entry(query).or_default();
        for (list, set) in [(&example.positives, positives), (&example.negatives, negatives)] {
            for passage in list {
                let text = passage.full_text();
                let key = text_key(&text);
                set.insert(key);
                if self.passages.insert(key) {
                    self.passage_sizes.add(&text);
                }
            }
        }
        for passage in &example.positives {
            self.relevant_to.entry(text_key(&passage.full_text())).or_default().insert(query);
        }
    }

    fn stats(&self, name: String) -> SplitStats {
        let per_query = |count: fn(&(HashSet<u64>, HashSet<u64>)) -> usize| {
            Distribution::of(self.queries.values().map(|sets| count(sets) as u32).collect())
        };
        let negatives: HashSet<&u64> = self.queries.values().flat_map(|(_, negatives)| negatives).collect();
        SplitStats {
            name,
            queries: self.queries.len() as u64,
            positives: self.relevant_to.len() as u64,
            negatives: negatives.len() as u64,
            positives_per_query: per_query(|(positives, _)| positives.len()),
            negatives_per_query: per_query(|(_, negatives)| negatives.len()),
            passages_of_several_queries: self.relevant_to.values().filter(|queries| queries.len() > 1).count()
                as u64,
            contradictions: self.queries.values().map(|(p, n)| p.intersection(n).count() as u64).sum(),
            query_lengths: self.query_sizes.lengths(),
            passage_lengths: self.passage_sizes.lengths(),
            ..self.stats.clone()
        }
    }
}

impl fmt::Display for DatasetStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&SplitStats> = self.splits.iter().collect();
        if !columns.is_empty() {
            write!(f, "{:<34}", "split")?;
            for split in &columns {
                write!(f, "{:>22}", split.name)?;
            }
            writeln!(f)?;
        }
        type Cell = fn(&SplitStats) -> String;
        let rows: [(&str, Cell); 15] = [
            ("examples", |s| s.examples.to_string()),
            ("distinct queries", |s| s.queries.to_string()),
            ("distinct positives", |s| s.positives.to_string()),
            ("distinct negatives", |s| s.negatives.to_string()),
            ("repeated queries", |s| s.repeated_queries.to_string()),
            ("positives of several queries", |s| s.passages_of_several_queries.to_string()),
            ("negatives that are positives", |s| s.contradictions.to_string()),
            ("examples with teacher scores", |s| s.with_scores.to_string()),
            ("examples with answers", |s| s.with_answers.to_string()),
            ("positives per query   mean (max)", |s| brief(&s.positives_per_query)),
            ("negatives per query   mean (max)", |s| brief(&s.negatives_per_query)),
            ("query words       p50 / p95 / max", |s| spread(&s.query_lengths.words)),
            ("query chars       p50 / p95 / max", |s| spread(&s.query_lengths.chars)),
            ("passage words     p50 / p95 / max", |s| spread(&s.passage_lengths.words)),
            ("passage chars     p50 / p95 / max", |s| spread(&s.passage_lengths.chars)),
        ];
        for (name, cell) in rows.into_iter().filter(|_| !columns.is_empty()) {
            write!(f, "{name:<34}")?;
            for split in &columns {
                write!(f, "{:>22}", cell(split))?;
            }
            writeln!(f)?;
        }
        if let Some(corpus) = &self.corpus {
            writeln!(
                f,
                "\ncorpus: {} passages, {} with a title, {} repeated",
                corpus.passages, corpus.with_title, corpus.repeated
            )?;
            writeln!(f, "  words p50 / p95 / max: {}", spread(&corpus.lengths.words))?;
        }
        for overlap in self.overlaps.iter().filter(|o| o.queries + o.positives > 0) {
            let Overlap { first, second, queries, positives } = overlap;
            writeln!(f, "\n{first} and {second} share {queries} queries and {positives} relevant passages")?;
        }
        writeln!(f, "\n{}", self.read)
    }
}

fn brief(d: &Distribution) -> String {
    format!("{:.2} ({})", d.mean, d.max)
}

pub(crate) fn spread(d: &Distribution) -> String {
    format!("{} / {} / {}", d.p50, d.p95, d.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let d = Distribution::of((1..=100).rev().collect());
        assert_eq!((d.min, d.p50, d.p95, d.max, d.mean), (1, 50, 95, 100, 50.5));
        assert_eq!(Distribution::of(vec![7]), Distribution { mean: 7.0, min: 7, p50: 7, p95: 7, max: 7 });
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }
}
