//! Compiles the contract to Rust without a `protoc` binary.

use std::{error::Error, fs, path::PathBuf};

const CONTRACT: &str = "aks/access/v1/access_broker.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    // Comments travel with the descriptors: a caller's `grpcurl describe` then prints the API's documentation.
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_file(CONTRACT)?;

    // `compile_fds` writes no descriptor file whatever its settings say, and server reflection serves one.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
