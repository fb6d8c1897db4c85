//! What kinds of things exist in Maravel, and how each of their relations may be told and asked.
//!
//! The kinds live in `world/*.txt`, one file each, in a line format that a writer can edit without knowing Rust:
//!
//! | line | meaning |
//! |---|---|
//! | `kind ID`, `noun X`, `generic A\|B` | identity; how a passage may refer back to the entity |
//! | `name A\|B`, `alias X`, `aka X` | patterns of names, of by-names, and the clause that introduces a by-name |
//! | `count N`, `base LO HI` | how many entities; range of the base year |
//! | `person`, `feminine` | the kind is human; it is spoken of as "she" |
//! | `aspect ID`, `title`, `bare`, `open`, `aside` | one passage: titles with and without the entity, first sentences, colour |
//! | `rel ID VALUE` | a relation, stated in this aspect and nowhere else |
//! | `say`, `ask`, `par`, `key`, `chat`, `who` | how it is told, asked (four styles), and used to describe the entity |
//! | `cmp+`, `cmp-` | how two entities are compared; the larger or the smaller value wins |
//!
//! A `!` after a question tag marks a phrasing that the train split never uses. `[a|b]` is a free choice.

/// A kind of entity, with everything its file says.
#[derive(Debug, Clone, Default)]
pub struct Kind {
    /// Short identifier, also used in fact ids.
    pub id: String,
    /// Common noun, for descriptions ("the lighthouse that ...").
    pub noun: String,
    /// Ways to refer back to the entity inside its own passage.
    pub generic: Vec<String>,
    /// Name patterns.
    pub names: Vec<String>,
    /// Pattern of by-names.
    pub alias: String,
    /// Clause that introduces the by-name.
    pub aka: String,
    /// Number of entities.
    pub count: usize,
    /// Range of the base year.
    pub base: (i32, i32),
    /// Whether entities are people, with pronouns to match.
    pub person: bool,
    /// Whether it is spoken of as "she", as ships are.
    pub feminine: bool,
    /// The passages that an entity may have.
    pub aspects: Vec<Aspect>,
}

/// One passage's worth of relations.
#[derive(Debug, Clone, Default)]
pub struct Aspect {
    /// Short identifier.
    pub id: String,
    /// Titles that name the entity.
    pub titles: Vec<String>,
    /// Titles that do not.
    pub bare: Vec<String>,
    /// Opening sentences: they name the entity and state none of its relations.
    pub opens: Vec<String>,
    /// Sentences of colour that state none of its relations.
    pub asides: Vec<String>,
    /// Relations that this passage states.
    pub relations: Vec<Relation>,
}

/// A relation between an entity and a value.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Short identifier, unique within the kind.
    pub id: String,
    /// Where its values come from.
    pub value: Value,
    /// Sentences that state it.
    pub say: Vec<String>,
    /// Direct questions.
    pub ask: Phrasings,
    /// Questions in other words.
    pub par: Phrasings,
    /// Keyword queries.
    pub key: Phrasings,
    /// Short conversational questions.
    pub chat: Phrasings,
    /// Relative clauses that pick out the entity by this relation.
    pub who: Vec<String>,
    /// Comparisons of two entities, and whether the larger value wins.
    pub compare: Phrasings,
    /// Whether the larger value wins a comparison.
    pub larger_wins: bool,
}

/// Phrasings that all splits use, and phrasings kept for dev and test.
#[derive(Debug, Clone, Default)]
pub struct Phrasings {
    /// Used by all splits.
    pub seen: Vec<String>,
    /// Used by dev and test only.
    pub unseen: Vec<String>,
}

/// Where the values of a relation come from.
#[derive(Debug, Clone)]
pub enum Value {
    /// An invented person.
    Person,
    /// A year, this far from the entity's base year.
    Year(i32, i32),
    /// A day of the invented calendar.
    Date,
    /// A number in a range with a step, and its unit.
    Number(i32, i32, i32, String),
    /// Another entity of a kind; `true` keeps lifetimes plausible.
    Entity(String, bool),
    /// One of these phrases.
    OneOf(Vec<String>),
}

const FILES: &[(&str, &str)] = &[
    ("island", include_str!("../world/island.txt")),
    ("harbour", include_str!("../world/harbour.txt")),
    ("lighthouse", include_str!("../world/lighthouse.txt")),
    ("ship", include_str!("../world/ship.txt")),
    ("shipwright", include_str!("../world/shipwright.txt")),
    ("festival", include_str!("../world/festival.txt")),
    ("mineral", include_str!("../world/mineral.txt")),
    ("bird", include_str!("../world/bird.txt")),
    ("treaty", include_str!("../world/treaty.txt")),
    ("observatory", include_str!("../world/observatory.txt")),
    ("bridge", include_str!("../world/bridge.txt")),
    ("ferry", include_str!("../world/ferry.txt")),
    ("storm", include_str!("../world/storm.txt")),
    ("dish", include_str!("../world/dish.txt")),
];

