//! Facts into encyclopaedia prose: an opening, the facts in some order, a touch of colour.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::kinds::Aspect;
use crate::names;
use crate::world::{Fact, World};

/// A passage and what it states.
#[derive(Debug, Clone)]
pub struct Passage {
    /// Document id.
    pub id: String,
    /// Title.
    pub title: String,
    /// Body.
    pub text: String,
    /// Index of the entity that it is about.
    pub entity: usize,
    /// Index of the aspect within the kind.
    pub aspect: usize,
    /// The relations that it states.
    pub facts: Vec<Fact>,
    /// Whether it mentions the entity's by-name.
    pub tells_alias: bool,
}

const SOURCES: &[&str] = &[
    "according to the harbour rolls, ",
    "by all accounts ",
    "the almanac notes that ",
    "records agree that ",
    "it is well attested that ",
    "as far as the archives show, ",
    "older sources add that ",
    "travellers' handbooks repeat that ",
];

/// Fewest words of a passage; colour is added up to this.
pub const MIN_WORDS: usize = 40;
/// Most words of a passage.
pub const MAX_WORDS: usize = 110;

/// How a sentence refers to the entity.
#[derive(Clone, Copy, PartialEq)]
enum Refer {
    Name,
    Generic,
    Pronoun,
}

/// All passages of the world: each entity has most of its kind's aspects, at least two. `redraws` counts, per
/// passage id, how often the check for accidental statements has asked for another version.
pub fn passages(world: &World, redraws: &std::collections::HashMap<(usize, usize), u32>) -> Vec<Passage> {
    let mut out = Vec::new();
    for entity in 0..world.entities.len() {
        let kind = world.kind_of(entity);
        let mut rng = world.keyed(&[&kind.id, &entity.to_string(), "aspects"]);
        let dropped =
            if rng.random_bool(0.12) { rng.random_range(0..kind.aspects.len()) } else { usize::MAX };
        for aspect in (0..kind.aspects.len()).filter(|&aspect| aspect != dropped) {
            let version = redraws.get(&(entity, aspect)).copied().unwrap_or(0);
            out.push(compose(world, entity, aspect, version));
        }
    }
    // Ids follow a shuffled order, so that neighbours in the file are not about the same entity.
    out.shuffle(&mut world.keyed(&["order of passages"]));
    for (number, passage) in out.iter_mut().enumerate() {
        passage.id = format!("m{number:04}");
    }
    out
}

fn compose(world: &World, entity: usize, aspect_index: usize, version: u32) -> Passage {
    let kind = world.kind_of(entity);
    let aspect = &kind.aspects[aspect_index];
    let mut rng = world.keyed(&[&kind.id, &entity.to_string(), &aspect.id, &version.to_string()]);
    let facts = world.facts(entity, aspect, &mut rng);
    let writer = Writer { world, entity };

    let tells_alias = rng.random_bool(0.8);
    let opens: Vec<&String> =
        aspect.opens.iter().filter(|open| !tells_alias || open.contains("{aka}")).collect();
    let tells_alias = tells_alias && !opens.is_empty();
    let opens = if opens.is_empty() { aspect.opens.iter().collect() } else { opens };
    let aka = if tells_alias { kind.aka.as_str() } else { "" };
    let open = opens.choose(&mut rng).map_or(String::new(), |open| open.replace("{aka}", aka));
    let mut sentences = vec![writer.sentence(&open, Refer::Name, "", &mut rng)];

    let mut order: Vec<&Fact> = facts.iter().collect();
    order.shuffle(&mut rng);
    let mut asides: Vec<&String> = aspect.asides.iter().collect();
    asides.shuffle(&mut rng);
    let mut asides = asides.into_iter();
    let aside_after = if rng.random_bool(0.35) { rng.random_range(0..order.len()) } else { usize::MAX };
    let (mut last, mut after_aside) = (Refer::Name, false);
    for (index, fact) in order.iter().enumerate() {
        // An answer in lower case must not open a sentence: it has to occur verbatim.
        let opens = fact.value == fact.answers[0] && fact.value.starts_with(char::is_lowercase);
        let says = aspect.relations[fact.relation].say.iter().filter(|say| !opens || !say.starts_with("{v}"));
        let say = says.collect::<Vec<_>>().choose(&mut rng).map_or("", |say| say.as_str());
        let mut refer = writer.refer(last, index, &mut rng);
        // "The keeper of it" and a pronoun after a sentence about something else read badly.
        if refer == Refer::Pronoun && (after_aside || say.contains(" {s}")) {
            refer = Refer::Generic;
        }
        after_aside = false;
        let sentence = writer.sentence(say, refer, &fact.value, &mut rng);
        last = refer;
        let previous = sentences.last_mut().expect("there is an opening");
        let plain = index > 0 && say.starts_with("{s}") && refer == Refer::Pronoun && words(previous) < 22;
        if plain && rng.random_bool(0.3) {
            previous.pop();
            previous.push_str(", and ");
            previous.push_str(&decapitalise(&sentence));
            last = Refer::Name;
        } else if say.starts_with("{s}") && refer != Refer::Name && rng.random_bool(0.15) {
            let source = SOURCES.choose(&mut rng).copied().unwrap_or_default();
            sentences.push(names::capitalise(&format!("{source}{}", decapitalise(&sentence))));
        } else {
            sentences.push(sentence);
        }
        if index == aside_after
            && let Some(aside) = asides.next()
        {
            sentences.push(writer.sentence(aside, Refer::Generic, "", &mut rng));
            after_aside = true;
        }
    }
    let length = |sentences: &[String]| sentences.iter().map(|sentence| words(sentence)).sum::<usize>();
    while length(&sentences) < MIN_WORDS + 2
        || (asides.len() > 1 && length(&sentences) < 75 && rng.random_bool(0.6))
    {
        let Some(aside) = asides.next() else { break };
        sentences.push(writer.sentence(aside, Refer::Generic, "", &mut rng));
    }
    let titles = if rng.random_bool(0.15) && !aspect.bare.is_empty() { &aspect.bare } else { &aspect.titles };
    let title = titles.choose(&mut rng).map_or("", String::as_str);
    let title = title.replace("{n}", names::bare(&world.entities[entity].name));
    let (id, text) = (String::new(), sentences.join(" "));
    Passage { id, title: names::capitalise(&title), text, entity, aspect: aspect_index, facts, tells_alias }
}

