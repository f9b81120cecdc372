//! What a run needs: QEMU, installed if it is missing and can be; the kernel and the `fvd` command,
//! built.

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
    // By itself, so that it has only the features that it asks for (examples/unikernel/src/lib.rs).
    let mut options = vec!["--package", "unikernel", "--bin", "unikernel"];
    options.extend(["--features", "bare-metal", "--profile", "unikernel"]);
    if !HOST_BUILDS_KERNEL {
        options.extend(["--target", "x86_64-unknown-none"]);
    }
    let advice = if HOST_BUILDS_KERNEL {
        "see cargo's messages above"
    } else {
        "if its target is missing: rustup target add x86_64-unknown-none"
    };
    build("unikernel", &options).map_err(|fault| format!("{fault}; {advice}"))
}

/// Builds the `fvd` command and returns its path.
///
/// # Errors
///
/// If cargo fails; its own messages have been shown.
pub(crate) fn build_fvd() -> Result<PathBuf, String> {
    build(
        "fvd",
        &["--package", "fvd-std", "--bin", "fvd", "--release"],
    )
}

/// Builds a program of this workspace and returns its path.
fn build(program: &str, options: &[&str]) -> Result<PathBuf, String> {
    // Cargo names itself to what it runs; by hand, the one on the search path will do.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet"])
        .args(options)
        .arg("--manifest-path")
        .arg(workspace_root().join("Cargo.toml"))
        // Where the program ends up depends on the user's settings, so cargo is asked.
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo to build {program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} does not build"));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|message| executable(message, program))
        .ok_or_else(|| format!("cargo built no executable {program}"))
}

/// The executable in one of cargo's messages, if it is that of `program`. A library of that name
/// has none.
fn executable(message: &str, program: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_program = message["target"]["name"] == program;
    is_program.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// The directory of the whole project.
pub(crate) fn workspace_root() -> &'static Path {
    // Above examples/boot, as it was when this program was built: cargo builds it anew if it moves.
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
