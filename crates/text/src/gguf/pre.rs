//! Pre-tokenizers by the names that llama.cpp gives them, as `tokenizer.json` has them.

use serde_json::{Value, json};

/// A kind of pre-tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pre {
    /// Its names in GGUF files; the first is the one that is written.
    pub names: &'static [&'static str],
    /// How a text is cut before bytes become characters.
    pub cuts: &'static [Cut],
    /// Whether a word that is in the vocabulary is taken whole, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether the original tokenizers compose characters first (NFC).
    pub nfc: bool,
}

/// One step of a pre-tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// What the expression matches, and what lies between.
    Regex(&'static str),
    /// Each digit alone.
    Digits,
    /// GPT-2's words.
    Gpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pre-tokenizers that are read. Those of models of other architectures than Llama's and Qwen's are not here.
pub(super) const ALL: [Pre; 11] = [
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"],
        cuts: &[Cut::Regex(LLAMA3)],
        ignore_merges: true,
        nfc: false,
    },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"],
        cuts: &[Cut::Regex(QWEN2)],
        ignore_merges: false,
        nfc: true,
    },
    Pre {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        cuts: &[Cut::Digits, Cut::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Pre {
        names: &[
            "gpt-2", "mpt", "olmo", "phi-2", "a.x-4.0", "mellum", "gigachat", "exaone4", "jais", "trillion",
        ],
        cuts: &[Cut::Gpt2],
        ignore_merges: false,
        nfc: false,
    },
    Pre { names: &["tekken"], cuts: &[Cut::Regex(TEKKEN)], ignore_merges: true, nfc: false },
    Pre {
        names: &["gpt-4o", "llama4", "kanana2"],
        cuts: &[Cut::Regex(GPT4O)],
        ignore_merges: false,
        nfc: false,
    },
    // Llama 3's words, joined by merges alone.
    Pre {
        names: &["smaug-bpe", "dbrx", "chatglm-bpe", "glm4"],
        cuts: &[Cut::Regex(LLAMA3)],
        ignore_merges: false,
        nfc: false,
    },
    // Qwen's words without its normalizer.
    Pre {
        names: &["stablelm2", "hunyuan", "solar-open"],
        cuts: &[Cut::Regex(QWEN2)],
        ignore_merges: false,
        nfc: false,
    },
    Pre {
        names: &["deepseek-coder"],
        cuts: &[
            Cut::Regex("[\r\n]"),
            Cut::Regex(r"\s?\p{L}+"),
            Cut::Regex(r"\s?\p{P}+"),
            Cut::Regex("[一-龥ࠀ-一가-퟿]+"),
            Cut::Digits,
        ],
        ignore_merges: false,
        nfc: false,
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense"],
        cuts: &[
            Cut::Regex(r"\p{N}{1,3}"),
            Cut::Regex("[一-龥぀-ゟ゠-ヿ]+"),
            Cut::Regex(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
            ),
        ],
        ignore_merges: false,
        nfc: false,
    },
    // What llama.cpp does with a file that names none.
    Pre {
        names: &["default"],
        cuts: &[
            Cut::Regex(r"[\p{P}\$\+<=>\^~\|]+"),
            Cut::Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            Cut::Regex(r"\p{N}+"),
            Cut::Regex("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        nfc: false,
    },
];

impl Pre {
    /// By name.
    pub fn of(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|p| p.names.contains(&name))
    }

    /// All names, for messages.
    pub fn names() -> String {
        ALL.iter().flat_map(|p| p.names).copied().collect::<Vec<_>>().join(", ")
    }

    /// As `tokenizer.json` has it.
    pub fn json(&self) -> Value {
        // GPT-2's words are cut by the step that turns bytes into characters.
        let words = self.cuts.last() == Some(&Cut::Gpt2);
        let mut steps: Vec<Value> = self
            .cuts
            .iter()
            .filter_map(|cut| match cut {
                Cut::Regex(regex) => Some(json!({
                    "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
                })),
                Cut::Digits => Some(json!({"type": "Digits", "individual_digits": true})),
                Cut::Gpt2 => None,
            })
            .collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words,
        }));
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }
}
