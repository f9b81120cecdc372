//! Turns an ordinary `cargo build` into one for bare metal.
//!
//! The host's own toolchain is enough: its `core` uses no operating system, and what the linker
//! adds to a hosted program is switched off here. Doing it in the build script, not in RUSTFLAGS or
//! a cargo configuration, keeps it to this one package: its library takes part in `cargo build
//! --workspace`.

use std::env;

/// What GNU-style linkers need to make a fixed-address image and nothing else. No build id: it is
/// one more section to place. Small pages: otherwise linkers leave up to 2 MiB between segments.
const LINKER_FLAGS: [&str; 3] = ["--build-id=none", "-z", "max-page-size=4096"];

fn main() {
    println!("cargo::rerun-if-changed=src/arch/image.ld");
    println!("cargo::rerun-if-changed=src/arch/boot.s");
    println!("cargo::rustc-check-cfg=cfg(bare_metal)");

    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let script = format!(
        "{}/src/arch/image.ld",
        env::var("CARGO_MANIFEST_DIR").unwrap_or_default()
    );

    match (arch.as_str(), os.as_str()) {
        // The linker is a C compiler: leave out its start files and libraries, and hand the rest
        // through with -Wl.
        ("x86_64", "linux") => {
            for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
                link_arg(arg);
            }
            link_arg(&format!("-Wl,-T,{script}"));
            link_arg(&format!("-Wl,{}", LINKER_FLAGS.join(",")));
        }
        // The linker is called directly.
        ("x86_64", "none") => {
            for arg in ["-T", &script, "--no-pie", "-static"]
                .into_iter()
                .chain(LINKER_FLAGS)
            {
                link_arg(arg);
            }
        }
        // Elsewhere the package is a stub, so that commands on the whole workspace still work.
        _ => return,
    }
    println!("cargo::rustc-cfg=bare_metal");
}

fn link_arg(arg: &str) {
    println!("cargo::rustc-link-arg-bins={arg}");
}
