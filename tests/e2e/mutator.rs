//! One seeded fault in a file: bytes flipped, cut, put in or repeated; lines lost or doubled; JSON values of another type,
//! beyond all bounds, or under another name.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

/// What a fault may do to what the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it must be read as before.
    None,
    /// A known key holds a value of another JSON type.
    Type,
    /// Anything.
    Any,
}

pub struct Mutant {
    pub bytes: Vec<u8>,
    pub how: String,
    pub effect: Effect,
}

pub struct Mutator(ChaCha8Rng);

impl Mutator {
    /// The `number`th series of faults.
    pub fn new(number: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(number))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    /// A file with one fault. Text files get faults of text as well, JSON files of JSON.
    pub fn fault(&mut self, good: &[u8]) -> Mutant {
        let text = std::str::from_utf8(good).ok().filter(|t| !t.contains('\0'));
        let one: Option<Value> =
            text.and_then(|t| serde_json::from_str(t).ok()).filter(|v: &Value| !v.is_number());
        let lines = || text.map(|t| t.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>());
        match (self.below(3), text) {
            (1, Some(text)) => self.text(text),
            (2, Some(text)) => match (one, lines()) {
                (Some(mut json), _) => {
                    let (how, effect) = self.json(&mut json);
                    Mutant { bytes: json.to_string().into_bytes(), how, effect }
                }
                (None, Some(Ok(mut rows))) if !rows.is_empty() => {
                    let at = self.below(rows.len());
                    let (how, effect) = self.json(&mut rows[at]);
                    let bytes = rows.iter().map(|r| format!("{r}\n")).collect::<String>().into_bytes();
                    Mutant { bytes, how: format!("line {}: {how}", at + 1), effect }
                }
                _ => self.text(text),
            },
            _ => self.bytes(good),
        }
    }

    fn bytes(&mut self, good: &[u8]) -> Mutant {
        let mut bytes = good.to_vec();
        let at = self.below(bytes.len());
        let length = 1 + self.below(16).min(bytes.len().saturating_sub(at + 1));
        let how = match self.below(6) {
            0 if !bytes.is_empty() => {
                bytes[at] ^= 1 << self.below(8);
                format!("a bit of byte {at} is flipped")
            }
            1 => {
                bytes.truncate(at);
                format!("cut at byte {at}")
            }
            2 if bytes.len() >= at + length => {
                bytes.drain(at..at + length);
                format!("{length} bytes are gone at {at}")
            }
            3 => {
                let noise: Vec<u8> = (0..length).map(|_| self.0.next_u64() as u8).collect();
                bytes.splice(at..at, noise);
                format!("{length} bytes are put in at {at}")
            }
            4 => {
                let repeated = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, repeated);
                format!("{length} bytes are repeated at {at}")
            }
            _ => {
                bytes.clear();
                "the file is empty".into()
            }
        };
        Mutant { bytes, how, effect: Effect::Any }
    }

    fn text(&mut self, text: &str) -> Mutant {
        let mut lines: Vec<&str> = text.lines().collect();
        let at = self.below(lines.len());
        let end = if text.ends_with('\n') { "\n" } else { "" };
        let whole = |lines: &[&str]| (lines.join("\n") + end).into_bytes();
        let (bytes, how, effect) = match self.below(6) {
            0 => (text.replace('\n', "\r\n").into_bytes(), "lines end with CRLF".into(), Effect::None),
            1 => (format!("\u{feff}{text}").into_bytes(), "a byte order mark".into(), Effect::None),
            2 if !lines.is_empty() => {
                lines.remove(at);
                (whole(&lines), format!("line {} is gone", at + 1), Effect::Any)
            }
            3 if !lines.is_empty() => {
                lines.insert(at, lines[at]);
                (whole(&lines), format!("line {} is there twice", at + 1), Effect::Any)
            }
            4 if !lines.is_empty() => {
                lines.insert(at, "\u{0}\u{7f}?");
                (whole(&lines), format!("control characters as line {}", at + 1), Effect::Any)
            }
            _ => {
                let cut: String = text.chars().take(self.below(text.chars().count())).collect();
                let how = format!("cut after {} characters", cut.chars().count());
                (cut.into_bytes(), how, Effect::Any)
            }
        };
        Mutant { bytes, how, effect }
    }

    /// Changes one value somewhere in it.
    fn json(&mut self, json: &mut Value) -> (String, Effect) {
        let mut places = Vec::new();
        pointers(json, "", &mut places);
        let path = places[self.below(places.len())].clone();
        let at = json.pointer_mut(&path).unwrap();
        if let (Value::Object(o), 0..3) = (&mut *at, self.below(4))
            && let Some(key) = o.keys().nth(self.below(o.len())).cloned()
        {
            return self.key(o, &key, &path);
        }
        let values = [
            Value::Null,
            json!(true),
            json!(-1),
            json!(0),
            json!(2.5),
            json!(1e308),
            json!(9_007_199_254_740_993_i64),
            json!(u64::MAX),
            json!(""),
            json!(" "),
            json!("32"),
            json!("x".repeat(5000)),
            json!([]),
            json!([[0, null]]),
            json!({}),
            json!({"a": {"b": []}}),
        ];
        let new = values[self.below(values.len())].clone();
        let kind = |v: &Value| std::mem::discriminant(v);
        let effect = if kind(&new) != kind(at) && !new.is_null() { Effect::Type } else { Effect::Any };
        let short: String = new.to_string().chars().take(30).collect();
        *at = new;
        (format!("`{path}` = {short}"), effect)
    }

    fn key(&mut self, o: &mut serde_json::Map<String, Value>, key: &str, path: &str) -> (String, Effect) {
        match self.below(3) {
            0 => {
                o.remove(key);
                (format!("`{path}/{key}` is gone"), Effect::Any)
            }
            1 => {
                let value = o.remove(key).unwrap();
                o.insert(format!("{key}x"), value);
                (format!("`{path}/{key}` is misspelt"), Effect::Any)
            }
            _ => {
                o.insert("zz_unknown".into(), json!(1));
                (format!("`{path}/zz_unknown` is new"), Effect::None)
            }
        }
    }
}

/// The place of every value, as JSON pointers; of a long list the first values only (a vocabulary has thousands).
fn pointers(json: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_string());
    match json {
        Value::Object(o) => o.iter().take(40).for_each(|(key, v)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            pointers(v, &format!("{at}/{key}"), all);
        }),
        Value::Array(a) => {
            a.iter().take(4).enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all))
        }
        _ => {}
    }
}
