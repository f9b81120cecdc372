//! The other programs: which are there, which versions, and how to run them.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Doing, Failure};

/// Whether a program can be found in the search path.
pub(super) fn is_installed(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Why something that needs these programs is left out.
pub(super) fn missing(programs: &[&str]) -> Option<String> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !is_installed(program))
        .collect();
    (!missing.is_empty()).then(|| format!("{} is not installed", missing.join(", ")))
}

/// The `fvd` that is measured.
pub(super) fn own(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => path.canonicalize(),
        None => env::current_exe(),
    }
    .doing(|| "cannot find the fvd to measure")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It can not be started, or it failed; with what it said.
pub(super) fn run(command: &mut Command) -> Result<String, Failure> {
    run_with(command, &[])
}

/// Likewise, with something to read for it, which it reads before it prints.
pub(super) fn run_with(command: &mut Command, input: &[u8]) -> Result<String, Failure> {
    let name = command.get_program().display().to_string();
    let cannot = || format!("cannot run {name}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().doing(cannot)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or("it said nothing");
        return Err(Failure::because(
            format_args!("{name}: {}", output.status),
            last.escape_debug(),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a program calls its version: the first line that it prints.
pub(super) fn version(program: &Path) -> Option<String> {
    let printed = run(Command::new(program).arg("--version")).ok()?;
    printed.lines().next().map(str::to_string)
}
