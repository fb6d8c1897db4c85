//! How much of an answer its contexts account for, without a judge: pure functions of the texts.
//!
//! - *Support*: the share of the answer's content words that occur in the contexts, and, for sentences with
//!   citations, in the passages they cite. Words are runs of letters and digits, lower-cased and stemmed; function
//!   words do not count. Of scripts without spaces (Chinese, Japanese, Thai ...) each character is a word.
//! - *Presence*: whether the answer stands in a context word for word (normalised as [`crate::answer`] does), whatever
//!   quotes and dashes either has; in scripts without spaces, character by character.
//! - *Citations*: precision and recall where it is known which passages hold the answer.
//! - [`entailment`] gathers the probabilities an NLI model gave for each sentence.
//!
//! What cannot be said (support of an answer without content words, precision without citations) is `None` and is
//! left out of means, whose counts say how many they rest on.

use std::collections::HashSet;
use std::sync::LazyLock;

use rayon::prelude::*;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::answer::normalise;
use crate::sentences::{citations, sentences, without_citations};
use crate::text::{fold, spaced};
use crate::{Error, Result, porter};

/// Words that say nothing about where an answer comes from.
const FUNCTION_WORDS: &str = "a about all also although am an and any are as at be because been being both but by can \
     could d did do does doing down during each either every few for from had has have having he her here hers him his \
     how i if in into is it its itself just ll m may me might more most must my neither no nor not of off on once only or \
     other our out over own re s same shall she should so some such t than that the their them then there these they \
     this those through to too under until up upon us ve very was we were what when where whether which while who whom \
     whose why will with would yes you your";

/// Contracted negations; their pieces ("don", "isn") would count as content.
static NEGATIONS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"\b(?:ai|are|ca|could|did|do|does|had|has|have|is|might|must|need|sha|should|was|were|wo|would)n['’]t\b",
    )
    .expect("a constant expression that the tests use")
});

/// A passage as it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Its id in the corpus.
    pub id: String,
    /// What the generator read.
    pub text: String,
}

/// An answer, and what it was given in the order shown: `[1]` cites the first passage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounded {
    /// The answer.
    pub answer: String,
    /// The passages shown.
    pub contexts: Vec<Passage>,
    /// Ids of the passages that hold the answer; empty where unknown.
    #[serde(default)]
    pub gold_ids: Vec<String>,
}

/// What can be said of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Faithfulness {
    /// The share of content words found in any context; `None` without content words.
    pub support: Option<f64>,
    /// The same over sentences with citations, each looked up in the passages it cites; `None` where no sentence with
    /// content cites.
    pub cited_support: Option<f64>,
    /// The share of sentences with a citation; `None` without sentences.
    pub cited_sentences: Option<f64>,
    /// Whether the whole answer, without citations, stands in a context: 0 or 1; `None` for an empty answer.
    pub present: Option<f64>,
    /// The share of the cited passages that are gold, ones that were never shown being wrong; `None` without
    /// citations or without gold.
    pub citation_precision: Option<f64>,
    /// The share of gold passages that are cited; `None` without gold.
    pub citation_recall: Option<f64>,
}

/// A mean and the number of answers it is of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mean {
    /// `None` of no answers.
    pub mean: Option<f64>,
    /// How many answers have the figure.
    pub count: usize,
}

/// Means over a corpus, and each answer's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaithfulnessScores {
    /// [`Faithfulness::support`].
    pub support: Mean,
    /// [`Faithfulness::cited_support`].
    pub cited_support: Mean,
    /// [`Faithfulness::cited_sentences`].
    pub cited_sentences: Mean,
    /// [`Faithfulness::present`].
    pub present: Mean,
    /// [`Faithfulness::citation_precision`].
    pub citation_precision: Mean,
    /// [`Faithfulness::citation_recall`].
    pub citation_recall: Mean,
    /// Per answer.
    pub each: Vec<Faithfulness>,
}

