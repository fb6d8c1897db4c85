//! Sequence classification and regression: an encoder or a decoder-only model with a head, as the directories of
//! transformers' `AutoModelForSequenceClassification` (and sentence-transformers' `CrossEncoder`) hold them.

use crate::arch::{self, ArchSpec, Architecture, Role};
use crate::config_source::ConfigSource;
use crate::layers::LayerNorm;
use crate::model_dir::{MAX_SHARD_BYTES, open_weights, read_config, write_json};
use crate::peft::{Base, Sites, is_inner};
use crate::{Activation, CausalLm, Encoder, Error, Linear, LmKind, Mode, PackedTokens, Result};
use fs_err as fs;
use ragduet_torch::weights::save_model;
use ragduet_torch::{Bits, Device, Kind, LoadReport, ParamBuilder, ParamStore, Tensor};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A model with a classification head, its parameters, and the config it was made from.
#[derive(Debug)]
pub struct SequenceClassifier {
    body: Body,
    head: Head,
    /// Its parameters by Hugging Face name.
    pub params: ParamStore,
    /// `config.json` as read, with the labels it has now.
    pub config: Value,
    /// What the checkpoint gave.
    pub report: LoadReport,
    /// Where adapters go.
    pub sites: Sites,
    words: String,
    dropout: f64,
}

#[derive(Debug)]
enum Body {
    Encoder(Box<dyn Encoder>),
    Causal(Box<dyn CausalLm>),
}

/// What stands on the states of a text.
#[derive(Debug)]
enum Head {
    /// classifier(dropout(act(dense(dropout(first))))): BERT's and DeBERTa's poolers, RoBERTa's, MPNet's, DistilBERT's and
    /// ELECTRA's heads.
    Dense { dense: Linear, activation: Squash, drop_input: bool, classifier: Linear },
    /// ModernBERT: classifier(dropout(norm(act(dense(pooled))))).
    Normed { dense: Linear, activation: Activation, norm: LayerNorm, mean: bool, classifier: Linear },
    /// Of the last token.
    Score(Linear),
}

#[derive(Debug, Clone, Copy)]
enum Squash {
    Tanh,
    Relu,
    Gelu,
}

/// New labels over whatever the directory holds; its head then starts afresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Their names, in the order of the logits; one for a regression.
    pub names: Vec<String>,
    /// `single_label_classification`, `multi_label_classification` or `regression`.
    pub problem: String,
}

impl SequenceClassifier {
    /// Reads a directory, strictly. With `labels` a directory of the bare model, or of one with another head, will do:
    /// the head is drawn from the global generators.
    ///
    /// # Errors
    /// An architecture or setting that is not known; a head that is missing where none may be drawn; weights that do
    /// not fit.
    pub fn load(dir: &Path, device: Device, labels: Option<&Labels>) -> Result<Self> {
        Self::load_quantised(dir, device, labels, None)
    }

    /// [`SequenceClassifier::load`] with the layers' weights in 8 or 4 bits, each as soon as it is read; embeddings, norms,
    /// biases and the head stay in f32. Of such a model the head alone trains, and what an adapter adds.
    ///
    /// # Errors
    /// As [`SequenceClassifier::load`], and on weights that are not finite.
    pub fn load_quantised(
        dir: &Path,
        device: Device,
        labels: Option<&Labels>,
        bits: Option<Bits>,
    ) -> Result<Self> {
        let (path, config) = read_config(dir)?;
        let (mut config, whole) = arch::text_part(config);
        // An output layer made for the very same labels goes on from where it is.
        let new_output = labels.is_some_and(|l| l.names != label_names(&config));
        if let Some(labels) = labels {
            set_labels(&mut config, labels);
        }
        let family = Family::of(&path, &config)?;
        let prefix = family.prefix();
        let (mut weights, mut left_out) = (open_weights(dir)?, Vec::new());
        if let Some(whole) = whole {
            (weights, left_out) = whole.text_weights(weights);
            whole.warn(dir, &left_out);
        }
        let weights = weights.renamed(|name| {
            let renewed = new_output && is_output(name);
            let old = match name.rsplit_once('.') {
                Some((at, "gamma")) if at.ends_with("Norm") => format!("{at}.weight"),
                Some((at, "beta")) if at.ends_with("Norm") => format!("{at}.bias"),
                _ => name.to_string(),
            };
            let own_pooler = family.has_own_pooler() && is_pooler(&old);
            let bare = !old.starts_with(prefix) && !is_head(&old) && !other_head(&old) && !own_pooler;
            // A head for other labels is none of ours.
            let new = match (renewed, bare) {
                (true, _) => format!("replaced.{old}"),
                (_, true) => format!("{prefix}{old}"),
                _ => old.clone(),
            };
            (new != name).then_some(new)
        });
        let builder = ParamBuilder::from_weights(weights, device).quantising(bits, is_layers);
        let fresh = |name: &str| labels.is_some() && (is_head(name) || is_pooler(name));
        let mut model = Self::build(family, &path, config, builder, fresh)?;
        model.report.ignored.extend(left_out);
        Ok(model)
    }

