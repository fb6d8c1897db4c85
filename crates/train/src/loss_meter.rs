//! The loss between two lines of the log, and the guard against NaN.

use crate::{Error, Result};
use ragduet_torch::{Kind, Tensor};

/// Mean of losses that are on the host already.
#[derive(Debug, Default)]
pub struct LossMeter {
    sum: f64,
    count: u64,
}

impl LossMeter {
    /// Adds a step's loss.
    ///
    /// # Errors
    /// [`Error::NotFinite`] on NaN or infinity.
    pub fn add(&mut self, loss: f64, step: u64, lr: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::NotFinite {
                what: "the loss",
                value: loss,
                step,
                lr,
                batch: Default::default(),
            });
        }
        self.sum += loss;
        self.count += 1;
        Ok(())
    }

    /// The mean so far.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The mean, and starts anew.
    pub fn take(&mut self) -> f64 {
        let mean = self.mean();
        *self = Self::default();
        mean
    }
}

impl LossMeter {
    /// Sum and number of what was added: what a checkpoint keeps, so that the next line of the log is of the whole window.
    pub(crate) fn parts(&self) -> (f64, u64) {
        (self.sum, self.count)
    }
}

#[derive(Debug)]
struct Pending {
    loss: Tensor,
    step: u64,
    lr: f64,
    batch: Vec<String>,
}

/// Mean of losses that stay on the device: adding one does not wait for it.
///
/// The price is that NaN shows only when the values are read, some steps after it has spoilt the weights:
/// [`DeviceLossMeter::check`] before every checkpoint and evaluation.
#[derive(Debug, Default)]
pub struct DeviceLossMeter {
    pending: Vec<Pending>,
    host: LossMeter,
}

/// So many values wait at most; then they are read. Bounds what one call to `take` fetches and what is held.
const MOST_PENDING: usize = 256;
/// So many ids of a batch are named in an error.
const NAMED: usize = 8;

impl DeviceLossMeter {
    /// Adds a step's loss (one number). `batch`: ids of its examples, of which the first few are kept for the error.
    ///
    /// # Errors
    /// As [`DeviceLossMeter::check`], now and then.
    pub fn add<'a>(
        &mut self,
        loss: &Tensor,
        step: u64,
        lr: f64,
        batch: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let batch = batch.into_iter().take(NAMED).map(str::to_string).collect();
        // Detached, or every step's graph would stay; copied, or what the caller does in place would show.
        let loss = loss.detach().to_kind(Kind::Double).copy().reshape([1]);
        self.pending.push(Pending { loss, step, lr, batch });
        if self.pending.len() >= MOST_PENDING { self.check() } else { Ok(()) }
    }

    /// One that goes on where [`DeviceLossMeter::parts`] was.
    pub(crate) fn from_parts((sum, count): (f64, u64)) -> Self {
        Self { host: LossMeter { sum, count }, ..Self::default() }
    }

    /// Sum and number of the losses that were looked at since the last [`DeviceLossMeter::take`].
    pub(crate) fn parts(&self) -> (f64, u64) {
        self.host.parts()
    }

    /// The mean of the losses that were looked at since the last [`DeviceLossMeter::take`].
    pub fn mean(&self) -> f64 {
        self.host.mean()
    }

    /// Reads what is on the device, in one transfer.
    ///
    /// # Errors
    /// [`Error::Diverged`] with the first step whose loss was NaN or infinite.
    pub fn check(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let losses: Vec<&Tensor> = pending.iter().map(|p| &p.loss).collect();
        let all = Tensor::f_cat(&losses, 0).map_err(ragduet_torch::Error::from)?;
        let values = Vec::<f64>::try_from(&all).map_err(ragduet_torch::Error::from)?;
        for (p, value) in pending.into_iter().zip(values) {
            if !value.is_finite() {
                return Err(Error::Diverged {
                    value,
                    step: p.step,
                    lr: p.lr,
                    batch: crate::error::Batch::of(&p.batch.join(", ")),
                });
            }
            self.host.add(value, p.step, p.lr)?;
        }
        Ok(())
    }

    /// The mean since the last call.
    pub fn take(&mut self) -> Result<f64> {
        self.check()?;
        Ok(self.host.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_stops() {
        let mut m = LossMeter::default();
        m.add(2.0, 1, 1e-3).unwrap();
        let e = m.add(f64::NAN, 2, 1e-3).unwrap_err().to_string();
        assert!(e.contains("NaN at step 2") && e.contains("learning rate"), "{e}");
        assert_eq!(m.take(), 2.0);
    }

    #[test]
    fn device_mean_is_the_mean() {
        let mut m = DeviceLossMeter::default();
        let w = Tensor::from_slice(&[3f32]).set_requires_grad(true);
        for step in 0..600u64 {
            let loss = (&w * step as f64).sum(Kind::Float);
            m.add(&loss, step, 1e-3, ["q"]).unwrap();
            // What the caller does afterwards must not show.
            let _ = loss.detach().zero_();
            assert!(m.pending.len() < MOST_PENDING && !m.pending.iter().any(|p| p.loss.requires_grad()));
        }
        assert!((m.take().unwrap() - 3.0 * 599.0 / 2.0).abs() < 1e-9);
        m.add(&Tensor::from(4.0f32), 600, 1e-3, []).unwrap();
        assert_eq!(m.take().unwrap(), 4.0);
    }

    #[test]
    fn the_first_bad_step_is_named() {
        let mut m = DeviceLossMeter::default();
        let ids: Vec<String> = (0..20).map(|i| format!("q{i}")).collect();
        for step in 10..15 {
            let loss = if step < 12 { 1.0 } else { f32::INFINITY };
            m.add(&Tensor::from(loss), step, 2e-5, ids.iter().map(String::as_str)).unwrap();
        }
        let e = m.check().unwrap_err().to_string();
        for words in ["inf at step 12", "2.000e-5", "q0, q1", "fp32", "learning rate", "clip"] {
            assert!(e.contains(words), "`{words}`: {e}");
        }
        assert!(!e.contains("q8"), "{e}");
    }
}
