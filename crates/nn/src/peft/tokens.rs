//! `trainable_token_indices` of peft: some rows of a lookup table, such as those of added special tokens, are others.
//! A head that shares the table's weight has the same rows.

use super::config::TokenRows;
use super::fault::peft;
use super::replaced::copy;
use super::slot::{EmbeddingAdapter, LinearAdapter};
use super::targets::ends;
use crate::{Embedding, Linear, Mode, Result};
use ragduet_torch::{Kind, ParamBuilder, Tensor, no_grad};
use std::rc::Rc;

/// Rows in place of a table's.
#[derive(Debug)]
pub(super) struct Tokens {
    /// [n, dim], f32: the rows themselves, not what is added to the table's.
    rows: Tensor,
    /// [n]: whose rows they are.
    ids: Tensor,
    /// [table's rows]: place in `rows`, or -1.
    place: Tensor,
    /// Whether the head shares the table's weight.
    tied: bool,
}

impl Tokens {
    /// `b` is at the table's path.
    pub fn build(
        b: &ParamBuilder,
        path: &str,
        table: &Embedding,
        ids: &[u32],
        tied: bool,
    ) -> Result<Rc<Self>> {
        let weight = table.weight();
        let size = weight.size()[0];
        let bad = |why: String| Err(peft("peft.lora.trainable_token_indices", why));
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return bad(format!("token {} is named twice", twice[0]));
        }
        match sorted.last() {
            None => return bad(format!("no token of {path} is named")),
            Some(&last) if i64::from(last) >= size => {
                return bad(format!("token {last} is beyond {path}, which has {size} rows"));
            }
            Some(_) => {}
        }
        let device = weight.device();
        let ids: Vec<i64> = ids.iter().map(|&i| i64::from(i)).collect();
        let ids = Tensor::from_slice(&ids).to_device(device);
        let n = ids.size()[0];
        let start = {
            let _guard = no_grad();
            weight.index_select(0, &ids).to_kind(Kind::Float)
        };
        let rows = copy(&b.at("token_adapter"), "trainable_tokens_delta", &start)?;
        let place = Tensor::full([size], -1, (Kind::Int64, device)).index_copy(
            0,
            &ids,
            &Tensor::arange(n, (Kind::Int64, device)),
        );
        Ok(Rc::new(Self { rows, ids, place, tied }))
    }
}

impl EmbeddingAdapter for Tokens {
    fn output(&self, ids: &Tensor, rows: Tensor, _: Mode) -> Tensor {
        let place = self.place.index_select(0, &ids.view(-1));
        let own = self.rows.index_select(0, &place.clamp_min(0)).view_as(&rows);
        own.where_self(&place.ge(0).view(ids.size().as_slice()).unsqueeze(-1), &rows)
    }

    fn merged(&self, table: &Tensor) -> Tensor {
        table.index_copy(0, &self.ids, &self.rows.to_kind(table.kind()))
    }

    fn is_of_head_too(&self) -> bool {
        self.tied
    }

    fn is_some_rows(&self) -> bool {
        true
    }
}

impl LinearAdapter for Tokens {
    fn input(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn output(&self, _: &Linear, x: &Tensor, y: Tensor, _: Mode) -> Tensor {
        let own = x.linear::<&Tensor>(&self.rows.to_kind(x.kind()), None);
        y.index_copy(-1, &self.ids, &own.to_kind(y.kind()))
    }

    fn merged(&self, rows: &Tensor, bias: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        let rows = rows.index_copy(0, &self.ids, &self.rows.to_kind(rows.kind()));
        (rows, bias.map(Tensor::shallow_clone))
    }

    /// It is no target: the table has it.
    fn is_bias_alone(&self) -> bool {
        true
    }

    fn is_of_table_too(&self) -> bool {
        true
    }
}

impl TokenRows {
    /// The tables that are meant, by path, with their tokens. `words`: the path of the token embedding.
    pub(super) fn tables<'a>(&'a self, tables: &[&str], words: &str) -> Result<Vec<(String, &'a [u32])>> {
        match self {
            Self::Words(ids) => Ok(vec![(words.to_string(), ids)]),
            Self::ByTable(all) => {
                let of = |(name, ids): (&String, &'a Vec<u32>)| {
                    let path = tables.iter().find(|path| ends(path, name));
                    let missing = || {
                        let why =
                            format!("there is no lookup table `{name}`; there are {}", tables.join(", "));
                        peft("peft.lora.trainable_token_indices", why)
                    };
                    Ok((path.ok_or_else(missing)?.to_string(), ids.as_slice()))
                };
                all.iter().map(of).collect()
            }
        }
    }
}