    /// A model of this config with random weights (seed the generators first).
    ///
    /// # Errors
    /// An architecture or setting that is not known.
    pub fn fresh(config: Value, device: Device) -> Result<Self> {
        let path = Path::new("config.json");
        let (config, _) = arch::text_part(config);
        let family = Family::of(path, &config)?;
        Self::build(family, path, config, ParamBuilder::fresh(device), |_| true)
    }

    fn build(
        family: Family,
        path: &Path,
        config: Value,
        b: ParamBuilder,
        fresh: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let source = ConfigSource { path, json: &config };
        let body = match family {
            Family::Encoder(arch) => {
                Body::Encoder(arch.build(&source, &b.at(family.prefix().trim_end_matches('.')))?)
            }
            Family::Causal(arch, _) => match arch.build(&source, &b, Role::Classifier)? {
                LmKind::Causal(lm) => Body::Causal(lm),
                LmKind::Seq2Seq(_) => return source.unsupported("model_type", &arch::classifier_types()),
            },
        };
        let hidden = match &body {
            Body::Encoder(e) => e.hidden_size(),
            Body::Causal(lm) => lm.hidden_size(),
        };
        let head = family.head(&source, hidden, label_count(&config), &b)?;
        let words = family.words();
        let sites = Sites::of(&b);
        let (params, report) = b.finish(fresh, |name| unused(name, family))?;
        let p = |key: &str| source.number(key);
        let dropout = ["classifier_dropout", "seq_classif_dropout", "cls_dropout"].into_iter().find_map(p);
        let dropout = dropout.or_else(|| p("hidden_dropout_prob")).unwrap_or(0.0);
        Ok(Self { body, head, params, config, report, sites, words, dropout })
    }

