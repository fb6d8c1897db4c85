//! Porter's stemmer (1980) with the changes nltk makes to it by default (`NLTK_EXTENSIONS`): a table of irregular
//! forms, words of up to two letters left alone, and the marked rules below. ROUGE and METEOR stem with it.

const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Suffixes of step 2 and what replaces them where the stem before has a vowel-consonant pair. The first whose
/// suffix fits decides, applicable or not.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"), // nltk's
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word, lower-cased.
pub fn stem(word: &str) -> String {
    let short = word.chars().count() <= 2;
    let mut word = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if short {
        return word;
    }
    word = step_1a(word);
    word = step_1b(word);
    word = step_1c(word);
    word = step_2(word);
    if let Some((stem, with)) = longest_first(&word, &STEP_3)
        && measure(stem) > 0
    {
        word = format!("{stem}{with}");
    }
    word = step_4(word);
    step_5(word)
}

/// The first rule whose suffix the word has: what stands before it, and the replacement.
fn longest_first<'w>(word: &'w str, rules: &[(&str, &'static str)]) -> Option<(&'w str, &'static str)> {
    rules.iter().find_map(|(suffix, with)| Some((word.strip_suffix(suffix)?, *with)))
}

fn step_1a(word: String) -> String {
    let rules = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    match longest_first(&word, &rules) {
        // nltk's: "dies" and "ties" keep an e.
        Some((stem, "i")) if stem.chars().count() == 1 => format!("{stem}ie"),
        Some((stem, with)) => format!("{stem}{with}"),
        None => word,
    }
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        // nltk's: "died" is "die", "spied" is "spi".
        return format!("{stem}{}", if stem.chars().count() == 1 { "ie" } else { "i" });
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word };
    }
    let has_vowel = |stem: &&str| consonants(stem).contains(&false);
    let stem = ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix).filter(has_vowel));
    let Some(stem) = stem else { return word };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    let mut letters = stem.chars().rev();
    if let (Some(last), Some(before)) = (letters.next(), letters.next()) {
        let keep = matches!(last, 'l' | 's' | 'z');
        if last == before && consonants(stem).last() == Some(&true) {
            return if keep { stem.to_owned() } else { stem[..stem.len() - last.len_utf8()].to_owned() };
        }
        // nltk's rule list holds the marker "*d" (a double consonant) among its suffixes and also takes it for one.
        if (before, last) == ('*', 'd') {
            return format!("{}d", &stem[..stem.len() - 2]);
        }
    }
    if measure(stem) == 1 && ends_cvc(stem) { format!("{stem}e") } else { stem.to_owned() }
}

/// nltk's condition: y after a consonant that is not the word's only other letter.
fn step_1c(word: String) -> String {
    match word.strip_suffix('y') {
        Some(stem) if stem.chars().count() > 1 && consonants(stem).last() == Some(&true) => {
            format!("{stem}i")
        }
        _ => word,
    }
}

fn step_2(mut word: String) -> String {
    // nltk's: "alli" first, and the step again on what it leaves.
    while let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        word = format!("{stem}al");
    }
    if let Some((stem, with)) = longest_first(&word, &STEP_2) {
        return if measure(stem) > 0 { format!("{stem}{with}") } else { word };
    }
    // nltk's: the l counts as the stem's, so that "geologi" becomes "geolog".
    match word.strip_suffix("ogi") {
        Some(stem) if stem.ends_with('l') && measure(stem) > 0 => format!("{stem}og"),
        _ => word,
    }
}

fn step_4(word: String) -> String {
    let Some((suffix, stem)) = STEP_4.iter().find_map(|s| Some((*s, word.strip_suffix(s)?))) else {
        return word;
    };
    let fits = measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't']));
    if fits { stem.to_owned() } else { word }
}

fn step_5(mut word: String) -> String {
    if let Some(stem) = word.strip_suffix('e') {
        let m = measure(stem);
        if m > 1 || m == 1 && !ends_cvc(stem) {
            word.pop();
        }
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}

/// For each letter whether it is a consonant: not a, e, i, o, u, nor a y after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for c in word.chars() {
        let flag = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !flags.last().is_some_and(|&before| before),
            _ => true,
        };
        flags.push(flag);
    }
    flags
}

/// Porter's m: how often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

/// Porter's *o: consonant, vowel, consonant at the end, the last not w, x or y. nltk also takes vowel, consonant as a
/// whole word.
fn ends_cvc(word: &str) -> bool {
    match consonants(word).as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}
