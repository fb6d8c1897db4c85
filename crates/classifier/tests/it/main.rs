//! Training and prediction on small models.

mod fine_tune;
mod reward;
