//! Losses and recipes of retrievers on small models.

mod common;
mod contriever;
mod embedders;
mod late;
mod loss;
mod memory;
mod quantised;
mod resume;
mod scored;
mod sparse;
