//! Questions about the facts of the passages, in seven styles, each unambiguous by construction.

use std::collections::{HashMap, HashSet};

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::check;
use crate::kinds::{Phrasings, Relation, Value};
use crate::names;
use crate::prose::{self, Passage};
use crate::splits::Split;
use crate::world::{Fact, World};

/// A question with its gold passages and answers.
#[derive(Debug, Clone)]
pub struct Question {
    /// Query id.
    pub id: String,
    /// Text of the question.
    pub text: String,
    /// One of [`STYLES`].
    pub style: &'static str,
    /// Whether the train split uses this phrasing too.
    pub seen: bool,
    /// Facts that the answer rests on.
    pub facts: Vec<String>,
    /// Accepted answers, the first verbatim in a gold passage.
    pub answers: Vec<String>,
    /// Indices of the gold passages.
    pub gold: Vec<usize>,
    /// The split.
    pub split: Split,
}

/// The styles, as recorded in the metadata of each query.
pub const STYLES: &[&str] =
    &["direct", "paraphrase", "described", "keyword", "conversational", "two-fact", "comparison"];

/// How often each style is the one question of a fact.
const SHARES: &[(&str, u32)] =
    &[("direct", 24), ("paraphrase", 27), ("described", 20), ("keyword", 11), ("conversational", 18)];
const GREETINGS: &[&str] = &["", "", "ok so ", "quick question: ", "hey, ", "hm, ", "wait, ", "tell me, "];

/// Passages may be compared if they share kind, aspect, fact and split.
type Comparable = (usize, usize, usize, Split);

struct Asker<'w> {
    world: &'w World,
    passages: &'w [Passage],
    splits: &'w [Split],
    /// How many entities of a kind (index) share a value of a relation (id).
    singles: HashMap<(usize, &'w str, &'w str), usize>,
    taken: HashSet<String>,
    out: Vec<Question>,
}

/// All questions, in the order of their passages.
pub fn questions(world: &World, passages: &[Passage], splits: &[Split]) -> Vec<Question> {
    let mut singles = HashMap::new();
    for passage in passages {
        for fact in &passage.facts {
            let relation = &prose::aspect_of(world, passage).relations[fact.relation];
            let key = (world.entities[passage.entity].kind, relation.id.as_str(), fact.value.as_str());
            *singles.entry(key).or_insert(0) += 1;
        }
    }
    let mut asker = Asker { world, passages, splits, singles, taken: HashSet::new(), out: Vec::new() };
    for (index, passage) in passages.iter().enumerate() {
        let mut rng = world.keyed(&["questions", &passage.id]);
        asker.about(index, &mut rng);
    }
    asker.comparisons();
    let mut out = asker.out;
    out.shuffle(&mut world.keyed(&["order of questions"]));
    for (number, question) in out.iter_mut().enumerate() {
        question.id = format!("q{number:04}");
    }
    out
}

impl<'w> Asker<'w> {
    fn about(&mut self, index: usize, rng: &mut ChaCha8Rng) {
        let passage = &self.passages[index];
        for which in 0..passage.facts.len() {
            let style = weighted(rng);
            self.single(index, which, style, rng);
            if rng.random_bool(0.1) {
                let again = weighted(rng);
                if again != style {
                    self.single(index, which, again, rng);
                }
            }
        }
        if rng.random_bool(0.14) {
            self.two_facts(index, rng);
        }
    }

    /// A question for one fact; a description that does not exist falls back to a paraphrase.
    fn single(&mut self, index: usize, which: usize, style: &'static str, rng: &mut ChaCha8Rng) {
        let (world, passage) = (self.world, &self.passages[index]);
        let relation = self.relation(passage, which);
        let me = &world.entities[passage.entity];
        for _ in 0..8 {
            let (style, subject) = match style {
                "described" => match self.description(passage, which, rng) {
                    Some(description) => ("described", description),
                    None => ("paraphrase", me.name.clone()),
                },
                other => (other, me.name.clone()),
            };
            let group = match style {
                "direct" => &relation.ask,
                "keyword" => &relation.key,
                "conversational" => &relation.chat,
                "described" if rng.random_bool(0.15) => &relation.ask,
                _ => &relation.par,
            };
            let (template, seen) = phrase(group, self.splits[index], rng);
            let text = match style {
                "keyword" => template.replace("{n}", names::bare(&subject)).to_lowercase(),
                "conversational" => {
                    let greeting = GREETINGS.choose(rng).copied().unwrap_or_default();
                    format!("{greeting}{}", template.replace("{n}", &subject))
                }
                _ => names::capitalise(&template.replace("{n}", &subject)),
            };
            let fact = &passage.facts[which];
            let (facts, answers) = (vec![fact.id.clone()], fact.answers.clone());
            if self.push(text, style, seen, facts, answers, vec![index]) {
                return;
            }
        }
    }

