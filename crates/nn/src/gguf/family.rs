//! The families: what llama.cpp and Hugging Face call the same thing.

/// A family of models, as GGUF tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

/// The names of tensors outside the layers: GGUF's and Hugging Face's.
const WHOLE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The names inside a layer.
const LAYER: [(&str, &str); 10] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The other norms, which Gemma has more of.
const NORMS: [(&str, &str); 1] = [("ffn_norm", "post_attention_layernorm")];
const GEMMA_NORMS: [(&str, &str); 3] = [
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

impl Family {
    const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    /// `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    /// `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Gemma3 => "gemma3_text",
            other => other.name(),
        }
    }

    /// By `general.architecture`.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// By `model_type`. A Mistral is a Llama that may see a window.
    pub fn of_model_type(name: &str) -> Option<Self> {
        match name {
            "mistral" => Some(Self::Llama),
            _ => Self::ALL.into_iter().find(|f| f.model_type() == name),
        }
    }

    /// For messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Whether the two halves of a head that rotate together lie interleaved in GGUF.
    pub fn interleaves(self) -> bool {
        self == Self::Llama
    }

    /// Whether norms hold weight - 1 at Hugging Face and weight in GGUF.
    pub fn offset_norms(self) -> bool {
        self == Self::Gemma3
    }

    fn layer_names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let norms: &[_] = if self == Self::Gemma3 { &GEMMA_NORMS } else { &NORMS };
        LAYER.into_iter().chain(norms.iter().copied())
    }

    /// Hugging Face's name of a tensor. None: no tensor of such a model.
    pub fn to_hugging_face(self, name: &str) -> Option<String> {
        let (path, part) = name.rsplit_once('.').filter(|(_, part)| matches!(*part, "weight" | "bias"))?;
        if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == path) {
            return Some(format!("{theirs}.{part}"));
        }
        let (layer, inner) = path.strip_prefix("blk.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (_, theirs) = self.layer_names().find(|(ours, _)| *ours == inner)?;
        Some(format!("model.layers.{layer}.{theirs}.{part}"))
    }

    /// GGUF's name of a tensor.
    pub fn to_gguf(self, name: &str) -> Option<String> {
        let (path, part) = name.rsplit_once('.').filter(|(_, part)| matches!(*part, "weight" | "bias"))?;
        if let Some((ours, _)) = WHOLE.iter().find(|(_, theirs)| *theirs == path) {
            return Some(format!("{ours}.{part}"));
        }
        let (layer, inner) = path.strip_prefix("model.layers.")?.split_once('.')?;
        let (ours, _) = self.layer_names().find(|(_, theirs)| *theirs == inner)?;
        Some(format!("blk.{layer}.{ours}.{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for family in Family::ALL {
            for (ours, _) in WHOLE {
                let name = format!("{ours}.weight");
                let theirs = family.to_hugging_face(&name).unwrap();
                assert_eq!(family.to_gguf(&theirs).unwrap(), name);
            }
            for (ours, _) in family.layer_names() {
                let name = format!("blk.17.{ours}.bias");
                let theirs = family.to_hugging_face(&name).unwrap();
                assert_eq!(family.to_gguf(&theirs).unwrap(), name);
            }
        }
        assert_eq!(
            Family::Gemma3.to_hugging_face("blk.0.ffn_norm.weight").unwrap(),
            "model.layers.0.pre_feedforward_layernorm.weight"
        );
        assert_eq!(
            Family::Qwen3.to_hugging_face("blk.0.ffn_norm.weight").unwrap(),
            "model.layers.0.post_attention_layernorm.weight"
        );
        for odd in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk.0.ffn_gate_exps.weight", "output"] {
            assert_eq!(Family::Llama.to_hugging_face(odd), None, "{odd}");
        }
    }
}
