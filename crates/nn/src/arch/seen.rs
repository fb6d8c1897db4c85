//! A decoder's attention where some rows only look: ColBERT's queries end with mask tokens that no token sees. Keys are
//! the rows that are seen, the first of each text, so that a key's number is its place.

use super::capped::{self, Rows};
use super::pass::Scoring;
use super::relative::SeenLayout;
use super::site::Sight;
use crate::PackedTokens;
use ragduet_torch::ops::AttentionOptions;
use ragduet_torch::{Device, Kind, Tensor};
use std::cell::RefCell;

/// A batch in which some rows are not seen, laid out once for each window.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    batch: &'a PackedTokens,
    layouts: RefCell<Vec<(Option<i64>, SeenLayout<'a>)>>,
}

impl<'a> Seen<'a> {
    pub fn new(batch: &'a PackedTokens) -> Self {
        Self { batch, layouts: RefCell::default() }
    }

    /// As [`ragduet_torch::ops::varlen_attention`]. A row that sees no key, far behind the text in a layer with a window,
    /// gets nothing, as in transformers.
    pub fn attend(
        &self,
        [q, k, v]: [&Tensor; 3],
        sight: Sight,
        o: &AttentionOptions,
        cap: Option<f64>,
    ) -> Tensor {
        if let (Some(_), Some(seen)) = (cap, &self.batch.seen) {
            let (queries, keys) = (&self.batch.segments, &seen.segments);
            let of = |t: &Tensor| t.index_select(0, &seen.rows);
            let scoring = Scoring { scale: o.scale, window: o.window, cap };
            let rows = Rows { queries, keys, first: None, sight };
            return capped::attend([q, &of(k), &of(v)], &rows, scoring, o.dropout);
        }
        let mut layouts = self.layouts.borrow_mut();
        let at = layouts.iter().position(|(window, _)| *window == o.window).unwrap_or_else(|| {
            let n = self.batch.segments.longest();
            let bias = mask(n, sight, o.window, (q.kind(), q.device()));
            let layout = SeenLayout::of(self.batch, bias.as_ref(), q.kind());
            layouts.extend(layout.map(|l| (o.window, l)));
            layouts.len() - 1
        });
        let groups = q.size()[1] / k.size()[1].max(1);
        let wide = |t: &Tensor| t.repeat_interleave_self_int(groups, 1, None);
        let lost = o.window.map(|w| self.lost(w, (q.kind(), q.device())));
        let out = layouts[at].1.attend([q, &wide(k), &wide(v)], o);
        match lost {
            Some(Some(keep)) => out.masked_fill(&keep, 0.0),
            _ => out,
        }
    }

    /// The rows whose window ends behind the last key, [rows, 1, 1]; none where there is no such row.
    fn lost(&self, window: i64, (_, device): (Kind, Device)) -> Option<Tensor> {
        let seen = self.batch.seen.as_ref()?;
        let each = self.batch.segments.lengths().zip(seen.segments.lengths());
        let rows: Vec<bool> =
            each.flat_map(|(n, keys)| (0..n).map(move |row| row - window >= keys)).collect();
        rows.contains(&true).then(|| Tensor::from_slice(&rows).to_device(device).view([-1, 1, 1]))
    }
}

/// What is added to scores, [1, n, n]; none where all are seen.
fn mask(n: i64, sight: Sight, window: Option<i64>, options: (Kind, Device)) -> Option<Tensor> {
    let ones = || Tensor::ones([n, n], (Kind::Bool, options.1));
    let later = (sight == Sight::Causal).then(|| ones().triu(1));
    let far = window.map(|w| {
        let before = ones().tril(-w - 1);
        if sight == Sight::Both { before.logical_or(&ones().triu(w + 1)) } else { before }
    });
    let hidden = match (later, far) {
        (Some(a), Some(b)) => Some(a.logical_or(&b)),
        (a, b) => a.or(b),
    };
    // Not infinity: a row whose every key is hidden would have no softmax.
    hidden.map(|h| Tensor::zeros([n, n], options).masked_fill(&h, -1e30).unsqueeze(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_seen_look_and_are_not_looked_at() {
        ragduet_torch::rng::seed(3);
        let device = Device::Cpu;
        let texts: [&[u32]; 2] = [&[1, 2, 3, 9, 9, 9, 9, 9], &[4, 5, 6, 7, 8, 9]];
        let batch = PackedTokens::from_ids(texts, device).with_seen(&[3, 5]);
        let rows = |heads| Tensor::randn([14, heads, 4], (Kind::Float, device));
        let (q, k, v) = (rows(4), rows(2), rows(2));
        for (sight, window) in
            [(Sight::Causal, None), (Sight::Causal, Some(2)), (Sight::Both, None), (Sight::Both, Some(1))]
        {
            let o = AttentionOptions { scale: 0.4, dropout: 0.0, causal: sight == Sight::Causal, window };
            let seen = Seen::new(&batch);
            let got = seen.attend([&q, &k, &v], sight, &o, None);
            // A cap that no score comes near: the other way of computing it.
            let far = seen.attend([&q, &k, &v], sight, &o, Some(1e4));
            assert!(far.allclose(&got, 1e-4, 1e-5, false), "{sight:?} {window:?}");
            for (from, n, keys) in [(0i64, 8i64, 3i64), (8, 6, 5)] {
                for row in 0..n {
                    let near = |key: i64| {
                        (sight == Sight::Both || key <= row) && window.is_none_or(|w| (row - key).abs() <= w)
                    };
                    let at: Vec<i64> = (0..keys).filter(|&key| near(key)).map(|key| from + key).collect();
                    for head in 0..4i64 {
                        let mine = got.get(from + row).get(head);
                        if at.is_empty() {
                            assert_eq!(f64::try_from(mine.abs().max()).unwrap(), 0.0);
                            continue;
                        }
                        let pick =
                            |t: &Tensor| t.select(1, head / 2).index_select(0, &Tensor::from_slice(&at));
                        let scores = pick(&k).matmul(&q.get(from + row).get(head)) * 0.4;
                        let want = scores.softmax(0, Kind::Float).unsqueeze(0).matmul(&pick(&v)).squeeze();
                        assert!(mine.allclose(&want, 1e-5, 1e-6, false), "{sight:?} {window:?} {row}");
                    }
                }
            }
        }
    }
}
