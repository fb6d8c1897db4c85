//! Build script shared by every package that links libtorch (`build = "../torch/link_dependent.rs"`).
//!
//! Cargo applies link arguments per package. Without these a binary would not record `libtorch.so`, so that
//! CUDA never loads, and would not find it without LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(lib) = std::env::var_os("DEP_RAGDUET_SHIM_LIB_DIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.to_string_lossy());
    }
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
}
