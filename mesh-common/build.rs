//! Compiles `proto/mesh/v1/*.proto` when the `api` feature asks for it.

use std::error::Error;

const PROTOS: [&str; 2] = ["proto/mesh/v1/controller.proto", "proto/mesh/v1/agent.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    if std::env::var_os("CARGO_FEATURE_API").is_some() {
        let descriptors = protox::compile(PROTOS, ["proto"])?;
        tonic_prost_build::configure()
            .bytes(".mesh.v1")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
