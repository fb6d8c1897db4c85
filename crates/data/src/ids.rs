//! Ids: each of them once, and the passages that they stand for.

use std::collections::{HashMap, HashSet};

use crate::bad_rows::{Fault, Problem};
use crate::stream::Passages;
use crate::{Passage, Result};

/// Refuses an id that was seen before. Ids are kept as hashes: a corpus may have more of them than fit as text.
pub(crate) fn unique(seen: &mut HashSet<u64>, id: &str) -> Result<(), Fault> {
    if seen.insert(xxhash_rust::xxh3::xxh3_64(id.as_bytes())) {
        Ok(())
    } else {
        Err(Fault::new(Problem::DuplicateId, format!("the id {id:?} was used before")))
    }
}

/// The passages of a corpus whose ids are in `needed`.
pub(crate) fn lookup(corpus: Passages, needed: &HashSet<String>) -> Result<HashMap<String, Passage>> {
    let mut found = HashMap::with_capacity(needed.len());
    for passage in corpus {
        let passage = passage?;
        if needed.contains(&passage.id) {
            found.insert(passage.id.clone(), passage);
        }
    }
    Ok(found)
}

/// The passages of ids.
pub(crate) fn fetch(passages: &HashMap<String, Passage>, ids: Vec<String>) -> Result<Vec<Passage>, Fault> {
    ids.into_iter()
        .map(|id| match passages.get(&id) {
            Some(passage) => Ok(passage.clone()),
            None => Err(Fault::new(Problem::MissingPassage, format!("the corpus has no passage {id:?}"))),
        })
        .collect()
}
