//! Tasks with answers to choose from, made of the same facts: what a generator can learn from few examples.
//!
//! Not part of the committed files; `--tasks DIR` writes them. The splits are those of the passages. Every record shows
//! passages (`contexts`) and is about them alone, so that reading, not knowing, is what is measured.
//!
//! | task | asked | choices |
//! |---|---|---|
//! | `direct` | a question in the passage's words | values |
//! | `paraphrase` | a question in other words | values |
//! | `conversational` | a short, spoken question | values |
//! | `keyword` | a keyword query | values |
//! | `described` | a question with the by-name for the name | values |
//! | `cloze` | a sentence with a gap | values |
//! | `kind` | what the passage is about | four kinds |
//! | `name` | whom or what the passage is about | names of its kind |
//! | `title` | what fits as its title | titles of passages of its kind |
//! | `alias` | what else it is called | by-names of its kind |
//! | `which` | of two passages, which one has a value | the two names |
//! | `verify` | whether a sentence is true | true, false |
//! | `relevant` | whether a passage answers a question | yes, no |
//!
//! The tasks about values name their choices in the question, in the order of the record. Of four values one is right; what else the passage states is wrong, and the rest are values of the same relation
//! elsewhere.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::Dataset;
use crate::names;
use crate::prose::{self, Passage};
use crate::splits::Split;
use crate::world::{Entity, Fact};

/// The tasks, in the order of the table above.
pub const TASKS: &[&str] = &[
    "direct",
    "paraphrase",
    "conversational",
    "keyword",
    "described",
    "cloze",
    "kind",
    "name",
    "title",
    "alias",
    "which",
    "verify",
    "relevant",
];

/// Those whose choices are values.
const VALUES: &[&str] = &["direct", "paraphrase", "conversational", "keyword", "described", "cloze"];

/// Choices of a record, where there are not two by nature.
const CHOICES: usize = 4;

const GAP: &str = "Fill the gap: ";

struct Maker<'d> {
    data: &'d Dataset,
    split: Split,
    /// Passages of the split.
    members: Vec<usize>,
}

/// All files, as path below a directory and content: records with choices of each task and split, and questions with
/// passages and answers for the generator that they start from.
pub fn render(data: &Dataset) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for split in Split::ALL {
        let members = (0..data.passages.len()).filter(|&at| data.splits[at] == split).collect();
        let maker = Maker { data, split, members };
        files.push((format!("base.{}.rag.jsonl", split.name()), maker.base()));
        for task in TASKS {
            files.push((format!("{task}.{}.jsonl", split.name()), maker.task(task)));
        }
    }
    files
}

