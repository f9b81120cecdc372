//! The `fvd` command, as a user would call it.

use crate::base::{Base, DISK_BYTES};
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
    /// Makes an image on the base that the kernel can use as a disk.
    ///
    /// # Errors
    ///
    /// What the command says.
    pub(crate) fn create(&self, base: &Base, image: &Path, table: &str) -> Result<(), String> {
        self.run([
            "create".as_ref(),
            "--base".as_ref(),
            base.path.as_os_str(),
            "--base-format".as_ref(),
            "raw".as_ref(),
            "--table".as_ref(),
            table.as_ref(),
            // A virtio disk cannot grow: what the file has when the machine starts is all there is.
            "--store-size".as_ref(),
            "whole".as_ref(),
            image.as_os_str(),
            DISK_BYTES.to_string().as_ref(),
        ])?;
        if self.verbose {
            self.run(["info".as_ref(), image.as_os_str()])?;
        }
        Ok(())
    }

    /// Checks an image.
    ///
    /// # Errors
    ///
    /// What the command says, also if nothing but space is lost.
    pub(crate) fn check(&self, base: &Base, image: &Path) -> Result<(), String> {
        self.run([
            "check".as_ref(),
            "--base".as_ref(),
            base.path.as_os_str(),
            image.as_os_str(),
        ])
    }

    /// Copies what a guest sees of an image to a plain file.
    ///
    /// # Errors
    ///
    /// What the command says.
    pub(crate) fn to_raw(&self, base: &Base, image: &Path, raw: &Path) -> Result<(), String> {
        self.run([
            "convert".as_ref(),
            "-f".as_ref(),
            "fvd".as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            "--base".as_ref(),
            base.path.as_os_str(),
            image.as_os_str(),
            raw.as_os_str(),
        ])
    }

    fn run<const N: usize>(&self, arguments: [&OsStr; N]) -> Result<(), String> {
        let call = arguments
            .map(|word| word.to_string_lossy().into_owned())
            .join(" ");
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
            return Ok(());
        }
        Err(format!(
            "fvd {call}: {}\n{}",
            output.status,
            text.trim_end()
        ))
    }
}
