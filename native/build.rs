//! Compiles the C++ of this crate against the libtorch that torch-sys links.
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for file in [
        "src/ext.cpp",
        "src/device.cpp",
        "src/graph.cpp",
        "src/ranks.cpp",
        "src/reducer.cpp",
        "src/shared_norm.cpp",
        "src/ranks.h",
        "src/nccl.cpp",
        "src/border.h",
        "stubs",
    ] {
        println!("cargo:rerun-if-changed={file}");
    }
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
    // Two compilers at a time: these files take about as long as the other three.
    std::thread::scope(|s| {
        s.spawn(|| {
            compiler(&include)
                .files(["src/ext.cpp", "src/device.cpp", "src/graph.cpp"])
                .compile("torch_ext");
        });
        compiler(&include)
            .define("USE_DISTRIBUTED", None)
            .define("USE_C10D_GLOO", None)
            .include("stubs")
            .files(["src/ranks.cpp", "src/reducer.cpp", "src/shared_norm.cpp"])
            .compile("torch_ext_ranks");
    });
    nccl(&dir, &include);
    let lib = dir.join("lib");
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

fn compiler(include: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .warnings(false);
    build
}

/// Headers that c10d's NCCL part includes, by the package that brings each. The last two packages are not dependencies of torch.
const NVIDIA: [(&str, &str); 4] = [
    ("nccl.h", "nvidia-nccl-cu13"),
    ("cuda_runtime_api.h", "nvidia-cuda-runtime"),
    ("crt/host_config.h", "nvidia-cuda-crt"),
    ("nv/target", "nvidia-cuda-cccl"),
];

/// Compiles `src/nccl.cpp` into a library that becomes part of the program, where this libtorch has its CUDA half and NVIDIA's headers lie beside it
/// (as pip installs them) or in CUDA_HOME; writes what `src/ranks/nccl.rs` includes: the library's bytes, or why there is none.
fn nccl(libtorch: &Path, include: &Path) {
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let answer = match nccl_library(libtorch, include, &out) {
        Ok(path) => format!("Ok(include_bytes!({:?}))", path.display().to_string()),
        Err(reason) => format!("Err({reason:?})"),
    };
    std::fs::write(out.join("nccl.in"), answer).expect("OUT_DIR can be written to");
}

fn nccl_library(libtorch: &Path, include: &Path, out: &Path) -> Result<PathBuf, String> {
    if !libtorch.join("lib/libtorch_cuda.so").exists() {
        return Err("its libtorch is the CPU part: `make setup CUDA=1`, then build again".into());
    }
    let packages = libtorch.canonicalize().map_err(|e| e.to_string())?.join("../nvidia");
    let mut folders = vec![
        packages.join("nccl/include"),
        packages.join("cu13/include"),
        packages.join("cu13/include/cccl"),
    ];
    if let Some(home) = std::env::var_os("CUDA_HOME") {
        folders.push(PathBuf::from(&home).join("include"));
        folders.push(PathBuf::from(&home).join("include/cccl"));
    }
    for (header, package) in NVIDIA {
        if !folders.iter().any(|f| f.join(header).exists()) {
            return Err(format!(
                "no {header} when it was built: install the package {package} beside torch, or set CUDA_HOME, and build again"
            ));
        }
    }
    let library = out.join("libtorch_ext_nccl.so");
    let mut build = compiler(include);
    build.define("USE_DISTRIBUTED", None).define("USE_C10D_NCCL", None).pic(true);
    for folder in folders.iter().filter(|f| f.is_dir()) {
        build.include(folder);
    }
    let mut command: Command = build.get_compiler().to_command();
    command.args(["-shared", "-o"]).arg(&library).arg("src/nccl.cpp");
    let done = command.status().map_err(|e| format!("the C++ compiler did not start: {e}"))?;
    if !done.success() {
        println!("cargo:warning=src/nccl.cpp does not compile with the NVIDIA headers found: this program will have no NCCL ({command:?})");
        return Err("it did not compile with the NVIDIA headers found; `touch native/build.rs` and build again to see why".into());
    }
    Ok(library)
}
