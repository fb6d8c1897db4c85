//! The lists that are learned: a question's positive and its negatives of an epoch.

use super::config::CrossEncoderConfig;
use crate::{Error, Result};
use ragduet_data::TrainingSet;
use ragduet_train::epoch_rng;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

/// A question's candidates of an epoch, the positive first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    /// The question's number in the set.
    pub query: u32,
    /// Passages' numbers in the set.
    pub passages: Vec<u32>,
    /// Gains, or a teacher's scores.
    pub labels: Vec<f32>,
}

/// The order of an epoch.
pub(super) fn order(config: &CrossEncoderConfig, items: usize, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items).collect();
    order.shuffle(&mut rng(config, u64::MAX, epoch));
    order
}

fn rng(config: &CrossEncoderConfig, stream: u64, epoch: u64) -> ChaCha8Rng {
    let mut rng = epoch_rng(config.run.seed, epoch);
    rng.set_stream(stream);
    rng
}

/// An example's list in an epoch: a positive, and negatives drawn from `mined`, else from its own, else from all passages.
///
/// # Errors
/// Where a teacher is needed and the example has none.
pub(super) fn list(
    config: &CrossEncoderConfig,
    set: &TrainingSet,
    mined: Option<&[Vec<u32>]>,
    item: usize,
    epoch: u64,
    teacher: bool,
) -> Result<List> {
    let it = &set.items()[item];
    let wanted = config.batch.negatives_per_query;
    let mut rng = rng(config, item as u64, epoch);
    let at = rng.random_range(0..it.positives.len().max(1));
    let (Some(&positive), query) = (it.positives.get(at), it.query) else {
        return Err(Error::Unusable(format!("example {} has no positive passage", item + 1)));
    };
    if teacher {
        let Some(scores) = &it.scores else {
            let id = &set.queries()[query as usize].id;
            return Err(Error::Unusable(format!(
                "query `{id}` has no teacher's scores, which this loss needs"
            )));
        };
        let mut drawn: Vec<usize> = (0..it.negatives.len()).collect();
        drawn.shuffle(&mut rng);
        drawn.truncate(wanted);
        let n = it.positives.len();
        let places = std::iter::once(at).chain(drawn.iter().map(|d| n + d));
        return Ok(List {
            query,
            labels: places.map(|p| scores[p]).collect(),
            passages: std::iter::once(positive).chain(drawn.iter().map(|&d| it.negatives[d])).collect(),
        });
    }
    let mut negatives = mined.map_or(&it.negatives, |m| &m[query as usize]).clone();
    negatives.shuffle(&mut rng);
    negatives.truncate(wanted);
    let all = set.passages().len();
    // A question for which nothing was mined is compared with anything. Sets of a few passages may have none left.
    let mut tries = 0;
    while negatives.is_empty() && tries < 100 {
        let drawn = rng.random_range(0..all) as u32;
        if set.may_be_negative(query, drawn) {
            negatives.push(drawn);
        }
        tries += 1;
    }
    let mut labels = vec![0.0; 1 + negatives.len()];
    labels[0] = 1.0;
    Ok(List { query, passages: std::iter::once(positive).chain(negatives).collect(), labels })
}
