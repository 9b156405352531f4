//! Compiles `src/ext.cpp` against the libtorch that torch-sys links.
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/ext.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(dir) = std::env::var_os("LIBTORCH") else {
        panic!("LIBTORCH is not set: run `make setup` once (it makes .libtorch), or point LIBTORCH at a libtorch 2.11.0");
    };
    let dir = PathBuf::from(dir);
    let include = dir.join("include");
    assert!(
        include.is_dir(),
        "{} has no include folder: run `make setup`, or point LIBTORCH at a libtorch 2.11.0",
        dir.display()
    );
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .warnings(false)
        .file("src/ext.cpp")
        .compile("torch_ext");
    let lib = dir.join("lib");
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