/// The relation of one of a passage's facts.
pub fn aspect_of<'w>(world: &'w World, passage: &Passage) -> &'w Aspect {
    &world.kind_of(passage.entity).aspects[passage.aspect]
}

/// Number of words, as whitespace separates them.
pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

struct Writer<'w> {
    world: &'w World,
    entity: usize,
}

impl Writer<'_> {
    fn refer(&self, last: Refer, index: usize, rng: &mut ChaCha8Rng) -> Refer {
        let roll = rng.random_range(0..100);
        match last {
            Refer::Pronoun if roll < 80 => Refer::Generic,
            _ if index > 0 && roll < 12 => Refer::Name,
            _ if roll < 55 => Refer::Generic,
            _ => Refer::Pronoun,
        }
    }

    fn sentence(&self, template: &str, refer: Refer, value: &str, rng: &mut ChaCha8Rng) -> String {
        let me = &self.world.entities[self.entity];
        let kind = self.world.kind_of(self.entity);
        let generic = kind.generic.choose(rng).map_or("it", String::as_str);
        let (he, his) = match (kind.person || kind.feminine, me.female) {
            (true, true) => ("she", "her"),
            (true, false) => ("he", "his"),
            (false, _) => ("it", "its"),
        };
        let (subject, possessive) = match refer {
            Refer::Name => (me.name.as_str(), format!("{}'s", me.name)),
            Refer::Generic => (generic, format!("{generic}'s")),
            Refer::Pronoun => (he, his.to_string()),
        };
        let mut text = names::choose(template, rng);
        text = text
            .replace("{s}", subject)
            .replace("{p}", &possessive)
            .replace("{his}", his)
            .replace("{he}", he);
        text = text.replace("{n}", &me.name).replace("{v}", value).replace("{alias}", &me.alias);
        while let Some((before, after)) = text.split_once("{x:") {
            let (id, behind) = after.split_once('}').expect("a slot is closed");
            text = format!("{before}{}{behind}", self.world.other(self.entity, id, false, rng).name);
        }
        names::capitalise(&tidy(&text))
    }
}

/// Mends articles ("a amber") and doubled marks that filling slots leaves behind.
pub fn tidy(text: &str) -> String {
    let mut text = text
        .replace(",,", ",")
        .replace(" ,", ",")
        .replace(" .", ".")
        .replace(",.", ".")
        .replace("s's ", "s' ");
    for (wrong, right) in [(" a ", " an "), ("A ", "An ")] {
        for vowel in ['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U'] {
            let starts = format!("{wrong}{vowel}");
            if wrong == "A " && !text.starts_with(&starts) {
                continue;
            }
            text = text.replace(&starts, &format!("{right}{vowel}"));
        }
    }
    text.replace(" an one", " a one").replace(" an use", " a use").replace(" an uni", " a uni")
}

fn decapitalise(sentence: &str) -> String {
    let first = sentence.split(' ').next().unwrap_or_default();
    if ["The", "It", "She", "He", "Its", "His", "Her"].contains(&first) {
        let mut chars = sentence.chars();
        return chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect());
    }
    sentence.to_string()
}