    /// Picks the entity out without its name, by its by-name or by other facts of the same passage. Names of
    /// people would give it away to word overlap, so they serve only in pairs.
    fn description(&self, passage: &Passage, which: usize, rng: &mut ChaCha8Rng) -> Option<String> {
        if passage.tells_alias && rng.random_bool(0.65) {
            return Some(self.world.entities[passage.entity].alias.clone());
        }
        let noun = &self.world.kind_of(passage.entity).noun;
        let mut others: Vec<usize> = (0..passage.facts.len()).filter(|&other| other != which).collect();
        others.shuffle(rng);
        let clause = |fact: usize, rng: &mut ChaCha8Rng| self.clause(passage, fact, rng);
        let plain = |fact: usize| !matches!(self.relation(passage, fact).value, Value::Person);
        if let Some(&only) =
            others.iter().find(|&&other| plain(other) && self.shared_by(passage, &[other]) == 1)
        {
            return Some(format!("the {noun} {}", clause(only, rng)));
        }
        if others.len() >= 2 && self.shared_by(passage, &others[..2]) == 1 {
            return Some(format!("the {noun} {}", both(clause(others[0], rng), clause(others[1], rng))));
        }
        passage.tells_alias.then(|| self.world.entities[passage.entity].alias.clone())
    }

    fn two_facts(&mut self, index: usize, rng: &mut ChaCha8Rng) {
        let passage = &self.passages[index];
        let mut order: Vec<usize> = (0..passage.facts.len()).collect();
        order.shuffle(rng);
        let pair = &order[..2.min(order.len())];
        if pair.len() < 2 || self.shared_by(passage, pair) != 1 {
            return;
        }
        let noun = &self.world.kind_of(passage.entity).noun;
        let both = both(self.clause(passage, pair[0], rng), self.clause(passage, pair[1], rng));
        let group = Phrasings {
            seen: vec![format!("What is the name of the {noun} {both}?"), format!("Name the {noun} {both}.")],
            unseen: vec![format!("Which is the {noun} {both}?")],
        };
        let (text, seen) = phrase(&group, self.splits[index], rng);
        let facts = pair.iter().map(|&fact| passage.facts[fact].id.clone()).collect();
        let name = &self.world.entities[passage.entity].name;
        let mut answers = vec![names::bare(name).to_string()];
        if answers[0] != *name {
            answers.push(name.clone());
        }
        self.push(text, "two-fact", seen, facts, answers, vec![index]);
    }

    /// Pairs of passages of one split whose numbers for the same relation differ clearly.
    fn comparisons(&mut self) {
        let mut groups: Vec<(Comparable, Vec<usize>)> = Vec::new();
        for (index, passage) in self.passages.iter().enumerate() {
            for (which, fact) in passage.facts.iter().enumerate() {
                if self.relation(passage, which).compare.seen.is_empty() || fact.number.is_none() {
                    continue;
                }
                let key =
                    (self.world.entities[passage.entity].kind, passage.aspect, which, self.splits[index]);
                match groups.iter_mut().find(|(other, _)| *other == key) {
                    Some((_, members)) => members.push(index),
                    None => groups.push((key, vec![index])),
                }
            }
        }
        for ((_, _, which, split), mut members) in groups {
            let first = &self.passages[members[0]];
            let mut rng = self.world.keyed(&["comparison", &first.id, &which.to_string()]);
            members.shuffle(&mut rng);
            let wanted = if split == Split::Train { 5 } else { 2 };
            for pair in members.chunks_exact(2).take(wanted) {
                self.compare(pair, which, &mut rng);
            }
        }
    }

