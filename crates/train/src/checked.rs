//! Numbers of configs that are checked while they are read, so that the error points at the key.

use serde::de::{Deserialize, Deserializer, Error};

fn read<'de, D: Deserializer<'de>>(d: D, ok: fn(f64) -> bool, want: &str) -> Result<f64, D::Error> {
    let x = f64::deserialize(d)?;
    if ok(x) { Ok(x) } else { Err(D::Error::custom(format!("{x} is not {want}"))) }
}

/// From 0 to 1.
pub(crate) fn share<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    read(d, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// From 0 to below 1: the decay of a running mean.
pub(crate) fn decay<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    read(d, |x| (0.0..1.0).contains(&x), "a number from 0 to below 1")
}

/// Above 0.
pub(crate) fn positive<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    read(d, |x| x > 0.0 && x.is_finite(), "a number above 0")
}

/// Above 0, at most 1.
pub(crate) fn factor<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    read(d, |x| x > 0.0 && x <= 1.0, "a number above 0 and at most 1")
}

/// 0 or above.
pub(crate) fn not_negative<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    read(d, |x| x >= 0.0 && x.is_finite(), "a number of at least 0")
}

/// 0 or above, or absent.
pub(crate) fn optional_not_negative<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    #[derive(serde::Deserialize)]
    struct NotNegative(#[serde(deserialize_with = "not_negative")] f64);
    Ok(Option::<NotNegative>::deserialize(d)?.map(|x| x.0))
}

/// From 0 to below 1, or absent.
pub(crate) fn optional_decay<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Decay(#[serde(deserialize_with = "decay")] f64);
    Ok(Option::<Decay>::deserialize(d)?.map(|x| x.0))
}

/// Above 0, or absent.
pub(crate) fn optional_positive<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Positive(#[serde(deserialize_with = "positive")] f64);
    Ok(Option::<Positive>::deserialize(d)?.map(|x| x.0))
}
