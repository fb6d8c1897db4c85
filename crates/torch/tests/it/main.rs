//! Memory that losses and recomputation take.

mod maxsim_memory;
mod memory;
