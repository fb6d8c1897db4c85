//! Curriculum of growing passages: in the first epochs a gold passage is cut to the sentence that holds the answer and a
//! few others. Examples go from easy to hard (Bengio et al., 2009, "Curriculum learning"): a model with random weights
//! learns to copy an answer where there is little else to copy, and then to find it.

use ragduet_data::{Passage, RagRecord};
use ragduet_metrics::sentences::sentences;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The record with its golden passages cut to the sentence that holds the first answer and `others` of their other
/// sentences, in their order; which ones is a function of seed, `others` and the record's id. None where nothing is cut:
/// a passage stays whole that has no more sentences, or no sentence with the answer.
pub fn excerpt(record: &RagRecord, others: usize, seed: u64) -> Option<RagRecord> {
    let answer = record.answers.first()?.to_lowercase();
    let key =
        xxh3_64_with_seed(record.id.as_bytes(), seed ^ (others as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut out = Cow::Borrowed(record);
    for (i, passage) in record.gold.iter().enumerate() {
        let Some(text) = cut(&passage.text, &answer, others, key.wrapping_add(i as u64)) else { continue };
        let out = out.to_mut();
        let here = |p: &Passage| p.id == passage.id && p.text == passage.text;
        let found = out.contexts.iter_mut().map(|f| &mut f.passage).filter(|p| here(p));
        found.for_each(|p| p.text.clone_from(&text));
        out.gold[i].text = text;
    }
    match out {
        Cow::Owned(cut) => Some(cut),
        Cow::Borrowed(_) => None,
    }
}

/// `answer` is in lower case.
fn cut(text: &str, answer: &str, others: usize, key: u64) -> Option<String> {
    let all = sentences(text);
    if all.len() <= others + 1 {
        return None;
    }
    let held = all.iter().position(|s| s.to_lowercase().contains(answer))?;
    let mut kept: Vec<usize> = (0..all.len()).filter(|&i| i != held).collect();
    kept.shuffle(&mut ChaCha8Rng::seed_from_u64(key));
    kept.truncate(others);
    kept.push(held);
    kept.sort_unstable();
    Some(kept.iter().map(|&i| all[i]).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_data::Found;
    use std::collections::HashSet;

    const TEXT: &str =
        "The Tern lay at Oshaven. Her hull is of black pine. Gulls nested there. She sank in 812.";

    fn record(text: &str) -> RagRecord {
        let passage = |id: &str, text: &str| Passage { id: id.into(), title: None, text: text.into() };
        let found = |passage: Passage| Found { passage, score: None };
        RagRecord {
            id: "q".into(),
            question: "What is her hull of?".into(),
            answers: vec!["Black pine".into(), "pine".into()],
            contexts: vec![found(passage("other", TEXT)), found(passage("gold", text))],
            gold: vec![passage("gold", text)],
            ..RagRecord::default()
        }
    }

    #[test]
    fn golden_passages_keep_the_answers_sentence_and_so_many_others() {
        let r = record(TEXT);
        let one = excerpt(&r, 0, 7).unwrap();
        assert_eq!(one.gold[0].text, "Her hull is of black pine.");
        assert_eq!(one.contexts[1].passage.text, one.gold[0].text, "as candidate, too");
        assert_eq!(one.contexts[0], r.contexts[0], "what is not golden stays whole");
        assert_eq!((&one.answers, &one.question), (&r.answers, &r.question));

        let whole = sentences(TEXT);
        let mut seen = HashSet::new();
        for seed in 0..30 {
            let two = excerpt(&r, 1, seed).unwrap();
            assert_eq!(excerpt(&r, 1, seed).unwrap(), two);
            let kept = sentences(&two.gold[0].text);
            assert_eq!(kept.len(), 2);
            assert!(kept.contains(&"Her hull is of black pine."));
            let places: Vec<usize> =
                kept.iter().map(|s| whole.iter().position(|w| w == s).unwrap()).collect();
            assert!(places.is_sorted(), "in their order");
            seen.extend(places);
        }
        assert_eq!(seen.len(), 4, "any of the others");
        assert_eq!(excerpt(&r, 3, 7), None, "all four sentences are the passage");
    }

    #[test]
    fn a_passage_without_the_answer_stays_whole() {
        assert_eq!(excerpt(&record("It is of oak. Gulls nested there. She sank."), 0, 7), None);
        assert_eq!(excerpt(&RagRecord { answers: Vec::new(), ..record(TEXT) }, 0, 7), None);
        assert_eq!(excerpt(&RagRecord { gold: Vec::new(), ..record(TEXT) }, 0, 7), None);
    }
}
