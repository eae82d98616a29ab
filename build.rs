//! Compiles the contract to Rust without a `protoc` binary.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let contract = "proto/aks/access/v1/access_broker.proto";
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile([contract], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .build_client(true)
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_fds(descriptors)?;
    Ok(())
}
