//! Where special tokens go: the post-processor of a tokenizer, read once as a list of slots.
//!
//! `tokenizers` knows several post-processors (template, BERT, RoBERTa, sequences of them). All of them only put
//! constant tokens around the texts and set type ids, so one probe with marker tokens shows everything: what is not a
//! marker is a constant. Assembling ids from slots then costs one copy, and truncation is ours.

use crate::{Error, Result};

/// One piece of an encoded input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A constant token.
    Special { id: u32, type_id: u32 },
    /// The tokens of the first text.
    First { type_id: u32 },
    /// The tokens of the second text.
    Second { type_id: u32 },
}

/// The slots of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout(pub(crate) Vec<Slot>);

/// The four layouts of a tokenizer.
#[derive(Debug, Clone)]
pub(crate) struct Layouts {
    single: Layout,
    single_bare: Layout,
    pair: Layout,
    pair_bare: Layout,
}

// No vocabulary reaches these ids: they would need an embedding matrix of 2^32 rows.
const FIRST: u32 = u32::MAX - 1;
const SECOND: u32 = u32::MAX - 2;

impl Layouts {
    pub(crate) fn probe(tokenizer: &tokenizers::Tokenizer) -> Result<Self> {
        Ok(Self {
            single: Layout::probe(tokenizer, false, true)?,
            single_bare: Layout::probe(tokenizer, false, false)?,
            pair: Layout::probe(tokenizer, true, true)?,
            pair_bare: Layout::probe(tokenizer, true, false)?,
        })
    }

    /// All in one segment.
    pub(crate) fn drop_types(&mut self) {
        for layout in [&mut self.single, &mut self.single_bare, &mut self.pair, &mut self.pair_bare] {
            for slot in &mut layout.0 {
                let (Slot::Special { type_id, .. } | Slot::First { type_id } | Slot::Second { type_id }) =
                    slot;
                *type_id = 0;
            }
        }
    }

    pub(crate) fn single(&self, add_special_tokens: bool) -> &Layout {
        if add_special_tokens { &self.single } else { &self.single_bare }
    }

    pub(crate) fn pair(&self, add_special_tokens: bool) -> &Layout {
        if add_special_tokens { &self.pair } else { &self.pair_bare }
    }
}

impl Layout {
    fn probe(tokenizer: &tokenizers::Tokenizer, pair: bool, add_special_tokens: bool) -> Result<Self> {
        let marker = |id: u32, type_id: u32| {
            let token = tokenizers::Token::new(id, String::new(), (0, 0));
            tokenizers::Encoding::from_tokens(vec![token], type_id)
        };
        let second = pair.then(|| marker(SECOND, 1));
        let encoding = tokenizer.post_process(marker(FIRST, 0), second, add_special_tokens).map_err(|e| {
            Error::Invalid {
                path: "tokenizer.json".into(),
                reason: format!("the post_processor does not work: {e}"),
            }
        })?;
        let slots: Vec<Slot> = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_type_ids())
            .map(|(&id, &type_id)| match id {
                FIRST => Slot::First { type_id },
                SECOND => Slot::Second { type_id },
                id => Slot::Special { id, type_id },
            })
            .collect();
        let texts = slots.iter().filter(|s| !matches!(s, Slot::Special { .. })).count();
        if texts != 1 + usize::from(pair) {
            return Err(Error::Invalid {
                path: "tokenizer.json".into(),
                reason: format!(
                    "the post_processor places {texts} texts where {} go in; its template must name each sequence once",
                    1 + usize::from(pair)
                ),
            });
        }
        Ok(Self(slots))
    }

    /// How many constant tokens the layout adds.
    pub(crate) fn special(&self) -> usize {
        self.0.iter().filter(|s| matches!(s, Slot::Special { .. })).count()
    }

    /// Puts the texts into their slots.
    pub(crate) fn fill(&self, first: &[u32], second: &[u32]) -> crate::Encoding {
        let len = self.special() + first.len() + second.len();
        let (mut ids, mut type_ids) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for slot in &self.0 {
            let type_id = match *slot {
                Slot::Special { id, type_id } => {
                    ids.push(id);
                    type_id
                }
                Slot::First { type_id } => {
                    ids.extend_from_slice(first);
                    type_id
                }
                Slot::Second { type_id } => {
                    ids.extend_from_slice(second);
                    type_id
                }
            };
            type_ids.resize(ids.len(), type_id);
        }
        crate::Encoding { ids, type_ids }
    }
}
