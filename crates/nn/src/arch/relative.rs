//! Attention with T5's relative position bias (Raffel et al., 2020, arXiv 1910.10683, section 2.1), which MPNet has, too.
//!
//! The kernels for packed rows take no bias, so rows are laid out in groups of texts of about the same length, padded
//! within a group: one attention per group instead of one per text.
//!
//! T5's position bias has no place in the kernels for packed rows: texts of about the same length are padded into
//! groups, one attention each; everything else stays packed. During generation all rows of a source (its beams) attend
//! to its keys at once; keys are neither copied nor reordered.

use crate::seq2seq::past_the_end;
use crate::{Embedding, Mode, PackedTokens, Result};
use ragduet_torch::ops::{AttentionOptions, Segments};
use ragduet_torch::{Device, Kind, ParamBuilder, Tensor, no_grad};

/// A learned number per head and bucket of distances.
#[derive(Debug)]
pub(super) struct RelativeBias {
    /// [buckets, heads].
    table: Embedding,
    /// The bucket of each distance below the greatest that is told apart.
    near: Vec<i64>,
    /// The bucket of all greater distances.
    far: i64,
    /// Whether keys after the query are seen; their buckets follow those of the keys before it.
    both_sides: bool,
}

impl RelativeBias {
    pub fn build(b: &ParamBuilder, sizes: &Buckets, both_sides: bool, heads: i64, std: f64) -> Result<Self> {
        let side = if both_sides { sizes.count / 2 } else { sizes.count };
        let exact = side / 2;
        let _guard = no_grad();
        // In torch's own f32 arithmetic: borders of buckets are where the logarithm is an integer, but for rounding.
        let distance = Tensor::arange(sizes.reach, (Kind::Float, Device::Cpu));
        let grown = (&distance / exact as f64).log() / (sizes.reach as f64 / exact as f64).ln()
            * (side - exact) as f64;
        let near: Vec<f32> = grown.try_into().map_err(ragduet_torch::Error::from)?;
        let bucket = |(n, &grown): (usize, &f32)| {
            if (n as i64) < exact { n as i64 } else { (exact + grown as i64).min(side - 1) }
        };
        let near = near.iter().enumerate().map(bucket).collect();
        Ok(Self { table: Embedding::build(b, sizes.count, heads, std)?, near, far: side - 1, both_sides })
    }

    /// Of a key at `relative` places from its query.
    fn bucket(&self, relative: i64) -> i64 {
        let before = if self.both_sides { relative.abs() } else { (-relative).max(0) };
        let within = self.near.get(before as usize).copied().unwrap_or(self.far);
        if self.both_sides && relative > 0 { within + self.far + 1 } else { within }
    }

    /// [heads, n] in f32, of keys at these places from their queries.
    fn of(&self, relative: impl Iterator<Item = i64>, m: Mode) -> Tensor {
        let buckets: Vec<i64> = relative.map(|r| self.bucket(r)).collect();
        let ids = Tensor::from_slice(&buckets).to_device(self.table.weight().device());
        self.table.forward(&ids, m).tr()
    }

    /// What the last `new` queries of a text of `whole` tokens add to the scores of its keys, [heads, new, whole]: minus
    /// infinity for keys that are not seen.
    pub fn last(&self, new: i64, whole: i64, m: Mode) -> Tensor {
        // Window w of the bias by distance starts with the key that is w + 1 - whole places from its query, so it is
        // that of query whole - 1 - w.
        if new == 0 {
            let weight = self.table.weight();
            return weight.new_zeros([weight.size()[1], 0, whole], (weight.kind(), weight.device()));
        }
        let bias = self.of(1 - whole..new, m).unfold(1, whole, 1).flip([1]);
        if self.both_sides {
            return bias;
        }
        let later = Tensor::ones([new, whole], (Kind::Bool, bias.device())).triu(whole - new + 1);
        bias.masked_fill(&later, f64::NEG_INFINITY)
    }
}

/// How many buckets, and the distance from which all are one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    pub count: i64,
    pub reach: i64,
}

/// Packed queries and keys, laid out for attention.
#[derive(Debug)]
pub(super) struct Layout {
    groups: Vec<Group>,
    /// Which place of the groups' results is each row's.
    back: Tensor,
}

/// Attention of a batch in which some rows only look.
#[derive(Debug)]
pub(super) struct SeenLayout<'a> {
    rows: &'a Tensor,
    layout: Layout,
}

impl<'a> SeenLayout<'a> {
    /// None where all rows are seen. `bias`: [heads, longest, longest], where there is one; `kind`: of the rows.
    pub fn of(batch: &'a PackedTokens, bias: Option<&Tensor>, kind: Kind) -> Option<Self> {
        let seen = batch.seen.as_ref()?;
        let layout = Layout::new(&batch.segments, &seen.segments, bias, (kind, batch.ids.device()));
        Some(Self { rows: &seen.rows, layout })
    }

    /// As [`ragduet_torch::ops::varlen_attention`], but for the rows that are not seen.
    pub fn attend(&self, [q, k, v]: [&Tensor; 3], o: &AttentionOptions) -> Tensor {
        let seen = |t: &Tensor| t.index_select(0, self.rows);
        self.layout.attend(&(q * o.scale), &seen(k), &seen(v), o.dropout)
    }
}

