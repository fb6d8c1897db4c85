//! The card of a generator.

use crate::Generator;
use ragduet_nn::LmKind;
use ragduet_train::Card;

/// The card of a generator that started from `base`.
pub(super) fn card(what: &'static str, generator: &Generator, base: Option<&str>, data: String) -> Card {
    let (task, class) = match generator.model.kind {
        LmKind::Causal(_) => ("text-generation", "CausalLM"),
        LmKind::Seq2Seq(_) => ("text2text-generation", "Seq2SeqLM"),
    };
    let adapted = generator.adapter.is_some();
    let (library, auto) =
        if adapted { ("peft", "AutoPeftModelFor") } else { ("transformers", "AutoModelFor") };
    let code = format!(
        "from {library} import {auto}{class}\nfrom transformers import AutoTokenizer\n\n\
         model = {auto}{class}.from_pretrained(\"path/to/this/folder\")\n\
         tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/folder\")\n\
         # The prompt it was trained with is in ragduet_prompt.json; `ragduet generate -g` uses it."
    );
    let base = base.map(String::from);
    Card { library, task, tags: vec!["rag"], what, base, data, code, ..Card::default() }
}
