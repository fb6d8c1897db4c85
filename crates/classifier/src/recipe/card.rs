//! The card of a classifier.

use crate::model::Classifier;
use ragduet_train::Card;
use std::path::Path;

impl Classifier {
    /// The card of a model that started from `base` and learned from `data`.
    pub fn card(&self, what: &'static str, base: &str, data: &Path) -> Card {
        let adapted = self.adapter.is_some();
        let (library, class) = if adapted {
            ("peft", "AutoPeftModelForSequenceClassification")
        } else {
            ("transformers", "AutoModelForSequenceClassification")
        };
        let code = format!(
            "from {library} import {class}\nfrom transformers import AutoTokenizer\n\n\
             model = {class}.from_pretrained(\"path/to/this/folder\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n\
             print(model(**tokenizer([\"...\"], return_tensors=\"pt\")).logits)"
        );
        Card {
            library,
            task: "text-classification",
            what,
            base: Some(base.into()),
            data: data.display().to_string(),
            code,
            ..Card::default()
        }
    }
}
