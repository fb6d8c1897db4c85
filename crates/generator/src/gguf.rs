//! A generator as a GGUF file, for llama.cpp and Ollama.

use crate::error::{Error, Result};
use crate::model::Generator;
use ragduet_gguf::TensorType;
use ragduet_nn::save_gguf;
use std::path::Path;

impl Generator {
    /// Writes the model, its tokenizer and its chat template as one GGUF file under the name `name`, matrices in `kind`
    /// (F32, F16, BF16 or Q8_0). Returns what llama.cpp will do otherwise. An adapter must be merged first
    /// ([`Generator::merge`]).
    ///
    /// # Errors
    /// A model or tokenizer that llama.cpp has no counterpart of; an adapter that acts; numbers that the type does not hold.
    pub fn save_gguf(&self, path: &Path, kind: TensorType, name: &str) -> Result<Vec<String>> {
        if self.adapter.is_some() {
            return Err(Error::Unusable(
                "an adapter acts over the model: merge it before it is written".into(),
            ));
        }
        let words = self.tokenizer.to_gguf(self.model.kind.vocab_size(), &self.eos())?;
        let mut notes = words.notes;
        if self.tokenizer.chat_template()?.is_none() {
            notes.push(
                "the model has no chat template: llama.cpp's chat mode will guess one; give it whole prompts instead".into(),
            );
        }
        let halves = save_gguf(&self.model, path, kind, name, words.metadata)?;
        if halves > 0 {
            notes.push(format!(
                "{halves} matrices are F16: their rows are no multiple of the blocks of {kind}"
            ));
        }
        Ok(notes)
    }
}
