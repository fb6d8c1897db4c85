//! Which number is computed: the measures' names, as users write them in configs and as reports print them.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A retrieval measure. Written `ndcg@10`, `recall@100`, `precision@5`, `hit@1`, `mrr`, `mrr@10`, `map`, `map@100`
/// or `r_precision`, in any case; serde uses the same strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Measure {
    /// Normalised discounted cumulative gain with the grade as the (linear) gain: `ndcg_cut_K` of trec_eval.
    Ndcg {
        /// Ranks looked at.
        k: NonZeroUsize,
    },
    /// The share of the relevant documents among the first `k`: `recall_K`.
    Recall {
        /// Ranks looked at.
        k: NonZeroUsize,
    },
    /// The share of relevant documents among the first `k` ranks, whether or not they are filled: `P_K`.
    Precision {
        /// Ranks looked at.
        k: NonZeroUsize,
    },
    /// 1 if a relevant document is among the first `k`: `success_K`.
    Hit {
        /// Ranks looked at.
        k: NonZeroUsize,
    },
    /// One over the rank of the first relevant document: `recip_rank`.
    Mrr {
        /// Ranks looked at; `None` looks at all.
        k: Option<NonZeroUsize>,
    },
    /// Mean average precision, over all relevant documents: `map` and `map_cut_K`.
    Map {
        /// Ranks looked at; `None` looks at all.
        k: Option<NonZeroUsize>,
    },
    /// Precision at as many ranks as there are relevant documents: `Rprec`.
    RPrecision,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndcg { k } => write!(f, "ndcg@{k}"),
            Self::Recall { k } => write!(f, "recall@{k}"),
            Self::Precision { k } => write!(f, "precision@{k}"),
            Self::Hit { k } => write!(f, "hit@{k}"),
            Self::Mrr { k: Some(k) } => write!(f, "mrr@{k}"),
            Self::Mrr { k: None } => f.write_str("mrr"),
            Self::Map { k: Some(k) } => write!(f, "map@{k}"),
            Self::Map { k: None } => f.write_str("map"),
            Self::RPrecision => f.write_str("r_precision"),
        }
    }
}

impl FromStr for Measure {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = |problem| Error::UnknownMeasure { name: name.to_owned(), problem };
        let lower = name.trim().to_ascii_lowercase();
        let (family, cut) = match lower.split_once('@') {
            Some((family, cut)) => {
                // `parse` alone would accept "+5".
                let digits = !cut.is_empty() && cut.bytes().all(|b| b.is_ascii_digit());
                let k = cut.parse::<NonZeroUsize>().ok().filter(|_| digits);
                (family, Some(k.ok_or(unknown("the cutoff is no positive whole number"))?))
            }
            None => (lower.as_str(), None),
        };
        match (family, cut) {
            ("ndcg", Some(k)) => Ok(Self::Ndcg { k }),
            ("recall", Some(k)) => Ok(Self::Recall { k }),
            ("precision", Some(k)) => Ok(Self::Precision { k }),
            ("hit", Some(k)) => Ok(Self::Hit { k }),
            ("mrr", k) => Ok(Self::Mrr { k }),
            ("map", k) => Ok(Self::Map { k }),
            ("r_precision", None) => Ok(Self::RPrecision),
            ("r_precision", Some(_)) => Err(unknown("it takes no cutoff")),
            ("ndcg" | "recall" | "precision" | "hit", None) => Err(unknown("it needs a cutoff")),
            _ => Err(unknown("no measure has that name")),
        }
    }
}

impl TryFrom<String> for Measure {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            "ndcg@10",
            "recall@100",
            "precision@5",
            "hit@1",
            "mrr",
            "mrr@10",
            "map",
            "map@100",
            "r_precision",
        ] {
            let measure: Measure = name.parse().unwrap();
            assert_eq!(measure.to_string(), name);
            assert_eq!(name.to_uppercase().parse::<Measure>().unwrap(), measure);
            let json = serde_json::to_string(&measure).unwrap();
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(serde_json::from_str::<Measure>(&json).unwrap(), measure);
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (name, part) in [
            ("ndcg", "needs a cutoff"),
            ("ndcg@0", "positive"),
            ("ndcg@+5", "positive"),
            ("ndcg@", "positive"),
            ("r_precision@3", "takes no cutoff"),
            ("bleu", "no measure"),
            ("", "no measure"),
        ] {
            let message = name.parse::<Measure>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(message.contains("known are"), "{message}");
        }
    }
}
