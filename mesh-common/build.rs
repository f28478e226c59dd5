//! Compiles `proto/mesh/v1/*.proto` when the `api` feature asks for it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "api")]
    {
        const PROTOS: [&str; 2] = ["proto/mesh/v1/controller.proto", "proto/mesh/v1/agent.proto"];
        let descriptors = protox::compile(PROTOS, ["proto"])?;
        tonic_prost_build::configure().bytes(".mesh.v1").compile_fds(descriptors)?;
    }
    Ok(())
}
