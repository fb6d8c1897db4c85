//! Ranking losses and cross-encoders on small models.

mod cross;
mod losses;