/// The content words of a text, stemmed, in order and with repetitions.
pub fn content_words(text: &str) -> Vec<String> {
    let text = without_citations(text).to_lowercase();
    static FUNCTION: LazyLock<HashSet<&str>> = LazyLock::new(|| FUNCTION_WORDS.split(' ').collect());
    let text = NEGATIONS.replace_all(&text, " ");
    let text = spaced(&text);
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.filter(|word| !FUNCTION.contains(word)).map(porter::stem).collect()
}

/// Whether a text stands in one of the contexts, both normalised, as whole words: 0 or 1; `None` where nothing of the
/// text is left after normalising. With gold answers as texts this says whether retrieval brought the answer.
pub fn presence(text: &str, contexts: &[impl AsRef<str>]) -> Option<f64> {
    let plain = |text: &str| normalise(&spaced(&fold(text)));
    let text = plain(&without_citations(text));
    let padded = |text: &str| format!(" {text} ");
    let holds = |context: &str| padded(&plain(context)).contains(&padded(&text));
    (!text.is_empty()).then(|| f64::from(contexts.iter().any(|context| holds(context.as_ref()))))
}

/// Everything about one answer.
pub fn score(grounded: &Grounded) -> Faithfulness {
    let Grounded { answer, contexts, gold_ids } = grounded;
    let vocabularies: Vec<HashSet<String>> =
        contexts.iter().map(|passage| content_words(&passage.text).into_iter().collect()).collect();
    let texts: Vec<&str> = contexts.iter().map(|passage| passage.text.as_str()).collect();
    let (mut content, mut found) = (0, 0);
    let (mut cited_content, mut cited_found) = (0, 0);
    let sentences = sentences(answer);
    let mut with_citation = 0;
    for sentence in &sentences {
        let words = content_words(sentence);
        content += words.len();
        found += words.iter().filter(|w| vocabularies.iter().any(|v| v.contains(*w))).count();
        let cited = citations(sentence);
        if cited.is_empty() {
            continue;
        }
        with_citation += 1;
        cited_content += words.len();
        // A passage that was not shown supports nothing.
        let cited: Vec<&HashSet<String>> =
            cited.iter().filter_map(|n| vocabularies.get(n.checked_sub(1)?)).collect();
        cited_found += words.iter().filter(|w| cited.iter().any(|v| v.contains(*w))).count();
    }
    let (citation_precision, citation_recall) = citation_scores(grounded, gold_ids);
    Faithfulness {
        support: share(found, content),
        cited_support: share(cited_found, cited_content),
        cited_sentences: share(with_citation, sentences.len()),
        present: presence(answer, &texts),
        citation_precision,
        citation_recall,
    }
}

fn citation_scores(grounded: &Grounded, gold_ids: &[String]) -> (Option<f64>, Option<f64>) {
    let gold: HashSet<&str> = gold_ids.iter().map(String::as_str).collect();
    if gold.is_empty() {
        return (None, None);
    }
    let cited = citations(&grounded.answer);
    let id = |n: &usize| Some(grounded.contexts.get(n.checked_sub(1)?)?.id.as_str());
    let right = cited.iter().filter(|n| id(n).is_some_and(|id| gold.contains(id))).count();
    // Two chunks may carry one id.
    let reached: HashSet<&str> = cited.iter().filter_map(id).filter(|id| gold.contains(id)).collect();
    (share(right, cited.len()), share(reached.len(), gold.len()))
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Scores a corpus.
///
/// # Errors
/// [`Error::NoExamples`].
pub fn corpus(answers: &[Grounded]) -> Result<FaithfulnessScores> {
    if answers.is_empty() {
        return Err(Error::NoExamples);
    }
    let each: Vec<Faithfulness> = answers.par_iter().map(score).collect();
    let mean = |field: fn(&Faithfulness) -> Option<f64>| {
        let values: Vec<f64> = each.iter().filter_map(field).collect();
        Mean { mean: (!values.is_empty()).then(|| crate::text::mean(&values)), count: values.len() }
    };
    Ok(FaithfulnessScores {
        support: mean(|f| f.support),
        cited_support: mean(|f| f.cited_support),
        cited_sentences: mean(|f| f.cited_sentences),
        present: mean(|f| f.present),
        citation_precision: mean(|f| f.citation_precision),
        citation_recall: mean(|f| f.citation_recall),
        each,
    })
}

/// How far an answer's sentences follow from their contexts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entailment {
    /// Per sentence, the best context's probability; 0 where none was compared.
    pub sentences: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// The least: one invented sentence shows here.
    pub min: f64,
    /// The share of sentences that reach the threshold.
    pub entailed: f64,
}

