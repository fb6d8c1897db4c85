//! The config of PEFT methods.

use super::targets::Targets;
use crate::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A method and its settings; written as `[peft.lora]`, `[peft.ia3]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeftConfig {
    /// Low-rank updates.
    Lora(LoraConfig),
    /// Learned scales of keys, values and feed-forward activations.
    Ia3(Ia3Config),
    /// Learned embeddings before the text.
    Prompt(PromptConfig),
    /// Learned keys and values before the text, in every layer.
    Prefix(PrefixConfig),
    /// Small networks behind the sub-layers.
    Bottleneck(BottleneckConfig),
}

impl PeftConfig {
    /// Positions that it takes before each text, which a model with learned positions then lacks.
    pub fn places(&self) -> usize {
        let rows = match self {
            PeftConfig::Prompt(c) => c.tokens,
            PeftConfig::Prefix(c) => c.tokens,
            PeftConfig::Lora(_) | PeftConfig::Ia3(_) | PeftConfig::Bottleneck(_) => 0,
        };
        rows.max(0) as usize
    }
}

/// LoRA (Hu et al., 2021, arXiv 2106.09685), with DoRA (Liu et al., 2024, arXiv 2402.09353) and rsLoRA (Kalajdzievski,
/// 2023, arXiv 2312.03732) as settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the updates.
    pub rank: i64,
    /// The update is scaled by alpha / rank.
    pub alpha: f64,
    /// Dropout on what the update takes in.
    pub dropout: f64,
    /// Linear layers and lookup tables that get one.
    pub targets: Targets,
    /// Names that do not, though `targets` fits them.
    pub exclude: Vec<String>,
    /// Numbers of the layers that get one; empty: all.
    pub layers: Vec<u32>,
    /// Which of the base's biases learn along.
    pub bias: LoraBias,
    /// Other ranks by pattern.
    pub rank_pattern: BTreeMap<String, i64>,
    /// Other alphas by pattern.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by alpha / sqrt(rank): rsLoRA.
    pub rank_stabilized: bool,
    /// Learn the length of each row of the weight apart from its direction: DoRA.
    pub dora: bool,
    /// How the updates start.
    pub init: LoraInit,
    /// Linear layers and tables that are trained whole, in a copy (`lm_head`, `embed_tokens`, a classifier's head).
    pub modules_to_save: Vec<String>,
    /// The B matrices learn this much faster than the A matrices: LoRA+ (Hayou et al., 2024, arXiv 2402.12354).
    pub b_lr_ratio: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Targets::default(),
            exclude: Vec::new(),
            layers: Vec::new(),
            bias: LoraBias::None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            rank_stabilized: false,
            dora: false,
            init: LoraInit::default(),
            modules_to_save: Vec::new(),
            b_lr_ratio: 1.0,
        }
    }
}

/// How LoRA's updates start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// A uniform as in a fresh linear layer, B zero: nothing changes at the start.
    #[default]
    Kaiming,
    /// A normal with deviation 1 / rank, B zero.
    Gaussian,
    /// B A is the largest singular values and vectors of the weight, and the base what is left of it: PiSSA (Meng et al.,
    /// 2024, arXiv 2404.02948). Nothing changes at the start. The base stays as it is: what is saved is a LoRA of twice
    /// the rank over it, as peft's conversion makes one. Dropout acts on the change from the start.
    Pissa,
}

/// Which biases learn. They are the adapter's own; the base's stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// None.
    #[default]
    None,
    /// Those of the layers that get an update.
    LoraOnly,
    /// All of the model's, of norms, too.
    All,
}

/// (IA)^3 (Liu et al., 2022, arXiv 2205.05638): keys, values and the feed-forward's inner activations, each times a
/// learned vector that starts at 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3Config {
    /// Layers whose outputs are scaled; absent: the paper's, keys and values.
    pub targets: Option<Targets>,
    /// Layers whose inputs are scaled; absent: the feed-forward's last.
    pub feedforward: Option<Targets>,
}

/// Prompt tuning (Lester et al., 2021, arXiv 2104.08691).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// How many.
    pub tokens: i64,
    /// How they start.
    pub init: PromptInit,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self { tokens: 20, init: PromptInit::default() }
    }
}

/// How soft prompts start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptInit {
    /// Normal, with the deviation of the token embedding.
    Random,
    /// As the embeddings of random tokens.
    #[default]
    Vocabulary,
    /// As the embeddings of these tokens, again and again (what the caller made of a text).
    Tokens(Vec<u32>),
}

/// Prefix tuning (Li & Liang, 2021, arXiv 2101.00190).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixConfig {
    /// How many.
    pub tokens: i64,
    /// Keys and values come out of a small network while they are learned, of this inner size; absent: they are the
    /// parameters themselves.
    pub projection: Option<i64>,
}

impl Default for PrefixConfig {
    fn default() -> Self {
        Self { tokens: 20, projection: None }
    }
}

/// Bottleneck adapters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BottleneckConfig {
    /// Where they are and what they take in.
    pub kind: BottleneckKind,
    /// The hidden size is divided by it; absent: 16, of parallel ones 2.
    pub reduction: Option<f64>,
    /// Absent: relu, of Houlsby's swish.
    pub activation: Option<Activation>,
    /// What they give is multiplied by it; absent: 1, of parallel ones 4.
    pub scaling: Option<f64>,
}

/// Kinds of bottleneck adapters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckKind {
    /// Behind attention and feed-forward (AdapterHub's `double_seq_bn`).
    Houlsby,
    /// Behind the feed-forward (`seq_bn`).
    #[default]
    Pfeiffer,
    /// Beside the feed-forward (`par_bn`); nothing changes at the start.
    Parallel,
}

impl BottleneckConfig {
    /// The divisor of the hidden size.
    pub fn reduction(&self) -> f64 {
        self.reduction.unwrap_or(if self.kind == BottleneckKind::Parallel { 2.0 } else { 16.0 })
    }

    /// The activation between the two.
    pub fn activation(&self) -> Activation {
        let usual = if self.kind == BottleneckKind::Houlsby { Activation::Silu } else { Activation::Relu };
        self.activation.unwrap_or(usual)
    }

    /// The factor of what they give.
    pub fn scaling(&self) -> f64 {
        self.scaling.unwrap_or(if self.kind == BottleneckKind::Parallel { 4.0 } else { 1.0 })
    }
}
