//! Pages of run folders.

mod pages;