    /// Writes what AutoModelForSequenceClassification loads.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let path = dir.join("config.json");
        let family = Family::of(&path, &self.config)?;
        let kind = self.config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let mut config = self.config.clone();
        if let Some(map) = config.as_object_mut() {
            map.shift_remove("torch_dtype");
            map.insert("dtype".into(), "float32".into());
            map.insert("architectures".into(), json!([family.class(kind)]));
        }
        if let Family::Causal(arch, _) = family {
            arch.complete(&ConfigSource { path: &path, json: &self.config }, false, &mut config);
        }
        write_json(&path, &config)?;
        Ok(save_model(dir, &self.params.named(), MAX_SHARD_BYTES)?)
    }

    /// Logits [texts, labels] in f32.
    ///
    /// # Panics
    /// On token ids outside the vocabulary, texts without tokens, and texts longer than [`SequenceClassifier::max_tokens`].
    pub fn forward(&self, batch: &PackedTokens, m: Mode) -> Tensor {
        let states = match &self.body {
            Body::Encoder(e) => e.forward(batch, m),
            Body::Causal(lm) => lm.forward(batch, m),
        };
        let offsets = batch.segments.offsets();
        let at =
            |rows: Vec<i64>| states.index_select(0, &Tensor::from_slice(&rows).to_device(states.device()));
        let first = || at(offsets[..offsets.len() - 1].to_vec());
        let p = m.dropout(self.dropout);
        let drop = |x: Tensor| if p > 0.0 { x.dropout(p, true) } else { x };
        let logits = match &self.head {
            Head::Dense { dense, activation, drop_input, classifier } => {
                let x = if *drop_input { drop(first()) } else { first() };
                let x = dense.forward(&x, m).to_kind(Kind::Float);
                let x = match activation {
                    Squash::Tanh => x.tanh(),
                    Squash::Relu => x.relu(),
                    Squash::Gelu => x.gelu("none"),
                };
                classifier.forward(&drop(x), m)
            }
            Head::Normed { dense, activation, norm, mean, classifier } => {
                let pooled = if *mean { means(&states, offsets) } else { first() };
                let x = activation.apply(&dense.forward(&pooled, m)).to_kind(Kind::Float);
                classifier.forward(&drop(norm.forward(&x, m)), m)
            }
            Head::Score(score) => score.forward(&at(offsets[1..].iter().map(|end| end - 1).collect()), m),
        };
        logits.to_kind(Kind::Float)
    }

    /// The names of the labels, in the order of the logits.
    pub fn labels(&self) -> Vec<String> {
        label_names(&self.config)
    }

    /// `single_label_classification`, `multi_label_classification` or `regression`, where the config says so.
    pub fn problem(&self) -> Option<&str> {
        self.config.get("problem_type").and_then(Value::as_str)
    }

    /// Replaces the config's dropout: in the hidden layers and before the output, and on attention probabilities.
    pub fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(p) = hidden {
            self.dropout = p;
        }
        match &mut self.body {
            Body::Encoder(e) => e.set_dropout(hidden, attention),
            Body::Causal(lm) => lm.set_dropout(hidden, attention),
        }
    }

    /// Whether layers run again in the backward pass instead of keeping what they computed; false where that is not
    /// to be had (encoders).
    pub fn set_recompute(&mut self, on: bool) -> bool {
        match &mut self.body {
            Body::Encoder(_) => !on,
            Body::Causal(lm) => {
                lm.set_recompute(on);
                true
            }
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> usize {
        match &self.body {
            Body::Encoder(e) => e.vocab_size(),
            Body::Causal(lm) => lm.vocab_size(),
        }
    }

    /// Whether two texts are told apart by segment ids.
    pub fn is_encoder(&self) -> bool {
        matches!(self.body, Body::Encoder(_))
    }

    /// The longest text.
    pub fn max_tokens(&self) -> usize {
        match &self.body {
            Body::Encoder(e) => e.max_tokens(),
            Body::Causal(lm) => lm.max_tokens().unwrap_or_else(|| lm.context_length()),
        }
    }

    /// Number of transformer layers.
    pub fn layers(&self) -> usize {
        match &self.body {
            Body::Encoder(e) => e.layers(),
            Body::Causal(lm) => lm.layers(),
        }
    }

    /// For layer-wise learning rates and freezing: 0 for embeddings, 1.. for layers, None for the head.
    pub fn depth_of(&self, parameter: &str) -> Option<usize> {
        match &self.body {
            Body::Encoder(e) => e.depth_of(parameter.split_once('.').map_or(parameter, |(_, rest)| rest)),
            Body::Causal(lm) => lm.depth_of(parameter),
        }
    }

    /// The parameters that the checkpoint did not have and those of the output layer: what training cannot leave alone.
    pub fn new_parts(&self) -> Vec<String> {
        let fresh = |n: &str| self.report.fresh.iter().any(|f| f == n);
        let names = self.params.iter().map(|(n, _)| n);
        names.filter(|n| is_output(n) || fresh(n)).map(String::from).collect()
    }

    /// The paths of the linear layers of the head.
    pub fn head_modules(&self) -> Vec<String> {
        let paths = self.sites.linear_paths();
        paths.filter(|n| is_head(&format!("{n}.")) || is_pooler(n)).map(String::from).collect()
    }

    /// What an adapter goes over.
    pub fn base(&self, device: Device) -> Base<'_> {
        Base { sites: &self.sites, params: &self.params, words: &self.words, device, config: &self.config }
    }
}

