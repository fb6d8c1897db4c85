//! Architectures: a file each. Language models are rows of [`LANGUAGE_MODELS`], encoders variants of [`Architecture`].
//!
//! A new decoder-only model is a file (its config, its layer, a function that builds a `Decoder` of them; `gemma3.rs` shows
//! all there is), a row here, and goldens in `tests/golden/lm`.

mod attention;
mod bert;
mod capped;
mod deberta;
mod decoder;
mod distilbert;
mod electra;
mod encoders;
mod family;
mod gated_mlp;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod granite;
mod heads;
mod llama;
mod modernbert;
mod mpnet;
mod multimodal;
mod olmo2;
mod own_code;
mod pass;
mod phi3;
mod post_norm;
mod pre_norm;
mod relative;
mod roberta;
mod seen;
mod site;
mod spec;
mod stream;
mod t5;
mod t5_config;
mod t5_step;

pub use encoders::Architecture;
pub(crate) use family::Family;
use llama::Member;
pub use multimodal::Multimodal;
pub(crate) use multimodal::text_part;
use own_code::OWN_CODE;
pub(crate) use site::Role;
pub use spec::ArchSpec;
use spec::{Build, LmNames};
use t5_config::Version;

/// The names of Llama's family, which most decoders share.
const LLAMA: LmNames = LmNames {
    prefix: "model.",
    head: "lm_head.weight",
    embedding: "model.embed_tokens.weight",
    embedding_copies: &[],
    buffers: &["rotary_emb.inv_freq"],
};

const T5: LmNames = LmNames {
    prefix: "",
    head: "lm_head.weight",
    embedding: "shared.weight",
    embedding_copies: &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"],
    // Of checkpoints that were converted early on.
    buffers: &["EncDecAttention.relative_attention_bias.weight"],
};

