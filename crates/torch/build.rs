//! Compiles the C++ shim against the libtorch that torch-sys links, and tells dependents where it lies.
//!
//! The shim is one translation unit (`csrc/shim.cpp`): libtorch's headers and templates take the compiler longer than
//! all kernels together. Under clippy it is not compiled at all.
//!
//! It is built with OpenMP and linked to the very runtime that libtorch brings ([`openmp`]): `at::parallel_for` is a
//! header template, and compiled without OpenMP it runs on one thread and says nothing.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    println!("cargo:rerun-if-env-changed=CLIPPY_ARGS");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!("cargo:warning=torch-sys did not report its libtorch; run scripts/setup");
        return;
    };
    if !linting() {
        compile(&lib);
    }
    for lib in ["torch", "torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={lib}");
    }
    println!("cargo:rustc-link-lib={}", openmp(&lib));
    println!("cargo:rustc-link-search=native={}", lib.display());
    ragduet_link::link_to(&lib);
}

/// Whether this is `cargo clippy`: it links nothing, and cargo runs this script for it and for the build, each of which
/// would compile for minutes. (scripts/test builds with Clippy as the compiler, without `cargo clippy`.)
fn linting() -> bool {
    let wrapper = std::env::var_os("RUSTC_WORKSPACE_WRAPPER").map(PathBuf::from);
    let clippy = wrapper.is_some_and(|w| w.file_stem().is_some_and(|n| n == "clippy-driver"));
    clippy && std::env::var_os("CLIPPY_ARGS").is_some()
}

fn compile(lib: &Path) {
    let include = lib.parent().map(PathBuf::from).unwrap_or_default().join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        // ATen's headers are not warning-free; their warnings are not ours to mend.
        .warnings(false)
        .flag_if_supported("-Wno-unknown-pragmas")
        .flag_if_supported("-Wno-psabi")
        // at::parallel_for is a header template: without OpenMP it silently runs on one thread.
        .flag("-fopenmp")
        // The loops are written for the vectoriser; they do not rely on signed zeros or traps.
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math")
        .file("csrc/shim.cpp")
        .compile("ragduet_shim");
}

/// The OpenMP runtime that libtorch brings, so that the process has one pool of threads; else the system's.
fn openmp(lib: &Path) -> String {
    let files = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let mut names: Vec<String> = files.filter_map(|f| f.file_name().into_string().ok()).collect();
    names.sort();
    match names.into_iter().find(|n| n.starts_with("libgomp") && n.contains(".so")) {
        Some(name) => format!("dylib:+verbatim={name}"),
        None => "gomp".into(),
    }
}
