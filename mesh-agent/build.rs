//! Embeds the kernel programs, if `cargo xtask ebpf` has built them.
//!
//! Without them the agent builds all the same, and says at start what to do.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    // The directory is watched, and must exist for that.
    let directory = Path::new("../target/bpf");
    fs::create_dir_all(directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());

    let object = fs::read(directory.join("mesh-ebpf.o")).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })?;
    let output = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&output).join("mesh-ebpf.o"), object)
}
