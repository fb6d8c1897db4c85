//! The entities of the world and the values of their relations.
//!
//! Every draw comes from a generator keyed by what is drawn (`keyed`), so that adding a kind or redrawing one
//! passage leaves the rest of the world as it was.

use std::collections::HashSet;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kinds::{Aspect, Kind, Value};
use crate::names;

/// Something that has a name and passages.
#[derive(Debug, Clone)]
pub struct Entity {
    /// Index of its kind.
    pub kind: usize,
    /// Unique name, with its article if it takes one.
    pub name: String,
    /// Unique by-name.
    pub alias: String,
    /// Whether a person is a woman.
    pub female: bool,
    /// The year around which its dates fall.
    pub base: i32,
}

/// One stated relation.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Index of the relation within its aspect.
    pub relation: usize,
    /// `kind:number:relation`.
    pub id: String,
    /// The value as the passage writes it.
    pub value: String,
    /// Accepted answers; the first occurs verbatim in the passage.
    pub answers: Vec<String>,
    /// The value as a number, for comparisons.
    pub number: Option<i32>,
}

/// Kinds and entities.
#[derive(Debug)]
pub struct World {
    /// All kinds.
    pub kinds: Vec<Kind>,
    /// All entities, grouped by kind.
    pub entities: Vec<Entity>,
    seed: u64,
}

const MONTHS: &[&str] = &[
    "Ashmonth",
    "Brinemonth",
    "Larkmonth",
    "Sailmonth",
    "Goldmonth",
    "Eelmonth",
    "Fogmonth",
    "Wickmonth",
    "Thawmonth",
];

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> World {
        let mut world = World { kinds: crate::kinds::all(), entities: Vec::new(), seed };
        let mut taken = HashSet::new();
        for index in 0..world.kinds.len() {
            let kind = world.kinds[index].clone();
            let mut rng = world.keyed(&[&kind.id, "entities"]);
            for _ in 0..kind.count {
                let entity = new_entity(index, &kind, &mut taken, &mut rng);
                world.entities.push(entity);
            }
        }
        world
    }

    /// A generator for one purpose, independent of all others.
    pub fn keyed(&self, parts: &[&str]) -> ChaCha8Rng {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.seed;
        for byte in parts.join("/").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        ChaCha8Rng::seed_from_u64(hash)
    }

    /// The kind of an entity.
    pub fn kind_of(&self, entity: usize) -> &Kind {
        &self.kinds[self.entities[entity].kind]
    }

    /// Another entity of the kind `id`; with `era`, one old enough to have worked on `entity`.
    pub fn other(&self, entity: usize, id: &str, era: bool, rng: &mut ChaCha8Rng) -> &Entity {
        let me = &self.entities[entity];
        let all: Vec<&Entity> = (0..self.entities.len())
            .filter(|&other| other != entity && self.kind_of(other).id == id)
            .map(|other| &self.entities[other])
            .collect();
        let fit: Vec<&Entity> =
            all.iter().copied().filter(|other| (22..=60).contains(&(me.base - other.base))).collect();
        let from = if era && !fit.is_empty() { &fit } else { &all };
        from.choose(rng).copied().unwrap_or_else(|| panic!("no kind named `{id}`"))
    }

    /// Values for all relations of one aspect of an entity, no two alike.
    pub fn facts(&self, entity: usize, aspect: &Aspect, rng: &mut ChaCha8Rng) -> Vec<Fact> {
        let kind = self.kind_of(entity);
        let first =
            self.entities.iter().position(|other| other.kind == self.entities[entity].kind).unwrap_or(0);
        let mut facts: Vec<Fact> = Vec::new();
        for (relation, spec) in aspect.relations.iter().enumerate() {
            let id = format!("{}:{}:{}", kind.id, entity - first, spec.id);
            loop {
                let fact = self.fact(entity, relation, &spec.value, id.clone(), rng);
                if facts.iter().all(|other| other.answers[0] != fact.answers[0]) {
                    facts.push(fact);
                    break;
                }
            }
        }
        facts
    }

    fn fact(&self, entity: usize, relation: usize, value: &Value, id: String, rng: &mut ChaCha8Rng) -> Fact {
        let mut number = None;
        let (value, answers) = match value {
            Value::Person => {
                let (name, _) = names::person(rng);
                (name.clone(), vec![name])
            }
            Value::Date => {
                let (day, month) =
                    (rng.random_range(1..=28), MONTHS.choose(rng).copied().unwrap_or_default());
                let date = format!("{} of {month}", ordinal(day));
                (format!("the {date}"), vec![date, format!("{day} {month}")])
            }
            Value::Year(low, high) => {
                let year = self.entities[entity].base + rng.random_range(*low..=*high);
                number = Some(year);
                (year.to_string(), vec![year.to_string()])
            }
            Value::Number(low, high, step, unit) => {
                let amount = low + step * rng.random_range(0..=(high - low) / step);
                number = Some(amount);
                let text = format!("{} {unit}", grouped(amount));
                (text.clone(), vec![text, amount.to_string()])
            }
            Value::Entity(kind, era) => {
                let name = &self.other(entity, kind, *era, rng).name;
                (name.clone(), vec![names::bare(name).to_string()])
            }
            Value::OneOf(values) => {
                let value = names::choose(values.choose(rng).map_or("", String::as_str), rng);
                let answer = ["the ", "a ", "an "].iter().find_map(|article| value.strip_prefix(article));
                let mut answers = vec![answer.unwrap_or(&value).to_string()];
                answers.extend(answer.map(|_| value.clone()));
                (value, answers)
            }
        };
        Fact { relation, id, value, answers, number }
    }
}

fn new_entity(index: usize, kind: &Kind, taken: &mut HashSet<String>, rng: &mut ChaCha8Rng) -> Entity {
    let mut fresh = |draw: &mut dyn FnMut() -> (String, bool)| {
        let drawn = (0..10_000).map(|_| draw());
        let unused = drawn.into_iter().find(|(name, _)| taken.insert(names::bare(name).to_lowercase()));
        unused.unwrap_or_else(|| panic!("world/{}.txt: too few names or by-names for its count", kind.id))
    };
    let (name, female) = fresh(&mut || {
        if kind.person {
            names::person(rng)
        } else {
            (names::fill(kind.names.choose(rng).map_or("", String::as_str), rng), kind.feminine)
        }
    });
    let (alias, _) = fresh(&mut || (names::fill(&kind.alias, rng), false));
    let base = rng.random_range(kind.base.0..=kind.base.1);
    Entity { kind: index, name, alias, female, base }
}

fn ordinal(day: i32) -> String {
    let ending = match (day % 10, day % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{day}{ending}")
}

fn grouped(amount: i32) -> String {
    if amount < 1000 { amount.to_string() } else { format!("{},{:03}", amount / 1000, amount % 1000) }
}