/// All kinds, parsed from the embedded files. A malformed file is a bug of this crate and panics with its line.
pub fn all() -> Vec<Kind> {
    FILES.iter().map(|(file, text)| parse(file, text)).collect()
}

fn parse(file: &str, text: &str) -> Kind {
    let mut kind = Kind::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        if read_line(&mut kind, tag, rest).is_none() {
            panic!("world/{file}.txt:{}: cannot read `{line}`", index + 1);
        }
    }
    for aspect in &kind.aspects {
        assert!(!aspect.opens.is_empty() && !aspect.titles.is_empty(), "{file}/{}: incomplete", aspect.id);
        for relation in &aspect.relations {
            let at = format!("{file}/{}", relation.id);
            assert!(relation.say.iter().all(|say| say.contains("{v}")), "{at}: a `say` without its value");
            assert!(relation.who.iter().all(|who| who.contains("{v}")), "{at}: a `who` without its value");
            assert!(!relation.say.is_empty() && !relation.who.is_empty(), "{at}: incomplete");
            for group in [&relation.ask, &relation.par, &relation.key, &relation.chat] {
                assert!(!group.seen.is_empty() && !group.unseen.is_empty(), "{at}: a style lacks phrasings");
            }
        }
    }
    kind
}

fn read_line(kind: &mut Kind, tag: &str, rest: &str) -> Option<()> {
    let text = rest.to_string();
    let bars = || rest.split('|').map(|part| part.trim().to_string()).collect::<Vec<_>>();
    match tag {
        "kind" => kind.id = text,
        "noun" => kind.noun = text,
        "generic" => kind.generic = bars(),
        "name" => kind.names.push(text),
        "alias" => kind.alias = text,
        "aka" => kind.aka = text,
        "count" => kind.count = rest.parse().ok()?,
        "base" => {
            let (low, high) = rest.split_once(' ')?;
            kind.base = (low.parse().ok()?, high.parse().ok()?);
        }
        "person" => kind.person = true,
        "feminine" => kind.feminine = true,
        "aspect" => kind.aspects.push(Aspect { id: text, ..Aspect::default() }),
        "title" => kind.aspects.last_mut()?.titles.push(text),
        "bare" => kind.aspects.last_mut()?.bare.push(text),
        "open" => kind.aspects.last_mut()?.opens.push(text),
        "aside" => kind.aspects.last_mut()?.asides.push(text),
        "rel" => {
            let relation = new_relation(rest)?;
            kind.aspects.last_mut()?.relations.push(relation);
        }
        _ => {
            let relation = kind.aspects.last_mut()?.relations.last_mut()?;
            let (tag, unseen) = tag.strip_suffix('!').map_or((tag, false), |tag| (tag, true));
            let group = match tag {
                "say" => {
                    relation.say.push(text);
                    return Some(());
                }
                "who" => {
                    relation.who.push(text);
                    return Some(());
                }
                "ask" => &mut relation.ask,
                "par" => &mut relation.par,
                "key" => &mut relation.key,
                "chat" => &mut relation.chat,
                "cmp+" | "cmp-" => {
                    relation.larger_wins = tag == "cmp+";
                    &mut relation.compare
                }
                _ => return None,
            };
            if unseen { group.unseen.push(text) } else { group.seen.push(text) }
        }
    }
    Some(())
}

fn new_relation(rest: &str) -> Option<Relation> {
    let (id, spec) = rest.split_once(' ')?;
    let (head, tail) = spec.split_once(' ').unwrap_or((spec, ""));
    let mut words = tail.split(' ');
    let value = match head {
        "person" => Value::Person,
        "date" => Value::Date,
        "year" => Value::Year(words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        "num" => {
            let mut next = || words.next().and_then(|word| word.parse::<i32>().ok());
            let (low, high, step) = (next()?, next()?, next()?);
            Value::Number(low, high, step, words.collect::<Vec<_>>().join(" "))
        }
        "ref" => Value::Entity(words.next()?.to_string(), words.next() == Some("era")),
        "of" => Value::OneOf(tail.split(" / ").map(|part| part.trim().to_string()).collect()),
        _ => return None,
    };
    Some(Relation {
        id: id.to_string(),
        value,
        say: Vec::new(),
        ask: Phrasings::default(),
        par: Phrasings::default(),
        key: Phrasings::default(),
        chat: Phrasings::default(),
        who: Vec::new(),
        compare: Phrasings::default(),
        larger_wins: true,
    })
}
