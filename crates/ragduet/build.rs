//! Links libtorch, and (by `links` in Cargo.toml) tells the packages that depend on this one where it lies.

fn main() {
    ragduet_link::link();
}