/// The mean of each text's states.
fn means(states: &Tensor, offsets: &[i64]) -> Tensor {
    let lengths: Vec<i64> = offsets.windows(2).map(|w| w[1] - w[0]).collect();
    let parts = states.split_with_sizes(&lengths, 0);
    Tensor::stack(&parts.iter().map(|t| t.mean_dim(0, false, Kind::Float)).collect::<Vec<_>>(), 0)
}

fn label_count(config: &Value) -> i64 {
    let named = config.get("id2label").and_then(Value::as_object).map(|m| m.len() as i64);
    named.or_else(|| config.get("num_labels").and_then(Value::as_i64)).unwrap_or(2)
}

fn label_names(config: &Value) -> Vec<String> {
    let named = config.get("id2label").and_then(Value::as_object);
    let name = |i: usize| {
        let given = named.and_then(|m| m.get(&i.to_string())).and_then(Value::as_str);
        given.map_or_else(|| format!("LABEL_{i}"), String::from)
    };
    (0..label_count(config) as usize).map(name).collect()
}

/// The layer whose rows are the labels.
fn is_output(name: &str) -> bool {
    let (path, _) = name.rsplit_once('.').unwrap_or((name, ""));
    matches!(path, "classifier" | "classifier.out_proj" | "score")
}

fn set_labels(config: &mut Value, labels: &Labels) {
    let Some(map) = config.as_object_mut() else { return };
    let ids: Map<String, Value> =
        labels.names.iter().enumerate().map(|(i, n)| (i.to_string(), n.clone().into())).collect();
    let back: Map<String, Value> =
        labels.names.iter().enumerate().map(|(i, n)| (n.clone(), i.into())).collect();
    map.insert("id2label".into(), ids.into());
    map.insert("label2id".into(), back.into());
    map.shift_remove("num_labels");
    map.insert("problem_type".into(), labels.problem.clone().into());
}

/// Names of a classifier's own head.
fn is_head(name: &str) -> bool {
    ["classifier.", "pre_classifier.", "head.", "score."].iter().any(|p| name.starts_with(p))
}

/// Names of a pooler.
fn is_pooler(name: &str) -> bool {
    name.starts_with("pooler.") || name.contains(".pooler.")
}

/// Whether the linear layer of this path is one of the layers' own.
fn is_layers(path: &str) -> bool {
    let name = format!("{path}.");
    is_inner(path) && !is_head(&name) && !is_pooler(&name)
}

/// Names of other heads than a classifier's.
fn other_head(name: &str) -> bool {
    let of_lm = |head: &str| name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    [
        "cls.",
        "lm_head.",
        "vocab_",
        "decoder.",
        "replaced.",
        "lm_predictions.",
        "mask_predictions.",
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
    ]
    .iter()
    .any(|p| name.starts_with(p))
        || arch::lm_heads().any(of_lm)
}

fn unused(name: &str, family: Family) -> bool {
    // A pooler that is no part of the head.
    let pooler = !matches!(family, Family::Encoder(Architecture::Bert)) && name.contains(".pooler.");
    let buffer = match family {
        Family::Encoder(_) => name.ends_with("position_ids"),
        Family::Causal(arch, _) => arch.is_unused(name),
    };
    pooler || other_head(name) || buffer
}

/// What a `model_type` is.
#[derive(Debug, Clone, Copy)]
enum Family {
    Encoder(Architecture),
    /// With the class of transformers.
    Causal(&'static ArchSpec, &'static str),
}

impl Family {
    fn of(path: &Path, json: &Value) -> Result<Self> {
        let name = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let encoder = Architecture::from_model_type(name).map(Family::Encoder);
        let causal = || ArchSpec::of(name).and_then(|a| Some(Family::Causal(a, a.classifier?)));
        let found = encoder.or_else(causal);
        found.ok_or_else(|| Error::UnknownArchitecture {
            path: path.into(),
            model_type: name.into(),
            kind: "classifiers",
            supported: arch::classifier_types(),
        })
    }

    /// Whether the pooler stands beside the body and not in it.
    fn has_own_pooler(self) -> bool {
        matches!(self, Family::Encoder(Architecture::DebertaV2))
    }

