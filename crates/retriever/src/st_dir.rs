//! Bi-encoders as sentence-transformers directories, in the layout that versions 5.3 to 6.x all read; models with late
//! interaction as PyLate's, which sentence-transformers 6 reads as well; sparse models as its `SparseEncoder`'s.
//!
//! Reading refuses what it does not know: an unknown module, pooling or activation would silently give other
//! embeddings than the model's authors meant.

mod late;
mod modules;
mod read;
mod write;

pub use late::is_late;
pub use read::{Overrides, load};
pub use write::{save, verify};

/// Module types by the names of the versions before 5.4 and of 6.
pub(crate) fn module_kind(type_name: &str) -> Option<ModuleKind> {
    Some(match type_name {
        "sentence_transformers.models.Transformer"
        | "sentence_transformers.models.Transformer.Transformer"
        | "sentence_transformers.base.modules.transformer.Transformer" => ModuleKind::Transformer,
        "sentence_transformers.models.Pooling"
        | "sentence_transformers.models.Pooling.Pooling"
        | "sentence_transformers.sentence_transformer.modules.pooling.Pooling" => ModuleKind::Pooling,
        "sentence_transformers.models.Normalize"
        | "sentence_transformers.models.Normalize.Normalize"
        | "sentence_transformers.base.modules.normalize.Normalize" => ModuleKind::Normalize,
        "sentence_transformers.models.Dense"
        | "sentence_transformers.models.Dense.Dense"
        | "pylate.models.Dense.Dense"
        | "sentence_transformers.base.modules.dense.Dense" => ModuleKind::Dense,
        "sentence_transformers.models.LayerNorm"
        | "sentence_transformers.models.LayerNorm.LayerNorm"
        | "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm" => ModuleKind::LayerNorm,
        "sentence_transformers.models.Router"
        | "sentence_transformers.models.Router.Router"
        | "sentence_transformers.base.modules.router.Router" => ModuleKind::Router,
        "sentence_transformers.sparse_encoder.models.MLMTransformer"
        | "sentence_transformers.sparse_encoder.models.MLMTransformer.MLMTransformer"
        | "sentence_transformers.sparse_encoder.modules.mlm_transformer.MLMTransformer" => {
            ModuleKind::MlmTransformer
        }
        "sentence_transformers.sparse_encoder.models.SpladePooling"
        | "sentence_transformers.sparse_encoder.models.SpladePooling.SpladePooling"
        | "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling" => {
            ModuleKind::SpladePooling
        }
        "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask" => {
            ModuleKind::TokenMask
        }
        _ => return None,
    })
}

/// The modules that a dense retriever is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModuleKind {
    /// Tokenizer and encoder.
    Transformer,
    /// Tokenizer and encoder with the head of a masked language model.
    MlmTransformer,
    /// Logits of words to weights.
    SpladePooling,
    /// Token states to vector.
    Pooling,
    /// Unit length.
    Normalize,
    /// A projection.
    Dense,
    /// Layer normalization of vectors.
    LayerNorm,
    /// Different modules for queries and documents.
    Router,
    /// Which tokens' vectors are kept (late interaction as sentence-transformers 6 writes it).
    TokenMask,
}
