//! Build script of every package of this workspace that links libtorch (`build = "../torch/link_dependent.rs"`): what
//! `ragduet-link` does in other projects, without a build dependency.

#[path = "../link/src/lib.rs"]
mod ragduet_link;

fn main() {
    ragduet_link::link();
}
