//! Names: recombined syllables, so that a subword vocabulary meets their pieces again and again.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

const HEADS: &[&str] = &[
    "tor", "kel", "ves", "mar", "bran", "os", "hal", "dun", "fen", "gar", "il", "jor", "lor", "mol", "nar",
    "ord", "pel", "quin", "ras", "sel", "tam", "ul", "vor", "wen", "yar", "zel", "ard", "bel", "cor", "dral",
    "esk", "fal", "gren", "hesk", "ing", "kor",
];
const TAILS: &[&str] = &[
    "ran", "dra", "mir", "oth", "vik", "en", "ash", "ila", "une", "ard", "esk", "ory", "ane", "olt", "ume",
    "is", "ath", "ell", "ova", "ind", "ek", "ast", "orn", "ey", "um", "am", "essa", "ow", "ith",
];
const FAMILY_TAILS: &[&str] =
    &["lin", "dane", "vane", "holt", "mark", "rell", "sson", "gate", "lock", "den", "try", "bar", "ney"];
const GIVEN_HEADS: &[&str] =
    &["il", "ves", "mar", "ty", "sab", "ner", "lio", "kad", "dor", "fre", "hal", "jun", "os", "ral"];
const FEMALE_TAILS: &[&str] = &["ana", "eth", "issa", "une"];
const MALE_TAILS: &[&str] = &["an", "ek", "or", "und"];
/// English words and well-known names that the syllables happen to spell.
const REFUSED: &[&str] = &[
    "garden", "fallow", "coral", "marash", "arden", "ulster", "torey", "halen", "corey", "barnen", "tamis",
    "belis", "marius", "maris", "halis", "falash", "wenen", "esken", "eskesk", "ardard", "coroth", "marow",
    "fenis", "inging", "mollis", "nardra", "ralan", "keley", "koran", "corum",
];

/// Two syllables, such as `keldra`.
pub fn root(rng: &mut ChaCha8Rng) -> String {
    loop {
        let root = format!("{}{}", pick(rng, HEADS), pick(rng, TAILS));
        if !REFUSED.contains(&root.as_str()) {
            return root;
        }
    }
}

/// The first syllable of a compound, such as `kel`.
pub fn head(rng: &mut ChaCha8Rng) -> &'static str {
    pick(rng, HEADS)
}

/// A person's full name, and whether it is a woman's.
pub fn person(rng: &mut ChaCha8Rng) -> (String, bool) {
    let female = rng.random_bool(0.5);
    let tail = pick(rng, if female { FEMALE_TAILS } else { MALE_TAILS });
    let given = capitalise(&format!("{}{tail}", pick(rng, GIVEN_HEADS)));
    let family = capitalise(&format!("{}{}", pick(rng, HEADS), pick(rng, FAMILY_TAILS)));
    (format!("{given} {family}"), female)
}

/// Fills a name pattern: `{root}`, `{lc}` (the same in lower case), `{head}`, and free choices.
pub fn fill(pattern: &str, rng: &mut ChaCha8Rng) -> String {
    let mut text = choose(pattern, rng);
    if text.contains("{person}") {
        return person(rng).0;
    }
    text = text.replace("{root}", &capitalise(&root(rng)));
    text = text.replace("{lc}", &root(rng));
    text.replace("{head}", &capitalise(head(rng)))
}

/// Resolves every `[a|b|c]` of a template.
pub fn choose(template: &str, rng: &mut ChaCha8Rng) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        let (options, behind) = after.split_once(']').expect("a choice is closed");
        let options: Vec<&str> = options.split('|').collect();
        out.push_str(before);
        out.push_str(options.choose(rng).copied().unwrap_or_default());
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The text with its first letter in upper case.
pub fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The name without a leading article, as an answer or a title gives it.
pub fn bare(name: &str) -> &str {
    name.strip_prefix("the ").unwrap_or(name)
}

fn pick(rng: &mut ChaCha8Rng, from: &[&'static str]) -> &'static str {
    from.choose(rng).copied().unwrap_or_default()
}