/// Texts of about the same length.
#[derive(Debug)]
struct Group {
    /// The row of each place, [texts * longest]; padding repeats a row.
    queries: Tensor,
    keys: Tensor,
    texts: i64,
    longest: (i64, i64),
    /// Added to the scaled scores, [texts or 1, heads or 1, queries, keys] or broadcast to it.
    bias: Option<Tensor>,
}

/// Scores that padding may add to a group, whatever their share.
const FREE_SCORES: i64 = 1 << 14;

impl Layout {
    /// Segment i of the queries looks at segment i of the keys. `bias`: [heads, longest, longest], where there is one.
    ///
    /// # Panics
    /// Where there are not as many of the two, or where no key stands against a query.
    pub fn new(queries: &Segments, keys: &Segments, bias: Option<&Tensor>, options: (Kind, Device)) -> Self {
        assert_eq!(queries.len(), keys.len(), "a source for each target");
        let lengths: Vec<(i64, i64)> = queries.lengths().zip(keys.lengths()).collect();
        assert!(lengths.iter().all(|&(q, k)| q == 0 || k > 0), "an empty source has nothing to look at");
        let mut order: Vec<usize> = (0..lengths.len()).filter(|&i| lengths[i].0 > 0).collect();
        order.sort_by_key(|&i| (lengths[i].1, lengths[i].0));
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(options.1);
        let mut back = vec![0i64; queries.tokens() as usize];
        let mut place = 0;
        let mut groups = Vec::new();
        for members in grouped(&order, &lengths) {
            let longest = longest(members, &lengths);
            let rows = |segs: &Segments, width: i64| -> Vec<i64> {
                let row = |&i: &usize| {
                    let (from, to) = (segs.offsets()[i], segs.offsets()[i + 1]);
                    (from..from + width).map(move |r| r.min(to - 1))
                };
                members.iter().flat_map(row).collect()
            };
            for (at, &i) in members.iter().enumerate() {
                let first = place + at as i64 * longest.0;
                for n in 0..lengths[i].0 {
                    back[(queries.offsets()[i] + n) as usize] = first + n;
                }
            }
            place += members.len() as i64 * longest.0;
            let ends: Vec<i64> = members.iter().map(|&i| lengths[i].1).collect();
            let padding =
                ends.iter().any(|&e| e < longest.1).then(|| past_the_end(&ends, longest.1, options));
            let bias = bias
                .map(|b| b.narrow(1, 0, longest.0).narrow(2, 0, longest.1).unsqueeze(0).to_kind(options.0));
            groups.push(Group {
                queries: tensor(&rows(queries, longest.0)),
                keys: tensor(&rows(keys, longest.1)),
                texts: members.len() as i64,
                longest,
                bias: match (bias, padding) {
                    (Some(b), Some(p)) => Some(b + p),
                    (b, p) => b.or(p),
                },
            });
        }
        Self { groups, back: tensor(&back) }
    }

    /// softmax(q k^T + bias) v: `q` [query rows, heads, d], `k` and `v` [key rows, heads, d] -> [query rows, heads, d].
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, dropout: f64) -> Tensor {
        self.attend_by(q, k, v, |[q, k, v], bias| attention(q, k, v, bias, dropout))
    }

    /// By attention of one's own over a group, which gets q, k and v as [texts, heads, rows, d] and what is added to scaled
    /// scores.
    pub fn attend_by(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        attend: impl Fn([&Tensor; 3], Option<&Tensor>) -> Tensor,
    ) -> Tensor {
        let (heads, d) = (q.size()[1], q.size()[2]);
        let parts: Vec<Tensor> = self
            .groups
            .iter()
            .map(|g| {
                let laid = |t: &Tensor, rows: &Tensor, n: i64| {
                    t.index_select(0, rows).view([g.texts, n, heads, d]).transpose(1, 2)
                };
                let (lq, lk) = g.longest;
                let group = [&laid(q, &g.queries, lq), &laid(k, &g.keys, lk), &laid(v, &g.keys, lk)];
                attend(group, g.bias.as_ref()).transpose(1, 2).reshape([g.texts * lq, heads, d])
            })
            .collect();
        if parts.is_empty() {
            return q.shallow_clone();
        }
        Tensor::cat(&parts, 0).index_select(0, &self.back)
    }
}

/// T5's attention, which does not scale: `q` [texts, heads, queries, d], `k` and `v` [texts, heads, keys, d].
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, dropout: f64) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, bias, dropout, false, Some(1.0), false)
}

fn longest(members: &[usize], lengths: &[(i64, i64)]) -> (i64, i64) {
    members.iter().fold((0, 0), |(q, k), &i| (q.max(lengths[i].0), k.max(lengths[i].1)))
}

/// Runs of texts, sorted by length, of which padding would make no more than a quarter more scores.
fn grouped<'a>(order: &'a [usize], lengths: &[(i64, i64)]) -> Vec<&'a [usize]> {
    let (mut out, mut from) = (Vec::new(), 0);
    for to in 1..=order.len() {
        let fits = to < order.len() && {
            let with = &order[from..=to];
            let (q, k) = longest(with, lengths);
            let padded = q * k * with.len() as i64;
            let scores: i64 = with.iter().map(|&i| lengths[i].0 * lengths[i].1).sum();
            padded - scores <= FREE_SCORES.max(scores / 4)
        };
        if !fits {
            out.push(&order[from..to]);
            from = to;
        }
    }
    out
}
