//! The config of PEFT methods.

use super::targets::Targets;
use crate::Activation;
use ragduet_torch::{Bits, Compute, Quantize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Method of parameter-efficient fine-tuning and its settings, written as `[peft.lora]`, `[peft.ia3]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeftConfig {
    /// LoRA: low-rank updates of weight matrices.
    Lora(LoraConfig),
    /// (IA)^3: learned scaling of keys, values and feed-forward activations.
    Ia3(Ia3Config),
    /// Prompt tuning: learned embeddings before the text.
    Prompt(PromptConfig),
    /// Prefix tuning: learned keys and values before the text in every layer.
    Prefix(PrefixConfig),
    /// Bottleneck adapters: small networks after or beside the sub-layers.
    Bottleneck(BottleneckConfig),
}

impl PeftConfig {
    /// How frozen weights of the base are kept under this adapter (see [`Quantize::frozen`]): in f32 where it starts from
    /// them or measures them.
    pub fn kept_as(&self, quantize: Quantize, compute: Compute) -> Option<Bits> {
        match self {
            PeftConfig::Lora(c) if c.dora || c.init == LoraInit::Pissa || !c.modules_to_save.is_empty() => {
                quantize.bits()
            }
            _ => quantize.frozen(compute),
        }
    }

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
    /// Rank r of the updates.
    pub rank: i64,
    /// Scaling: updates are multiplied by alpha / rank.
    pub alpha: f64,
    /// Dropout of the input of an update.
    pub dropout: f64,
    /// Target modules: linear layers and embeddings that get an update.
    pub targets: Targets,
    /// Modules excluded although `targets` matches them.
    pub exclude: Vec<String>,
    /// Layer numbers that get updates; empty: all layers.
    pub layers: Vec<u32>,
    /// Names of the lists that `layers` counts in (`layers`, `block`); empty: the first number of a module's path.
    pub layers_pattern: Vec<String>,
    /// Training of biases.
    pub bias: LoraBias,
    /// Whether B matrices have a bias.
    pub lora_bias: bool,
    /// Tokens whose embeddings are trained in full: ids, or ids by lookup table. A head tied to the table follows.
    pub trainable_token_indices: Option<TokenRows>,
    /// Ranks of single modules, by name pattern.
    pub rank_pattern: BTreeMap<String, i64>,
    /// Alphas of single modules, by name pattern.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// rsLoRA: scaling by alpha / sqrt(rank).
    pub rank_stabilized: bool,
    /// DoRA: magnitude and direction of the weight rows are learned separately.
    pub dora: bool,
    /// Initialization.
    pub init: LoraInit,
    /// Modules trained in full, in a copy stored with the adapter (`lm_head`, `embed_tokens`, a classification head).
    pub modules_to_save: Vec<String>,
    /// LoRA+: ratio of the B matrices' learning rate to the A matrices' (Hayou et al., 2024, arXiv 2402.12354).
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
            layers_pattern: Vec::new(),
            bias: LoraBias::None,
            lora_bias: false,
            trainable_token_indices: None,
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

/// Rows of lookup tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TokenRows {
    /// Token ids of the token embedding.
    Words(Vec<u32>),
    /// Token ids by the name of a lookup table.
    ByTable(BTreeMap<String, Vec<u32>>),
}

/// Initialization of LoRA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// A uniform as in a linear layer, B zero: the initial update is zero.
    #[default]
    Kaiming,
    /// A normal with standard deviation 1 / rank, B zero: the initial update is zero.
    Gaussian,
    /// PiSSA (Meng et al., 2024, arXiv 2404.02948): B A starts as the weight's leading singular vectors, subtracted
    /// from the base. The initial update is zero. Saved as a LoRA of twice the rank over the unchanged base, as peft's
    /// conversion does. Dropout applies to the change from the start.
    Pissa,
}

/// Training of biases. Trained biases belong to the adapter; the base stays unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// No bias is trained.
    #[default]
    None,
    /// Biases of the target modules.
    LoraOnly,
    /// All biases of the model, those of norms included.
    All,
}

/// (IA)^3 (Liu et al., 2022, arXiv 2205.05638): keys, values and inner feed-forward activations are multiplied by
/// learned vectors, initialized to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3Config {
    /// Modules whose outputs are scaled; absent: keys and values, as in the paper.
    pub targets: Option<Targets>,
    /// Modules whose inputs are scaled; absent: the last feed-forward projection.
    pub feedforward: Option<Targets>,
}

/// Prompt tuning (Lester et al., 2021, arXiv 2104.08691).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptConfig {
    /// Number of soft tokens.
    pub tokens: i64,
    /// Initialization.
    pub init: PromptInit,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self { tokens: 20, init: PromptInit::default() }
    }
}

/// Initialization of a soft prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptInit {
    /// Normal distribution with the standard deviation of the token embeddings.
    Random,
    /// Embeddings of random vocabulary tokens.
    #[default]
    Vocabulary,
    /// Embeddings of the given token ids, repeated as needed.
    Tokens(Vec<u32>),
}

/// Prefix tuning (Li & Liang, 2021, arXiv 2101.00190).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixConfig {
    /// Number of prefix tokens.
    pub tokens: i64,
    /// Reparametrization: hidden size of the MLP that produces keys and values during training; absent: they are
    /// trained directly.
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
    /// Placement: `houlsby`, `pfeiffer` or `parallel`.
    pub kind: BottleneckKind,
    /// Reduction factor: inner size = hidden size / reduction; absent: 16, for `parallel` 2.
    pub reduction: Option<f64>,
    /// Reduction factors of single layers, by number.
    pub reductions: BTreeMap<u32, f64>,
    /// Numbers of the layers that get no adapter.
    pub leave_out: Vec<u32>,
    /// Activation; absent: relu, for `houlsby` swish.
    pub activation: Option<Activation>,
    /// Scaling of the adapter's output; absent: 1, for `parallel` 4.
    pub scaling: Option<f64>,
}

/// Placement of bottleneck adapters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BottleneckKind {
    /// After attention and after the feed-forward (AdapterHub's `double_seq_bn`).
    Houlsby,
    /// After the feed-forward (`seq_bn`).
    #[default]
    Pfeiffer,
    /// Beside the feed-forward (`par_bn`); the initial output is zero.
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
