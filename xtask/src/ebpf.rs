//! Builds the kernel programs, mesh-ebpf, into `target/bpf/mesh-ebpf.o`.
//!
//! The BPF target needs a `core` that stable rustup does not ship. Two toolchains have one, and
//! the first that is found is taken: Debian's own rustc with its prebuilt `core`, or rustup's
//! nightly with rust-src, which builds `core` itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// The target that both toolchains know.
const TARGET: &str = "bpfel-unknown-none";
/// Debug information carries the BTF, which the linker keeps only when told so.
const FLAGS: [&str; 2] = ["-Cdebuginfo=2", "-Clink-arg=--btf"];
/// Where Debian's libstd-rust-web-dev-bpf puts the prebuilt `core`.
const DEBIAN_CORE: &str = "lib/rustlib/bpfel-unknown-none/lib";

/// A compiler that can build for the BPF target.
#[derive(Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Debian's packages rustc-web, cargo-web and libstd-rust-web-dev-bpf.
    Debian,
    /// rustup's nightly with the component rust-src.
    Nightly,
}

/// Builds the kernel programs and returns the path of the object.
///
/// The object is only written where it differs, so that nothing that embeds it is built again
/// for no reason.
pub fn build() -> Result<PathBuf> {
    let root = repository();
    let toolchain = toolchain()?;
    let build_dir = root.join("target/bpf-build");
    let mut command = toolchain.cargo();
    command
        .current_dir(root.join("mesh-ebpf"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env("PATH", path_with_linker(&root)?);
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "building mesh-ebpf failed: {command:?} ended with {status}");

    let built = build_dir.join(TARGET).join("release/mesh-ebpf");
    let object = root.join("target/bpf/mesh-ebpf.o");
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// The toolchain that [`build`] takes.
///
/// # Errors
/// Where there is none; the message names what to install.
pub fn toolchain() -> Result<Toolchain> {
    if sysroot(Command::new("/usr/bin/rustc")).is_some_and(|root| root.join(DEBIAN_CORE).is_dir())
        && Path::new("/usr/bin/cargo").exists()
    {
        return Ok(Toolchain::Debian);
    }
    let mut nightly = Command::new("rustup");
    nightly.args(["run", "nightly", "rustc"]);
    if sysroot(nightly)
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists())
    {
        return Ok(Toolchain::Nightly);
    }
    bail!(
        "no compiler for {TARGET}: install Debian's rustc-web, cargo-web and \
         libstd-rust-web-dev-bpf (`cargo xtask setup` does), or \
         `rustup toolchain install nightly --component rust-src`"
    )
}

impl Toolchain {
    /// This toolchain's cargo, free of what the cargo that runs us has put in the environment.
    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                // An unstable target on a stable compiler.
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                command
            }
        };
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let kept = matches!(&*name, "CARGO_HOME" | "CARGO_NET_OFFLINE")
                || name.starts_with("CARGO_HTTP_")
                || name.starts_with("CARGO_REGISTR");
            let ours = *self == Self::Debian && matches!(&*name, "RUSTC" | "RUSTC_BOOTSTRAP");
            if (name.starts_with("CARGO") || name.starts_with("RUST")) && !kept && !ours {
                // rustup itself is found through RUSTUP_HOME.
                if name != "RUSTUP_HOME" {
                    command.env_remove(&*name);
                }
            }
        }
        command
    }
}

/// The directory of the workspace.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where this rustc keeps its libraries; `None` if there is no such rustc.
fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// PATH with our own bpf-linker before any other.
fn path_with_linker(root: &Path) -> Result<std::ffi::OsString> {
    let mut directories = vec![root.join("target/tools/bin")];
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    ensure!(
        directories.iter().any(|directory| directory.join("bpf-linker").is_file()),
        "bpf-linker is missing: `cargo xtask setup` builds it into target/tools/bin"
    );
    env::join_paths(directories).context("a directory of PATH has a colon in its name")
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let built = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == built) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
    }
    // Renamed into place: a build that runs at the same time never sees half an object.
    let partial = to.with_extension("partial");
    fs::write(&partial, built).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("writing {}", to.display()))
}
