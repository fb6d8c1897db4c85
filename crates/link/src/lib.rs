//! How a package links libtorch: this crate as a build dependency, and `fn main() { ragduet_link::link() }` as `build.rs`.
//!
//! Cargo applies link arguments per package, and does not take them over from dependencies. Without these a binary or test
//! would not record `libtorch.so`, so that CUDA never loads, and would not find it without `LD_LIBRARY_PATH`.

use std::env;
use std::path::{Path, PathBuf};

/// Tells cargo how this package's binaries, tests and examples link libtorch, and records where they find it: the folder
/// that `ragduet` (or `ragduet-torch`), which has to be a direct dependency, was built with. Without either, `lib` in
/// the folder that the environment variable `LIBTORCH` names.
///
/// A folder that is not known gives a warning of cargo's; what is built then needs `LD_LIBRARY_PATH` to run.
pub fn link() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let built_with = ["DEP_RAGDUET_LIB_DIR", "DEP_RAGDUET_SHIM_LIB_DIR"].into_iter().find_map(env::var_os);
    let lib = built_with.map(PathBuf::from);
    match lib.or_else(|| Some(PathBuf::from(env::var_os("LIBTORCH")?).join("lib"))) {
        Some(lib) => link_to(&lib),
        None => println!(
            "cargo:warning=libtorch's folder is not known: make ragduet a dependency of this package, or set LIBTORCH"
        ),
    }
}

/// [`link`] to the libtorch in a folder.
pub fn link_to(lib: &Path) {
    // For the packages that depend on this one, where it has `links`.
    println!("cargo:lib_dir={}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
}
