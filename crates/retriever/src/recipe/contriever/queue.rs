//! The keys of past batches, first in, first out (He et al., 2020, arXiv 1911.05722).
//!
//! Keys of a query's own chunk are masked: on a small corpus the queue holds some, which the authors never meet. Chunks
//! and crops are functions of the step.

use crate::Result;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Device, Kind, Tensor, no_grad};
use ragduet_train::Error as TrainError;
use std::path::Path;

/// Keys and the chunks that they are of. Begins empty: the authors begin with random unit vectors, which say nothing.
#[derive(Debug)]
pub struct KeyQueue {
    /// [capacity, dim], f32; rows from `held` on are not used yet.
    keys: Tensor,
    /// [capacity], the chunk of each key.
    owners: Tensor,
    /// Where the next key goes.
    next: i64,
    held: i64,
}

impl KeyQueue {
    /// An empty queue for `capacity` keys.
    pub fn new(capacity: usize, dim: i64, device: Device) -> Self {
        let capacity = capacity as i64;
        Self {
            keys: Tensor::zeros([capacity, dim], (Kind::Float, device)),
            owners: Tensor::zeros([capacity], (Kind::Int64, device)),
            next: 0,
            held: 0,
        }
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.held as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The keys, [len, dim], in no order that means anything.
    pub fn keys(&self) -> Tensor {
        self.keys.narrow(0, 0, self.held)
    }

    /// The chunk of each, [len].
    pub fn owners(&self) -> Tensor {
        self.owners.narrow(0, 0, self.held)
    }

    /// Adds keys [n, dim] of chunks [n] in the place of the oldest; of more than it can hold, the last ones.
    pub fn push(&mut self, keys: &Tensor, owners: &Tensor) {
        let _guard = no_grad();
        let capacity = self.owners.size()[0];
        let given = owners.size()[0];
        let n = given.min(capacity);
        let (mut from, mut left) = (given - n, n);
        while left > 0 {
            // Up to the end, then on from the beginning.
            let part = left.min(capacity - self.next);
            for (to, source) in [(&self.keys, keys), (&self.owners, owners)] {
                to.narrow(0, self.next, part).copy_(&source.narrow(0, from, part));
            }
            self.next = (self.next + part) % capacity;
            (from, left) = (from + part, left - part);
        }
        self.held = (self.held + n).min(capacity);
    }

    /// Writes it as one file.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let state = Tensor::from_slice(&[self.next, self.held]);
        let tensors = [("keys", self.keys()), ("owners", self.owners()), ("state", state)];
        Ok(save_tensors(path, &tensors.map(|(name, t)| (name.to_string(), t)), &[])?)
    }

    /// Takes over what [`KeyQueue::save`] wrote.
    ///
    /// # Errors
    /// A file of another queue.
    pub(super) fn restore(&mut self, path: &Path) -> Result<()> {
        let file = Weights::open_file(path)?;
        let state = Vec::<i64>::try_from(file.load_as_is("state")?).map_err(ragduet_torch::Error::from)?;
        let (capacity, dim) = self.keys.size2().map_err(ragduet_torch::Error::from)?;
        let fits = |held: i64| {
            held <= capacity
                && file.shape("keys") == Some(vec![held, dim])
                && file.shape("owners") == Some(vec![held])
        };
        match state[..] {
            [next, held] if (0..capacity).contains(&next) && held >= 0 && fits(held) => {
                let _guard = no_grad();
                self.keys.narrow(0, 0, held).copy_(&file.load_as_is("keys")?);
                self.owners.narrow(0, 0, held).copy_(&file.load_as_is("owners")?);
                (self.next, self.held) = (next, held);
                Ok(())
            }
            _ => {
                let why = format!("it is not a queue of {capacity} keys of size {dim}");
                Err(TrainError::State { path: path.into(), why }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(q: &mut KeyQueue, range: std::ops::Range<i64>) {
        let owners = Tensor::arange_start(range.start, range.end, (Kind::Int64, Device::Cpu));
        let keys = owners.to_kind(Kind::Float).unsqueeze(1).repeat([1, 2]);
        q.push(&keys, &owners);
    }

    /// Owners by place, after checking that the keys are theirs.
    fn held(q: &KeyQueue) -> Vec<i64> {
        assert!(q.keys().select(1, 1).equal(&q.owners().to_kind(Kind::Float)));
        Vec::try_from(q.owners()).unwrap()
    }

    #[test]
    fn the_oldest_go_first_and_places_begin_again() {
        let mut q = KeyQueue::new(5, 2, Device::Cpu);
        assert!(q.is_empty() && held(&q).is_empty());
        push(&mut q, 0..2);
        push(&mut q, 2..4);
        assert_eq!(held(&q), [0, 1, 2, 3]);
        push(&mut q, 4..7);
        assert_eq!(held(&q), [5, 6, 2, 3, 4]);
        push(&mut q, 7..10);
        assert_eq!(held(&q), [5, 6, 7, 8, 9]);
        // A full round at once, and more than fits.
        push(&mut q, 10..15);
        assert_eq!(held(&q), [10, 11, 12, 13, 14]);
        push(&mut q, 20..32);
        let mut all = held(&q);
        all.sort_unstable();
        assert_eq!(all, [27, 28, 29, 30, 31]);
    }

    #[test]
    fn comes_back_from_its_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.safetensors");
        for count in [3, 5, 8] {
            let mut q = KeyQueue::new(5, 2, Device::Cpu);
            push(&mut q, 0..count);
            q.save(&path).unwrap();
            let mut again = KeyQueue::new(5, 2, Device::Cpu);
            again.restore(&path).unwrap();
            for queue in [&mut q, &mut again] {
                push(queue, 50..52);
            }
            assert_eq!(held(&q), held(&again));
            assert_eq!(q.next, again.next);
        }
        for mut other in [KeyQueue::new(4, 2, Device::Cpu), KeyQueue::new(5, 3, Device::Cpu)] {
            let e = other.restore(&path).unwrap_err().to_string();
            assert!(e.contains("queue.safetensors") && e.contains("not a queue of"), "{e}");
        }
    }
}
