//! Compiles the protocol files in pure Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["csi.proto", "pluginregistration.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Services answer UNIMPLEMENTED for what they do not define.
        .generate_default_stubs(true)
        // Callers bring their own channel: every peer is a Unix socket.
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
