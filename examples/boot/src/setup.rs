//! What a run needs: QEMU, installed if it is missing and can be, and the kernel, built.

use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "qemu-system-x86_64";

/// Whether this host's own target can make a bare-metal x86_64 image (examples/unikernel/build.rs).
const HOST_BUILDS_KERNEL: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// Finds QEMU on the search path; installs it where that is possible without asking.
///
/// # Errors
///
/// How to install it.
pub(crate) fn find_qemu() -> Result<PathBuf, String> {
    if let Some(path) = find_program(QEMU) {
        return Ok(path);
    }
    let by_hand = "Debian: apt-get install qemu-system-x86; Fedora: dnf install qemu-system-x86; \
                   macOS: brew install qemu";
    if find_program("apt-get").is_none() || !is_root() {
        return Err(format!("{QEMU} is not installed ({by_hand})"));
    }

    println!("{QEMU} is missing: installing it with apt-get");
    let had_tools = find_program("qemu-img").is_some();
    apt_get(&["update"])?;
    apt_get(&[
        "install",
        "-y",
        "--no-install-recommends",
        "qemu-system-x86",
    ])?;
    // Where a newer qemu-utils was installed than the distribution has, it had to give way. Asking
    // for both at once fails there.
    if had_tools && find_program("qemu-img").is_none() {
        apt_get(&["install", "-y", "--no-install-recommends", "qemu-utils"])?;
    }
    find_program(QEMU).ok_or_else(|| format!("{QEMU} is still missing ({by_hand})"))
}

/// Builds the kernel and returns the path of its image.
///
/// # Errors
///
/// If cargo fails; its own messages have been shown.
pub(crate) fn build_kernel() -> Result<PathBuf, String> {
    // Cargo names itself to what it runs; by hand, the one on the search path will do.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "unikernel",
        "--profile",
        "unikernel",
    ]);
    command
        .arg("--manifest-path")
        .arg(workspace_root().join("Cargo.toml"));
    // Where the kernel ends up depends on the user's settings, so cargo is asked.
    command.arg("--message-format=json-render-diagnostics");
    if !HOST_BUILDS_KERNEL {
        command.args(["--target", "x86_64-unknown-none"]);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo to build the kernel: {error}"))?;
    if !output.status.success() {
        let advice = if HOST_BUILDS_KERNEL {
            "see cargo's messages above"
        } else {
            "if its target is missing: rustup target add x86_64-unknown-none"
        };
        return Err(format!("the kernel does not build; {advice}"));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(kernel_path)
        .ok_or_else(|| "cargo built no executable for the package unikernel".to_owned())
}

/// The executable in one of cargo's messages, if it is the kernel's.
fn kernel_path(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_kernel = message["target"]["name"] == "unikernel";
    is_kernel.then(|| message["executable"].as_str().map(PathBuf::from))?
}

fn workspace_root() -> &'static Path {
    // examples/boot, as it was when this program was built: cargo builds it anew if it moves.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
}

fn apt_get(arguments: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .args(arguments)
        // Nobody is there to answer questions.
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run apt-get: {error}"))?;
    let command = arguments.join(" ");
    status
        .success()
        .then_some(())
        .ok_or_else(|| format!("`apt-get {command}` failed; run it by hand to see why"))
}

#[cfg(target_os = "linux")]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own directory belongs to its effective user.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(not(target_os = "linux"))]
fn is_root() -> bool {
    false
}
