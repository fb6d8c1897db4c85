//! Objectives, scores and the recipe of joint training on small models.

mod objectives;
mod recipe;
mod score;