/// Gathers, per sentence of one answer (see [`sentences`]), the entailment probabilities it has with each context. A
/// sentence follows if any context entails it. `None` for an answer without sentences.
///
/// # Errors
/// [`Error::BadSetting`] for a probability or a threshold outside 0 to 1.
pub fn entailment(probabilities: &[Vec<f64>], threshold: f64) -> Result<Option<Entailment>> {
    let bad = |setting, got: f64| Error::BadSetting {
        setting,
        got: got.to_string(),
        remedy: "it lies between 0 and 1",
    };
    let is_share = |p: &f64| (0.0..=1.0).contains(p);
    if !is_share(&threshold) {
        return Err(bad("the entailment threshold", threshold));
    }
    if let Some(&p) = probabilities.iter().flatten().find(|p| !is_share(p)) {
        return Err(bad("an entailment probability", p));
    }
    let sentences: Vec<f64> = probabilities.iter().map(|p| p.iter().copied().fold(0.0, f64::max)).collect();
    let Some(entailed) = share(sentences.iter().filter(|p| **p >= threshold).count(), sentences.len()) else {
        return Ok(None);
    };
    let min = sentences.iter().copied().fold(1.0, f64::min);
    Ok(Some(Entailment { mean: crate::text::mean(&sentences), min, entailed, sentences }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grounded(answer: &str, contexts: &[(&str, &str)], gold: &[&str]) -> Grounded {
        Grounded {
            answer: answer.into(),
            contexts: contexts
                .iter()
                .map(|(id, text)| Passage { id: (*id).into(), text: (*text).into() })
                .collect(),
            gold_ids: gold.iter().map(|&id| id.into()).collect(),
        }
    }

    const CONTEXTS: [(&str, &str); 2] = [
        ("d1", "The Eiffel Tower was built in 1889 in Paris."),
        ("d2", "Berlin has 3.7 million inhabitants."),
    ];

    #[test]
    fn scripts_without_spaces_and_typography() {
        let present = |text: &str, context: &str| presence(text, &[context]);
        for (text, context) in [
            ("北京", "中国的首都是北京。"),
            ("東京", "日本の首都は「東京」です。"),
            ("กรุงเทพ", "เมืองหลวงของไทยคือกรุงเทพมหานคร"),
            ("1949年", "中华人民共和国成立于１９４９年。"),
            ("King\u{2019}s \u{201c}Speech\u{201d}", "The film \"King's Speech\" won."),
            ("1914\u{2013}1918", "The war of 1914-1918."),
            ("L'été", "C\u{2019}est « l\u{2019}été » ici."),
        ] {
            assert_eq!(present(text, context), Some(1.0), "{text}");
        }
        assert_eq!(present("上海", "中国的首都是北京。"), Some(0.0));
        assert_eq!(present("京北", "中国的首都是北京。"), Some(0.0));
        // Words of other scripts are words as ever.
        assert_eq!(present("art", "a party"), Some(0.0));
        let support = |answer: &str, context: &str| {
            let passage = Passage { id: "1".into(), text: context.into() };
            let grounded = Grounded { answer: answer.into(), contexts: vec![passage], gold_ids: vec![] };
            score(&grounded).support
        };
        assert_eq!(support("北京", "中国的首都是北京。"), Some(1.0));
        assert_eq!(support("北海", "中国的首都是北京。"), Some(0.5));
        assert_eq!(support("東京タワー", "東京タワーは高い"), Some(1.0));
        assert_eq!(support("上海", "เมืองหลวง"), Some(0.0));
    }

    #[test]
    fn contractions_are_no_content() {
        assert_eq!(
            content_words("Don't ask: she'll say it isn't Don's, we've won’t."),
            ["ask", "say", "don"]
        );
    }

    #[test]
    fn support_counts_content_words_where_they_are_cited() {
        // Content: eiffel, towers (as tower), built, 1890 | berlin, inhabitant, moon.
        let answer = "The Eiffel Towers built 1890 [1]. Berlin inhabitant moon [1].";
        let got = score(&grounded(answer, &CONTEXTS, &["d1", "d2"]));
        assert_eq!(got.support, Some(5.0 / 7.0));
        assert_eq!(got.cited_support, Some(3.0 / 7.0));
        assert_eq!(got.cited_sentences, Some(1.0));
        assert_eq!((got.citation_precision, got.citation_recall), (Some(1.0), Some(0.5)));
        assert_eq!(got.present, Some(0.0));
    }

    #[test]
    fn what_cannot_be_said_is_none() {
        let got = score(&grounded("", &CONTEXTS, &[]));
        assert_eq!(
            got,
            Faithfulness {
                support: None,
                cited_support: None,
                cited_sentences: None,
                present: None,
                citation_precision: None,
                citation_recall: None,
            }
        );
        let got = score(&grounded("It is the.", &[], &["d1"]));
        assert_eq!((got.support, got.present), (None, Some(0.0)));
        assert_eq!((got.citation_precision, got.citation_recall), (None, Some(0.0)));
        let all = corpus(&[grounded("", &CONTEXTS, &[]), grounded("Berlin [2]", &CONTEXTS, &[])]).unwrap();
        assert_eq!(all.support, Mean { mean: Some(1.0), count: 1 });
        assert_eq!(all.citation_recall, Mean { mean: None, count: 0 });
        assert!(matches!(corpus(&[]), Err(Error::NoExamples)));
    }

    #[test]
    fn citations_of_passages_never_shown_are_wrong() {
        let got = score(&grounded("Berlin [2][9][0].", &CONTEXTS, &["d2"]));
        assert_eq!((got.citation_precision, got.citation_recall), (Some(1.0 / 3.0), Some(1.0)));
        assert_eq!(got.cited_support, Some(1.0));
        assert_eq!(score(&grounded("Berlin [9]", &CONTEXTS, &[])).cited_support, Some(0.0));
    }

    #[test]
    fn presence_is_of_whole_words() {
        let texts = CONTEXTS.map(|(_, text)| text);
        assert_eq!(presence("eiffel tower!", &texts), Some(1.0));
        assert_eq!(presence("A 37 Million [2]", &texts), Some(1.0));
        assert_eq!(presence("fel tower", &texts), Some(0.0));
        assert_eq!(presence("the ...", &texts), None);
    }

    #[test]
    fn the_best_context_entails() {
        let got = entailment(&[vec![0.1, 0.9], vec![0.2], vec![]], 0.5).unwrap().unwrap();
        assert_eq!(got.sentences, [0.9, 0.2, 0.0]);
        assert!((got.mean - 1.1 / 3.0).abs() < 1e-12);
        assert_eq!((got.min, got.entailed), (0.0, 1.0 / 3.0));
        assert_eq!(entailment(&[], 0.5).unwrap(), None);
        assert!(entailment(&[vec![f64::NAN]], 0.5).is_err());
        assert!(entailment(&[], 50.0).is_err());
    }
}
