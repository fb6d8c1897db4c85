//! Examples as a collection: their passages are the corpus, their positives the judgements.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::parts::{Answers, Parts, Places};
use crate::stream::{Examples, NumberedQrels, Passages, Queries};
use crate::{BadRows, Qrel, Result, TrainingSet};

/// Pooled examples. Their rows were reported when they were read.
#[derive(Debug)]
pub(crate) struct Pooled(Arc<TrainingSet>);

impl Pooled {
    pub(crate) fn new(set: TrainingSet) -> Self {
        Self(Arc::new(set))
    }

    /// What `get` makes of the numbers below `count`.
    fn stream<T>(
        &self,
        count: usize,
        get: impl Fn(&TrainingSet, usize) -> T + Send + 'static,
    ) -> Box<dyn Iterator<Item = Result<T>> + Send> {
        let set = self.0.clone();
        Box::new((0..count).map(move |i| Ok(get(&set, i))))
    }
}

impl Parts for Pooled {
    fn splits(&self) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    fn corpus(&self, _: &BadRows) -> Result<Passages> {
        Ok(self.stream(self.0.passages().len(), |set, i| set.passages()[i].clone()))
    }

    fn queries(&self, _: Option<&str>, _: &BadRows) -> Result<Queries> {
        Ok(self.stream(self.0.queries().len(), |set, i| set.queries()[i].clone()))
    }

    /// The line is the number of the query: examples are pooled by text, and may come from several files.
    fn qrels(&self, _: &str, _: &BadRows) -> Result<NumberedQrels> {
        let per_query = self.stream(self.0.queries().len(), |set, i| {
            let passages = set.positives_of_query(i as u32).iter();
            let id = |p: &u32| set.passages()[*p as usize].id.clone();
            let query = &set.queries()[i].id;
            passages
                .map(|p| Ok((i as u64 + 1, Qrel { query: query.clone(), passage: id(p), grade: 1 })))
                .collect::<Vec<_>>()
        });
        Ok(Box::new(per_query.flatten().flatten()))
    }

    fn places(&self, _: &str) -> Result<Places> {
        Ok(Places { qrels: PathBuf::new(), queries: PathBuf::new(), key: None })
    }

    fn answers(&self, _: &BadRows) -> Result<Option<Answers>> {
        let mut answers: Answers = HashMap::new();
        for item in self.0.items().iter().filter(|item| !item.answers.is_empty()) {
            let of = answers.entry(self.0.queries()[item.query as usize].id.clone()).or_default();
            for answer in &item.answers {
                if !of.contains(answer) {
                    of.push(answer.clone());
                }
            }
        }
        Ok(if answers.is_empty() { None } else { Some(answers) })
    }

    fn examples(&self, _: &str, _: &BadRows, _: &BadRows) -> Result<Examples> {
        Ok(self.stream(self.0.items().len(), |set, i| set.example(i)))
    }
}