    fn compare(&mut self, pair: &[usize], which: usize, rng: &mut ChaCha8Rng) {
        let (a, b) = (&self.passages[pair[0]], &self.passages[pair[1]]);
        let relation = self.relation(a, which);
        let (Some(x), Some(y)) = (a.facts[which].number, b.facts[which].number) else { return };
        if x == y {
            return;
        }
        let (template, seen) = phrase(&relation.compare, self.splits[pair[0]], rng);
        let name = |passage: &Passage| self.world.entities[passage.entity].name.clone();
        let text = names::capitalise(&template.replace("{a}", &name(a)).replace("{b}", &name(b)));
        let winner = if (x > y) == relation.larger_wins { name(a) } else { name(b) };
        let mut answers = vec![names::bare(&winner).to_string()];
        if answers[0] != winner {
            answers.push(winner);
        }
        let facts = vec![a.facts[which].id.clone(), b.facts[which].id.clone()];
        self.push(text, "comparison", seen, facts, answers, pair.to_vec());
    }

    fn relation(&self, passage: &Passage, which: usize) -> &'w Relation {
        &prose::aspect_of(self.world, passage).relations[passage.facts[which].relation]
    }

    fn clause(&self, passage: &Passage, which: usize, rng: &mut ChaCha8Rng) -> String {
        let clause = self.relation(passage, which).who.choose(rng).map_or("", String::as_str);
        let value: &Fact = &passage.facts[which];
        names::choose(clause, rng).replace("{v}", &value.value)
    }

    /// How many entities of the kind have all these values; one means that they pick the entity out.
    fn shared_by(&self, passage: &Passage, which: &[usize]) -> usize {
        let kind = self.world.entities[passage.entity].kind;
        if let [only] = which {
            let relation = self.relation(passage, *only);
            return self.singles[&(kind, relation.id.as_str(), passage.facts[*only].value.as_str())];
        }
        let alike = |other: &Passage| {
            self.world.entities[other.entity].kind == kind
                && other.aspect == passage.aspect
                && which.iter().all(|&fact| other.facts[fact].value == passage.facts[fact].value)
        };
        self.passages.iter().filter(|other| alike(other)).count()
    }

    fn push(
        &mut self,
        text: String,
        style: &'static str,
        seen: bool,
        facts: Vec<String>,
        answers: Vec<String>,
        gold: Vec<usize>,
    ) -> bool {
        let text = prose::tidy(&text);
        if !self.taken.insert(text.to_lowercase()) {
            return false;
        }
        // A name in lower case may only ever open sentences of its passage: then it does not occur verbatim.
        if !gold.iter().any(|&gold| check::holds(&self.passages[gold].text, &answers[0])) {
            return false;
        }
        let split = self.splits[gold[0]];
        self.out.push(Question { id: String::new(), text, style, seen, facts, answers, gold, split });
        true
    }
}

/// Two clauses about one entity: a participle comes before a relative clause, without "and".
fn both(first: String, second: String) -> String {
    const RELATIVE: &[&str] = &["that", "who", "whose", "which", "where", "from", "in", "for"];
    let relative = |clause: &str| RELATIVE.contains(&clause.split(' ').next().unwrap_or_default());
    match (relative(&first), relative(&second)) {
        (true, false) => format!("{second} {first}"),
        (false, true) => format!("{first} {second}"),
        _ => format!("{first} and {second}"),
    }
}

fn weighted(rng: &mut ChaCha8Rng) -> &'static str {
    SHARES.choose_weighted(rng, |share| share.1).map_or("direct", |share| share.0)
}

/// A phrasing for a split: train sees only the shared ones, dev and test half of each.
fn phrase(group: &Phrasings, split: Split, rng: &mut ChaCha8Rng) -> (String, bool) {
    let unseen = split != Split::Train && !group.unseen.is_empty() && rng.random_bool(0.5);
    let from = if unseen { &group.unseen } else { &group.seen };
    let template = from.choose(rng).map_or("", String::as_str);
    (names::choose(template, rng), !unseen)
}
