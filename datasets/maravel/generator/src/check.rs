//! Whether the dataset keeps its promises: one passage per fact, verbatim answers, splits that share nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use crate::Dataset;
use crate::bm25::{Bm25, tokens};
use crate::names;
use crate::prose::{self, Passage};
use crate::questions::{Question, STYLES};
use crate::splits::Split;
use crate::world::World;

const STOPWORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "an", "and", "any", "are", "as", "at", "be", "been", "before",
    "being", "by", "can", "did", "do", "does", "for", "from", "get", "got", "had", "has", "have", "he",
    "her", "hey", "him", "his", "hm", "how", "i", "in", "into", "is", "it", "its", "like", "may", "me",
    "more", "most", "much", "must", "name", "no", "not", "of", "off", "ok", "on", "one", "or", "out", "over",
    "question", "quick", "s", "d", "ll", "re", "she", "so", "tell", "than", "that", "the", "their", "them",
    "there", "they", "this", "to", "up", "wait", "was", "were", "what", "when", "where", "which", "who",
    "whom", "whose", "why", "will", "with", "would", "you",
];

/// Pairs (fact's passage, other passage) where the other passage names the entity and contains the answer, so
/// that a reader might take it for a statement of the fact.
pub fn accidental(world: &World, passages: &[Passage]) -> Vec<(usize, usize)> {
    let padded: Vec<String> = passages.iter().map(|passage| pad(&passage.text)).collect();
    let mut by_word: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, text) in padded.iter().enumerate() {
        let words: HashSet<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        for word in words {
            by_word.entry(word).or_default().push(index);
        }
    }
    let mut bad = Vec::new();
    for (gold, passage) in passages.iter().enumerate() {
        let me = &world.entities[passage.entity];
        for name in [&me.name, &me.alias] {
            let name = pad(names::bare(name));
            let rarest = name.split(' ').filter(|word| !word.is_empty()).filter_map(|word| by_word.get(word));
            let Some(mentions) = rarest.min_by_key(|list| list.len()) else { continue };
            for &other in mentions.iter().filter(|&&other| other != gold && padded[other].contains(&name)) {
                if passage.facts.iter().any(|fact| padded[other].contains(&pad(&fact.answers[0]))) {
                    bad.push((gold, other));
                }
            }
        }
    }
    bad
}

/// Everything that is wrong, in words; empty if the dataset is sound.
pub fn problems(data: &Dataset) -> Vec<String> {
    let mut out = Vec::new();
    passages_sound(data, &mut out);
    questions_sound(data, &mut out);
    descriptions_sound(data, &mut out);
    for (gold, other) in accidental(&data.world, &data.passages) {
        let ids = (&data.passages[gold].id, &data.passages[other].id);
        out.push(format!("{} may state a fact of {}", ids.1, ids.0));
    }
    let overlap = overlap(data, "paraphrase");
    if overlap > 0.35 {
        out.push(format!(
            "paraphrases share {overlap:.2} of their words with the gold passage; at most 0.35"
        ));
    }
    out
}

fn passages_sound(data: &Dataset, out: &mut Vec<String>) {
    let (mut stated, mut texts) = (HashSet::new(), HashSet::new());
    for passage in &data.passages {
        let id = &passage.id;
        let length = prose::words(&passage.text);
        if !(prose::MIN_WORDS..=prose::MAX_WORDS).contains(&length) {
            out.push(format!("{id}: {length} words"));
        }
        if passage.text.contains(['{', '}', '[', ']', '|']) || passage.title.contains('{') {
            out.push(format!("{id}: an unfilled slot in `{}`", passage.text));
        }
        if !texts.insert(&passage.text) {
            out.push(format!("{id}: the text of another passage"));
        }
        for fact in &passage.facts {
            if !stated.insert(&fact.id) {
                out.push(format!("{id}: {} is stated twice", fact.id));
            }
            if !holds(&passage.text, &fact.answers[0]) {
                out.push(format!("{id}: does not contain `{}`", fact.answers[0]));
            }
        }
    }
}

fn questions_sound(data: &Dataset, out: &mut Vec<String>) {
    let (mut texts, mut fact_split, mut gold_split) = (HashSet::new(), HashMap::new(), HashMap::new());
    for question in &data.questions {
        let id = &question.id;
        if !texts.insert(question.text.to_lowercase()) {
            out.push(format!("{id}: asked twice: {}", question.text));
        }
        if question.text.contains(['{', '}', '[', ']', '|']) {
            out.push(format!("{id}: an unfilled slot in `{}`", question.text));
        }
        for fact in &question.facts {
            if *fact_split.entry(fact).or_insert(question.split) != question.split {
                out.push(format!("{id}: {fact} is in two splits"));
            }
        }
        for &gold in &question.gold {
            if *gold_split.entry(gold).or_insert(question.split) != question.split {
                out.push(format!("{id}: {} is gold in two splits", data.passages[gold].id));
            }
        }
        let answered = |&gold: &usize| holds(&data.passages[gold].text, &question.answers[0]);
        if !question.gold.iter().any(answered) {
            out.push(format!("{id}: no gold passage contains `{}`", question.answers[0]));
        }
        if !question.seen && question.split == Split::Train {
            out.push(format!("{id}: a held-out phrasing in train"));
        }
        let name = names::bare(&data.world.entities[data.passages[question.gold[0]].entity].name);
        let names_it = holds(&question.text.to_lowercase(), &name.to_lowercase());
        let by_description = ["described", "two-fact"].contains(&question.style);
        if question.style != "comparison" && names_it == by_description {
            out.push(format!("{id}: {} question, name given: {names_it}: {}", question.style, question.text));
        }
    }
}