impl Maker<'_> {
    /// Questions with their golden passages, and sentences with a gap: with them a model learns to read sooner.
    fn base(&self) -> String {
        let mut rows = Vec::new();
        for q in self.data.questions.iter().filter(|q| q.split == self.split && q.style != "comparison") {
            rows.push(self.question(&q.id, &q.text, q.gold[0], &q.answers));
        }
        let mut rng = self.data.world.keyed(&["base", self.split.name()]);
        for &at in &self.members {
            for fact in &self.data.passages[at].facts {
                let text = format!("{GAP}{}", self.stated(at, fact, "____", &mut rng));
                rows.push(self.question(&format!("gap-{}", fact.id), &text, at, &fact.answers));
            }
        }
        // A dev set of the first so many is of both.
        rows.shuffle(&mut rng);
        rows.concat()
    }

    fn question(&self, id: &str, text: &str, gold: usize, answers: &[String]) -> String {
        let (contexts, gold) = ([self.context(gold)], [&self.data.passages[gold].id]);
        let row = json!({"id": id, "question": text, "answers": answers, "contexts": contexts, "gold": gold});
        format!("{row}\n")
    }

    fn context(&self, at: usize) -> Value {
        let p = &self.data.passages[at];
        json!({"id": p.id, "text": p.text})
    }

    fn name(&self, passage: &Passage) -> &str {
        names::bare(&self.data.world.entities[passage.entity].name)
    }

    /// A record of a task about each passage, where one can be made.
    fn task(&self, task: &&str) -> String {
        let mut order = self.members.clone();
        let mut rng = self.data.world.keyed(&["task", task, self.split.name()]);
        order.shuffle(&mut rng);
        let mut out = String::new();
        for at in order {
            let made = match *task {
                "direct" | "paraphrase" | "conversational" | "keyword" | "described" => {
                    self.answer(at, task, &mut rng)
                }
                "cloze" => self.cloze(at, &mut rng),
                "kind" => self.kind(at, &mut rng),
                "name" => self.about(at, &mut rng),
                "title" => self.title(at, &mut rng),
                "alias" => self.alias(at, &mut rng),
                "which" => self.which(at, &mut rng),
                "verify" => self.verify(at, &mut rng),
                _ => self.relevant(at, &mut rng),
            };
            let Some((mut question, passages, mut choices)) = made else { continue };
            let right = choices[0].clone();
            choices.shuffle(&mut rng);
            let answer = choices.iter().position(|c| *c == right);
            if VALUES.contains(task) {
                let (last, others) = choices.split_last().expect("there are choices");
                question.push_str(&format!(" Is it {} or {last}?", others.join(", ")));
            }
            let contexts: Vec<Value> = passages.iter().map(|&at| self.context(at)).collect();
            let id = format!("{task}-{}", self.data.passages[at].id);
            let row = json!({
                "id": id, "task": task, "question": question, "contexts": contexts, "choices": choices, "answer": answer,
            });
            out.push_str(&format!("{row}\n"));
        }
        out
    }

    /// The first answers of other passages for the same relation, without what this passage holds.
    fn others(&self, at: usize, fact: &Fact, rng: &mut ChaCha8Rng) -> Option<Vec<String>> {
        let passage = &self.data.passages[at];
        let kind = self.data.world.entities[passage.entity].kind;
        let same =
            |p: &&Passage| self.data.world.entities[p.entity].kind == kind && p.aspect == passage.aspect;
        let mut found: Vec<String> = Vec::new();
        let mut all: Vec<&Passage> = self.data.passages.iter().filter(same).collect();
        all.shuffle(rng);
        for value in all.iter().flat_map(|p| &p.facts).filter(|f| f.relation == fact.relation) {
            let value = &value.answers[0];
            if !passage.text.contains(value.as_str()) && *value != fact.answers[0] && !found.contains(value) {
                found.push(value.clone());
            }
        }
        found.truncate(CHOICES - 1);
        (found.len() == CHOICES - 1).then_some(found)
    }

    fn fact(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<&Fact> {
        let passage = &self.data.passages[at];
        let stated = |f: &&Fact| passage.text.contains(f.answers[0].as_str());
        passage.facts.iter().filter(stated).collect::<Vec<_>>().choose(rng).copied()
    }

    /// The right value, others that the passage states, and values of the same relation from elsewhere.
    fn values(&self, at: usize, fact: &Fact, rng: &mut ChaCha8Rng) -> Option<Vec<String>> {
        let passage = &self.data.passages[at];
        let mut choices = vec![fact.answers[0].clone()];
        for value in passage.facts.iter().map(|f| &f.answers[0]) {
            if !choices.contains(value) {
                choices.push(value.clone());
            }
        }
        choices.extend(self.others(at, fact, rng)?);
        choices.truncate(CHOICES);
        Some(choices)
    }

    /// A question about a fact, in words of all splits.
    fn asked(&self, at: usize, fact: &Fact, style: &str, rng: &mut ChaCha8Rng) -> String {
        let passage = &self.data.passages[at];
        let relation = &prose::aspect_of(&self.data.world, passage).relations[fact.relation];
        let entity = &self.data.world.entities[passage.entity];
        let group = match style {
            "direct" => &relation.ask,
            "keyword" => &relation.key,
            "conversational" => &relation.chat,
            "paraphrase" => &relation.par,
            _ => [&relation.ask, &relation.par][rng.random_range(0..2)],
        };
        let name = if style == "described" { &entity.alias } else { &entity.name };
        let template = names::choose(group.seen.choose(rng).map_or("", String::as_str), rng);
        let text = prose::tidy(&template.replace("{n}", name));
        match style {
            "keyword" => text.to_lowercase(),
            "conversational" => text,
            _ => names::capitalise(&text),
        }
    }

    /// A sentence that states a relation with this value.
    fn stated(&self, at: usize, fact: &Fact, value: &str, rng: &mut ChaCha8Rng) -> String {
        let passage = &self.data.passages[at];
        let relation = &prose::aspect_of(&self.data.world, passage).relations[fact.relation];
        let name = &self.data.world.entities[passage.entity].name;
        let say = names::choose(relation.say.choose(rng).map_or("", String::as_str), rng);
        let say = say.replace("{s}", name).replace("{n}", name).replace("{p}", &format!("{name}'s"));
        let say = say.replace("{his}", "its").replace("{he}", "it").replace("{v}", value);
        names::capitalise(&prose::tidy(&say))
    }

    fn answer(&self, at: usize, style: &str, rng: &mut ChaCha8Rng) -> Option<Made> {
        if style == "described" && !self.data.passages[at].tells_alias {
            return None;
        }
        let fact = self.fact(at, rng)?;
        let choices = self.values(at, fact, rng)?;
        Some((self.asked(at, fact, style, rng), vec![at], choices))
    }

    fn cloze(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let fact = self.fact(at, rng)?;
        let choices = self.values(at, fact, rng)?;
        Some((format!("{GAP}{}", self.stated(at, fact, "____", rng)), vec![at], choices))
    }

    fn kind(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let noun = |kind: usize| self.data.world.kinds[kind].noun.clone();
        let own = self.data.world.entities[self.data.passages[at].entity].kind;
        let mut others: Vec<usize> = (0..self.data.world.kinds.len()).filter(|&k| k != own).collect();
        others.shuffle(rng);
        let mut choices = vec![noun(own)];
        choices.extend(others.into_iter().take(CHOICES - 1).map(noun));
        Some(("What kind of thing is this about?".into(), vec![at], choices))
    }

    /// Another passage of the split about another thing of the same kind.
    fn sibling(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<usize> {
        let world = &self.data.world;
        let of = |at: usize| &self.data.passages[at];
        let kind = world.entities[of(at).entity].kind;
        let fits = |&&other: &&usize| {
            world.entities[of(other).entity].kind == kind
                && of(other).entity != of(at).entity
                && of(other).aspect == of(at).aspect
        };
        self.members.iter().filter(fits).collect::<Vec<_>>().choose(rng).map(|&&other| other)
    }

    /// What things of a passage's kind are called in some way, its own thing first; none of the others is in the passage.
    fn called(&self, at: usize, way: fn(&Entity) -> &str, rng: &mut ChaCha8Rng) -> Vec<String> {
        let passage = &self.data.passages[at];
        let own = &self.data.world.entities[passage.entity];
        let mut others: Vec<&str> = (self.data.world.entities.iter())
            .filter(|e| e.kind == own.kind && !passage.text.contains(way(e)))
            .map(way)
            .collect();
        others.shuffle(rng);
        let others = others.into_iter().filter(|o| *o != way(own)).take(CHOICES - 1);
        [way(own)].into_iter().chain(others).map(str::to_string).collect()
    }

    fn about(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let choices = self.called(at, |e| names::bare(&e.name), rng);
        Some(("What is the name of the subject?".into(), vec![at], choices))
    }

    fn alias(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let told = self.data.passages[at].tells_alias;
        told.then(|| ("What else is it called?".into(), vec![at], self.called(at, |e| &e.alias, rng)))
    }

    fn title(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let passage = &self.data.passages[at];
        // Some titles name the aspect only.
        if !passage.title.to_lowercase().contains(&self.name(passage).to_lowercase()) {
            return None;
        }
        let names = self.called(at, |e| names::bare(&e.name), rng);
        let titles = names.iter().map(|n| passage.title.replace(names[0].as_str(), n));
        let choices: Vec<String> = titles.collect();
        let all_differ = (1..choices.len()).all(|i| !choices[..i].contains(&choices[i]));
        all_differ.then(|| ("What title fits the passage?".into(), vec![at], choices))
    }

    fn which(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let fact = self.fact(at, rng)?;
        let other = self.sibling(at, rng)?;
        let (passage, rival) = (&self.data.passages[at], &self.data.passages[other]);
        if rival.text.contains(fact.answers[0].as_str()) {
            return None;
        }
        let relation = &prose::aspect_of(&self.data.world, passage).relations[fact.relation];
        let clause = names::choose(relation.who.choose(rng).map_or("", String::as_str), rng);
        let noun = &self.data.world.kind_of(passage.entity).noun;
        let question = format!("Which is the {noun} {}?", clause.replace("{v}", &fact.value));
        let mut shown = vec![at, other];
        shown.shuffle(rng);
        let choices = vec![self.name(passage).to_string(), self.name(rival).to_string()];
        Some((prose::tidy(&question), shown, choices))
    }

    fn verify(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let fact = self.fact(at, rng)?;
        let others = self.others(at, fact, rng)?;
        let is_true = rng.random_bool(0.5);
        let value = if is_true { fact.answers[0].as_str() } else { others[0].as_str() };
        let question = format!("True or false? {}", self.stated(at, fact, value, rng));
        Some((question, vec![at], two(is_true, "true", "false")))
    }

    fn relevant(&self, at: usize, rng: &mut ChaCha8Rng) -> Option<Made> {
        let fact = self.fact(at, rng)?;
        let other = self.sibling(at, rng)?;
        let is_own = rng.random_bool(0.5);
        let question = format!("Does the passage answer this? {}", self.asked(at, fact, "", rng));
        Some((question, vec![if is_own { at } else { other }], two(is_own, "yes", "no")))
    }
}

/// What is asked, the passages shown, and the choices, the right one first.
type Made = (String, Vec<usize>, Vec<String>);

fn two(first: bool, yes: &str, no: &str) -> Vec<String> {
    let (yes, no) = (yes.to_string(), no.to_string());
    if first { vec![yes, no] } else { vec![no, yes] }
}