/// The language models.
pub static LANGUAGE_MODELS: [ArchSpec; 15] = [
    // Llama 1 to 3 and SmolLM2.
    ArchSpec {
        model_type: "llama",
        class: "LlamaForCausalLM",
        bare: "LlamaModel",
        classifier: Some("LlamaForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(|c, b| llama::build(c, b, Member::Llama)),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "mistral",
        class: "MistralForCausalLM",
        bare: "MistralModel",
        classifier: Some("MistralForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(|c, b| llama::build(c, b, Member::Mistral)),
        settings: |_, _| Vec::new(),
    },
    // Qwen2 and Qwen2.5.
    ArchSpec {
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        bare: "Qwen2Model",
        classifier: Some("Qwen2ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(|c, b| llama::build(c, b, Member::Qwen2)),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        bare: "Qwen3Model",
        classifier: Some("Qwen3ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(|c, b| llama::build(c, b, Member::Qwen3)),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        bare: "SmolLM3Model",
        classifier: Some("SmolLM3ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(|c, b| llama::build(c, b, Member::SmolLm3)),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        bare: "Gemma2Model",
        classifier: Some("Gemma2ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(gemma2::build),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        bare: "Gemma3TextModel",
        classifier: Some("Gemma3TextForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(gemma3::build),
        settings: |_, _| Vec::new(),
    },
    // Granite 3 and 4, dense: transformers 5.3 has no class with a classification head.
    ArchSpec {
        model_type: "granite",
        class: "GraniteForCausalLM",
        bare: "GraniteModel",
        classifier: None,
        names: LLAMA,
        build: Build::Decoder(granite::build),
        settings: |_, _| Vec::new(),
    },
    ArchSpec {
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        bare: "Olmo2Model",
        classifier: Some("Olmo2ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(olmo2::build),
        settings: |_, _| Vec::new(),
    },
    // Phi-3, Phi-3.5, Phi-4 and Phi-4-mini.
    ArchSpec {
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        bare: "Phi3Model",
        classifier: Some("Phi3ForSequenceClassification"),
        names: LLAMA,
        build: Build::Decoder(phi3::build),
        // transformers 5.3 lets this key, 1 where it is missing, win over the table that 5.24 writes it in.
        settings: |c, _| vec![("partial_rotary_factor", phi3::rotary_share(c).into())],
    },
    ArchSpec {
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        bare: "GPT2Model",
        classifier: Some("GPT2ForSequenceClassification"),
        names: LmNames {
            prefix: "transformer.",
            embedding: "transformer.wte.weight",
            buffers: &[".attn.bias", ".attn.masked_bias"],
            ..LLAMA
        },
        build: Build::Decoder(gpt2::build),
        settings: |_, _| Vec::new(),
    },
    // GPT-NeoX and Pythia.
    ArchSpec {
        model_type: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        bare: "GPTNeoXModel",
        classifier: Some("GPTNeoXForSequenceClassification"),
        names: LmNames {
            prefix: "gpt_neox.",
            head: "embed_out.weight",
            embedding: "gpt_neox.embed_in.weight",
            embedding_copies: &[],
            buffers: &[".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"],
        },
        build: Build::Decoder(gpt_neox::build),
        // transformers 5.3 reads `rotary_pct` but writes `rope_parameters.partial_rotary_factor`.
        settings: |c, _| vec![("rotary_pct", gpt_neox::rotary_share(c).into())],
    },
    // T5 and Flan-T5.
    ArchSpec {
        model_type: "t5",
        class: "T5ForConditionalGeneration",
        bare: "T5Model",
        classifier: None,
        names: T5,
        build: Build::EncoderDecoder(|c, b| t5::build(c, Version::T5, b)),
        settings: |c, own| t5_config::explicit_head(c, Version::T5, own),
    },
    ArchSpec {
        model_type: "mt5",
        class: "MT5ForConditionalGeneration",
        bare: "MT5Model",
        classifier: None,
        names: T5,
        build: Build::EncoderDecoder(|c, b| t5::build(c, Version::Mt5, b)),
        settings: |c, own| t5_config::explicit_head(c, Version::Mt5, own),
    },
    ArchSpec {
        model_type: "umt5",
        class: "UMT5ForConditionalGeneration",
        bare: "UMT5Model",
        classifier: None,
        names: T5,
        build: Build::EncoderDecoder(|c, b| t5::build(c, Version::Umt5, b)),
        settings: |c, own| t5_config::explicit_head(c, Version::Umt5, own),
    },
];

/// Checkpoints of several models whose language model is read.
pub static MULTIMODAL: [Multimodal; 1] = [Multimodal {
    model_type: "gemma3",
    text: "gemma3_text",
    renamed: &[
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        // As transformers 5 names them in memory.
        ("model.language_model.", "model."),
    ],
    left_out: &[
        "vision_tower.",
        "multi_modal_projector.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ],
}];

/// The `model_type`s that are read as language models, for error messages.
pub(crate) fn language_model_types() -> String {
    let whole = LANGUAGE_MODELS.iter().map(|s| s.model_type);
    whole.chain(MULTIMODAL.iter().map(|m| m.model_type)).collect::<Vec<_>>().join(", ")
}

/// The `model_type`s that become classifiers, for error messages.
pub(crate) fn classifier_types() -> String {
    with_encoders(|s| s.classifier.is_some())
}

/// The `model_type`s that become encoders of retrievers, for error messages.
pub(crate) fn encoder_types() -> String {
    with_encoders(ArchSpec::is_decoder_only)
}

/// The encoders and those language models.
fn with_encoders(which: impl Fn(&ArchSpec) -> bool) -> String {
    let encoders = Architecture::MODEL_TYPES.iter().map(|(name, _)| *name);
    let decoders = LANGUAGE_MODELS.iter().filter(|s| which(s)).map(|s| s.model_type);
    let parts = MULTIMODAL.iter().map(|m| m.model_type);
    let own_code = OWN_CODE.iter().map(|c| c.model_type);
    encoders.chain(decoders).chain(parts).chain(own_code).collect::<Vec<_>>().join(", ")
}

/// The paths of the language models' output projections.
pub(crate) fn lm_heads() -> impl Iterator<Item = &'static str> {
    LANGUAGE_MODELS.iter().map(|s| s.names.head.trim_end_matches(".weight"))
}
