//! `cargo xtask image`: an image of static binaries, built without a daemon.
//!
//! One archive for all: an OCI image layout (`skopeo`, `ctr images import`, `kind load
//! image-archive`, `docker load` since Docker 25) that has the manifest.json of older Dockers too.
//! The same binaries make the same archive: every time in it is 1970, every order is that of names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    ebpf::repository,
    setup::{build_kernel_programs, cargo},
    step,
};

mod archive;

pub use archive::Image;

/// The programs in the image, each in its root.
const PROGRAMS: [&str; 3] = ["mesh-agent", "mesh-controller", "nodemesh"];
/// Not the host's name for its target: with it given, build scripts and macros are built apart and
/// stay dynamic, which macros have to be.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Builds the programs and writes the archive, `target/image/nodemesh.tar`.
///
/// # Errors
/// Where a program does not build or is not static.
pub fn run() -> Result<PathBuf> {
    build_kernel_programs()?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", TARGET]);
    build.args(["-p", "mesh-agent", "-p", "mesh-controller", "-p", "mesh-cli", "--bins"]);
    build.env("RUSTFLAGS", STATIC);
    // Every node pulls it: names of functions stay for backtraces, lines do not, which are most of it.
    build.env("CARGO_PROFILE_RELEASE_DEBUG", "0").env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    step::run("building the static programs", build)?;
    let built = repository().join("target").join(TARGET).join("release");
    let mut files = Vec::new();
    for name in PROGRAMS {
        let path = built.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(is_static(&bytes), "{} wants a loader: it is not static", path.display());
        files.push((name.to_owned(), bytes));
    }
    let archive = repository().join("target/image/nodemesh.tar");
    Image { tag: format!("nodemesh:{}", env!("CARGO_PKG_VERSION")), files }.write(&archive)?;
    Ok(archive)
}

/// Whether an ELF file asks for no interpreter (elf(5): a program header of type PT_INTERP, 3).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let bytes = elf.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    // e_phoff, e_phentsize and e_phnum of a 64-bit little-endian file.
    let (Some(start), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    elf.starts_with(b"\x7fELF\x02\x01")
        && (0..count).all(|at| number(start + at * size, 4).is_some_and(|kind| kind != 3))
}

/// The archive's folder, made if missing.
fn folder(archive: &Path) -> Result<()> {
    let folder = archive.parent().context("an archive is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests;
