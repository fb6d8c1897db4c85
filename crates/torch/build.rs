//! Compiles the C++ shim against the libtorch that torch-sys links, and tells dependents where it lies.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!("cargo:warning=torch-sys did not report its libtorch; run scripts/setup");
        return;
    };
    let root = lib.parent().map(PathBuf::from).unwrap_or_default();
    let include = root.join("include");
    let mut build = cc::Build::new();
    build
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
        // The loops of kernels.cpp are written for the vectoriser; they do not rely on signed zeros or traps.
        // at::parallel_for is a header template: without OpenMP it silently runs on one thread.
        .flag("-fopenmp")
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math");
    precompile(&mut build);
    for file in [
        "common",
        "allocator",
        "optim",
        "runtime",
        "attention",
        "cached_attention",
        "norm",
        "rms_norm",
        "rope",
        "activation",
        "swiglu",
        "skinny",
        "tiles",
        "loss",
        "checkpoint",
        "quant",
        "maxsim",
    ] {
        build.file(format!("csrc/{file}.cpp"));
    }
    build.compile("ragduet_shim");
    for lib in ["torch", "torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={lib}");
    }
    println!("cargo:rustc-link-lib={}", openmp(&lib));
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:lib_dir={}", lib.display());
    link(&lib);
}

/// Compiles libtorch's headers once instead of once a file. Where the compiler cannot, each file reads them itself.
fn precompile(build: &mut cc::Build) {
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let (header, compiled) = (out.join("precompiled.h"), out.join("precompiled.h.gch"));
    if std::fs::copy("csrc/precompiled.h", &header).is_err() {
        return;
    }
    let mut command = build.get_compiler().to_command();
    command.args(["-x", "c++-header"]).arg(&header).arg("-o").arg(&compiled);
    match command.status() {
        Ok(status) if status.success() => {
            build.flag("-include").flag(&header);
        }
        _ => {
            let _ = std::fs::remove_file(&compiled);
        }
    }
}

/// The link arguments that every package with a binary or a test needs; kept equal to link_dependent.rs.
fn link(lib: &std::path::Path) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
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
