//! Builds native/, against the headers of the libjpeg-turbo that turbojpeg-sys built.
use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=native");
    let include = env::var("DEP_TURBOJPEG_INCLUDE").expect("turbojpeg-sys says where jpeglib.h is");
    let mut build = cc::Build::new();
    build.file("native/jpeg_region.c").warnings(true);
    for path in include.split(',') {
        assert!(
            Path::new(path).join("jpeglib.h").exists() || !Path::new(path).join("turbojpeg.h").exists(),
            "{path} has no jpeglib.h: install the development files of libjpeg-turbo 3, or let turbojpeg-sys build its own"
        );
        build.include(path);
    }
    build.compile("splitmask_jpeg");
}
