//! The `fvd` command, as a user would call it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The command, built.
pub(crate) struct Fvd {
    pub(crate) program: PathBuf,
    /// Show each call and what it prints.
    pub(crate) verbose: bool,
}

impl Fvd {
    /// Makes an image on a raw base that the kernel can use as a disk of `bytes` bytes. `shape` are
    /// more options.
    ///
    /// # Errors
    ///
    /// What the command says.
    pub(crate) fn create(
        &self,
        base: &Path,
        image: &Path,
        bytes: usize,
        shape: &[&str],
    ) -> Result<(), String> {
        let mut arguments: Vec<&OsStr> = vec![
            "create".as_ref(),
            "--base".as_ref(),
            base.as_os_str(),
            "--base-format".as_ref(),
            "raw".as_ref(),
            // A virtio disk cannot grow: what the file has when the machine starts is all there is.
            "--store-size".as_ref(),
            "whole".as_ref(),
        ];
        let bytes = bytes.to_string();
        arguments.extend(shape.iter().map(OsStr::new));
        arguments.extend([image.as_os_str(), bytes.as_ref()]);
        self.run(&arguments)?;
        if self.verbose {
            self.run(&["info".as_ref(), image.as_os_str()])?;
        }
        Ok(())
    }

    /// Checks an image. Returns what the command says.
    ///
    /// # Errors
    ///
    /// What the command says, also if nothing but space is lost.
    pub(crate) fn check(&self, base: &Path, image: &Path) -> Result<String, String> {
        self.run(&[
            "check".as_ref(),
            "--base".as_ref(),
            base.as_os_str(),
            image.as_os_str(),
        ])
    }

    /// Copies what a guest sees of an image to a plain file.
    ///
    /// # Errors
    ///
    /// What the command says.
    pub(crate) fn to_raw(&self, base: &Path, image: &Path, raw: &Path) -> Result<(), String> {
        self.run(&[
            "convert".as_ref(),
            "-f".as_ref(),
            "fvd".as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            // The copy of an earlier look may be replaced.
            "--force".as_ref(),
            "--base".as_ref(),
            base.as_os_str(),
            image.as_os_str(),
            raw.as_os_str(),
        ])
        .map(drop)
    }

    fn run(&self, arguments: &[&OsStr]) -> Result<String, String> {
        let words = arguments.iter().map(|word| word.to_string_lossy());
        let call = words.collect::<Vec<_>>().join(" ");
        let output = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        if self.verbose {
            println!("fvd {call}");
            for line in text.lines() {
                println!("    {line}");
            }
        }
        if output.status.success() {
            return Ok(text);
        }
        Err(format!(
            "fvd {call}: {}\n{}",
            output.status,
            text.trim_end()
        ))
    }
}