/// A described entity must be the only one that fits. The descriptions are read back from the questions' texts:
/// no other entity of the kind may have as many facts whose clauses the question contains.
fn descriptions_sound(data: &Dataset, out: &mut Vec<String>) {
    let mut clauses: HashMap<usize, Vec<(usize, Vec<String>)>> = HashMap::new();
    for passage in &data.passages {
        for fact in &passage.facts {
            let who = &prose::aspect_of(&data.world, passage).relations[fact.relation].who;
            let told = who.iter().map(|clause| prose::tidy(&clause.replace("{v}", &fact.value))).collect();
            let kind = data.world.entities[passage.entity].kind;
            clauses.entry(kind).or_default().push((passage.entity, told));
        }
    }
    for question in data.questions.iter().filter(|q| ["described", "two-fact"].contains(&q.style)) {
        let gold = data.passages[question.gold[0]].entity;
        let kind = data.world.entities[gold].kind;
        let mut fits: HashMap<usize, usize> = HashMap::new();
        for (entity, told) in &clauses[&kind] {
            if told.iter().any(|clause| holds(&question.text, clause)) {
                *fits.entry(*entity).or_insert(0) += 1;
            }
        }
        let text = question.text.to_lowercase();
        for (index, entity) in data.world.entities.iter().enumerate() {
            if holds(&text, &names::bare(&entity.alias).to_lowercase()) {
                *fits.entry(index).or_insert(0) += 1;
            }
        }
        let best = fits.get(&gold).copied().unwrap_or(0);
        if best == 0 || fits.iter().any(|(&entity, &count)| entity != gold && count >= best) {
            out.push(format!(
                "{}: the description does not fit one entity alone: {}",
                question.id, question.text
            ));
        }
    }
}

/// Whether the dataset card carries the current table.
pub fn card_problem(data: &Dataset, card: &str) -> Option<String> {
    let report = report(data);
    let stale = report.lines().filter(|line| line.starts_with('|')).find(|line| !card.contains(line))?;
    Some(format!("README.md lacks the line `{stale}`; copy the table that this program prints"))
}

/// Whether `text` contains `phrase` between word boundaries.
pub fn holds(text: &str, phrase: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(phrase).any(|(at, found)| {
        edge(text[..at].chars().next_back()) && edge(text[at + found.len()..].chars().next())
    })
}

/// Lower-case words between single spaces, so that `contains` respects word boundaries.
fn pad(text: &str) -> String {
    format!(" {} ", tokens(text).join(" "))
}

/// Mean share of a style's content words, the entity's own words apart, that occur in the gold passage.
pub fn overlap(data: &Dataset, style: &str) -> f64 {
    let of_style: Vec<&Question> = data.questions.iter().filter(|question| question.style == style).collect();
    of_style.iter().map(|question| overlap_of(data, question)).sum::<f64>() / of_style.len().max(1) as f64
}

fn overlap_of(data: &Dataset, question: &Question) -> f64 {
    let mut gold_words = HashSet::new();
    let mut own = HashSet::new();
    for &gold in &question.gold {
        let passage = &data.passages[gold];
        let entity = &data.world.entities[passage.entity];
        gold_words.extend(tokens(&passage.text).iter().map(|word| stem(word)));
        own.extend(tokens(&entity.name).into_iter().chain(tokens(&entity.alias)));
    }
    let words = tokens(&question.text);
    let content: Vec<String> = words
        .iter()
        .filter(|word| !own.contains(*word) && !STOPWORDS.contains(&word.as_str()))
        .map(|word| stem(word))
        .collect();
    if content.is_empty() {
        return 0.0;
    }
    content.iter().filter(|word| gold_words.contains(*word)).count() as f64 / content.len() as f64
}

/// Cuts common endings, so that "burns" and "burned" count as one word.
fn stem(word: &str) -> String {
    let endings = ["ing", "ed", "es", "s", "e"];
    let cut = endings.iter().find_map(|end| word.strip_suffix(end).filter(|rest| rest.len() > 2));
    cut.unwrap_or(word).to_string()
}

/// The tables of the dataset card: sizes, and difficulty by style.
pub fn report(data: &Dataset) -> String {
    let mut out = String::new();
    let words: usize = data.passages.iter().map(|passage| prose::words(&passage.text)).sum();
    let (passages, entities) = (data.passages.len(), data.world.entities.len());
    let facts: usize = data.passages.iter().map(|passage| passage.facts.len()).sum();
    let mean = words as f64 / passages as f64;
    let _ = writeln!(
        out,
        "{entities} entities, {passages} passages of {mean:.0} words on average, {facts} facts\n"
    );
    let _ = writeln!(
        out,
        "| style | train | dev | test | overlap | BM25 nDCG@10 | BM25 top 1 |\n|---|---|---|---|---|---|---|"
    );
    let index = Bm25::new(data);
    let mut row = |label: &str, keep: &dyn Fn(&Question) -> bool, overlap: Option<f64>| {
        let of = |split| data.questions.iter().filter(|q| q.split == split && keep(q)).collect::<Vec<_>>();
        let [train, dev, test] = Split::ALL.map(of);
        let (ndcg, first) = index.score(&test);
        let overlap = overlap.map_or(String::new(), |overlap| format!("{overlap:.2}"));
        let counts = format!("{} | {} | {}", train.len(), dev.len(), test.len());
        let _ = writeln!(out, "| {label} | {counts} | {overlap} | {ndcg:.3} | {first:.3} |");
    };
    for style in STYLES {
        row(style, &|question| question.style == *style, Some(overlap(data, style)));
    }
    row("shared phrasings", &|question| question.seen, None);
    row("held-out phrasings", &|question| !question.seen, None);
    row("all", &|_| true, None);
    out
}