    /// What stands before the body's names.
    fn prefix(self) -> &'static str {
        match self {
            Family::Encoder(a) => a.head_prefix(),
            Family::Causal(a, _) => a.names.prefix,
        }
    }

    fn words(self) -> String {
        match self {
            Family::Encoder(a) => {
                format!("{}{}", a.head_prefix(), a.words())
            }
            Family::Causal(a, _) => a.names.embedding.trim_end_matches(".weight").into(),
        }
    }

    /// The head on states of `h` numbers, for `n` labels.
    fn head(self, source: &ConfigSource<'_>, h: i64, n: i64, b: &ParamBuilder) -> Result<Head> {
        let std = source.number("initializer_range").unwrap_or(0.02);
        let linear = |path: &str, outputs: i64, bias: bool| Linear::build(&b.at(path), h, outputs, bias, std);
        let dense = |dense: &str, activation, drop_input, classifier: &str| -> Result<Head> {
            Ok(Head::Dense {
                dense: linear(dense, h, true)?,
                activation,
                drop_input,
                classifier: linear(classifier, n, true)?,
            })
        };
        match self {
            Family::Causal(..) => Ok(Head::Score(linear("score", n, false)?)),
            Family::Encoder(Architecture::Bert) => {
                dense("bert.pooler.dense", Squash::Tanh, false, "classifier")
            }
            Family::Encoder(Architecture::Roberta | Architecture::MpNet) => {
                dense("classifier.dense", Squash::Tanh, true, "classifier.out_proj")
            }
            Family::Encoder(Architecture::DistilBert) => {
                dense("pre_classifier", Squash::Relu, false, "classifier")
            }
            Family::Encoder(Architecture::Electra) => {
                dense("classifier.dense", Squash::Gelu, true, "classifier.out_proj")
            }
            Family::Encoder(Architecture::DebertaV2) => {
                let act = source.json.get("pooler_hidden_act").and_then(Value::as_str).unwrap_or("gelu");
                let act = match act {
                    "gelu" => Squash::Gelu,
                    "tanh" => Squash::Tanh,
                    "relu" => Squash::Relu,
                    _ => return source.unsupported("pooler_hidden_act", "gelu, tanh or relu"),
                };
                if source.number("pooler_hidden_size").is_some_and(|size| size != h as f64) {
                    return source.unsupported("pooler_hidden_size", "the hidden size");
                }
                dense("pooler.dense", act, false, "classifier")
            }
            Family::Encoder(Architecture::ModernBert) => {
                let text = |key: &str| source.json.get(key).and_then(Value::as_str);
                let on = |key: &str| source.json.get(key).and_then(Value::as_bool).unwrap_or(false);
                let name = text("classifier_activation").unwrap_or("gelu");
                let Ok(activation) = serde_json::from_value(name.into()) else {
                    return source.unsupported("classifier_activation", "gelu, gelu_new, relu, silu");
                };
                let eps = source.number("norm_eps").unwrap_or(1e-5);
                Ok(Head::Normed {
                    dense: linear("head.dense", h, on("classifier_bias"))?,
                    activation,
                    norm: LayerNorm::build(&b.at("head.norm"), h, eps, on("norm_bias"))?,
                    mean: text("classifier_pooling") == Some("mean"),
                    classifier: linear("classifier", n, true)?,
                })
            }
        }
    }

    fn class(self, model_type: &str) -> &'static str {
        match self {
            Family::Encoder(Architecture::Bert) => "BertForSequenceClassification",
            Family::Encoder(Architecture::Roberta) => match model_type {
                "xlm-roberta" => "XLMRobertaForSequenceClassification",
                "camembert" => "CamembertForSequenceClassification",
                _ => "RobertaForSequenceClassification",
            },
            Family::Encoder(Architecture::DistilBert) => "DistilBertForSequenceClassification",
            Family::Encoder(Architecture::MpNet) => "MPNetForSequenceClassification",
            Family::Encoder(Architecture::ModernBert) => "ModernBertForSequenceClassification",
            Family::Encoder(Architecture::DebertaV2) => "DebertaV2ForSequenceClassification",
            Family::Encoder(Architecture::Electra) => "ElectraForSequenceClassification",
            Family::Causal(_, class) => class,
        }
    }
}
