//! What must hold after a run: the kernel's report is complete, every file is as expected on the
//! disk that `fvd convert` made, and the base is as it was.

use crate::agreed::{
    LAST_TARGET_ROUND, NEW_FILES, REPORT, TARGET, new_file_pattern, target_pattern,
};
use crate::base::Base;
use crate::fat::Files;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Requests that must have been in flight at once.
const DEPTH_MIN: u64 = 8;

/// What the kernel says it did.
pub(crate) struct Report {
    pub(crate) files_checked: u64,
    pub(crate) bytes_checked: u64,
    pub(crate) files_written: u64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_overwritten: u64,
    pub(crate) in_flight_max: u64,
}

/// The number in the word `NAME=NUMBER` of a line that the kernel printed.
pub(crate) fn number(line: &str, name: &str) -> Option<u64> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .and_then(|value| value.parse().ok())
}

impl Report {
    /// Finds the report in what the kernel printed.
    ///
    /// # Errors
    ///
    /// If there is none, or not all of it.
    pub(crate) fn find(output: &str) -> Result<Report, String> {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(REPORT))
            .ok_or("the kernel did not report what it did")?;
        let value = |name: &str| {
            number(line, name).ok_or_else(|| format!("the kernel's report has no {name}"))
        };
        Ok(Report {
            files_checked: value("files_checked")?,
            bytes_checked: value("bytes_checked")?,
            files_written: value("files_written")?,
            bytes_written: value("bytes_written")?,
            bytes_overwritten: value("bytes_overwritten")?,
            in_flight_max: value("in_flight_max")?,
        })
    }

    /// Finds fault with a report of work on `base`.
    ///
    /// # Errors
    ///
    /// The first number that is not what it must be.
    pub(crate) fn check(&self, base: &Base) -> Result<(), String> {
        let target_bytes: usize = base.extents.iter().map(|extent| extent.bytes).sum();
        let expected = [
            ("files_checked", self.files_checked, base.listed as u64),
            (
                "bytes_checked",
                self.bytes_checked,
                base.listed_bytes as u64,
            ),
            ("files_written", self.files_written, NEW_FILES.len() as u64),
            (
                "bytes_written",
                self.bytes_written,
                NEW_FILES.iter().map(|(_, bytes)| bytes).sum(),
            ),
            (
                "bytes_overwritten",
                self.bytes_overwritten,
                LAST_TARGET_ROUND * target_bytes as u64,
            ),
        ];
        for (name, found, expected) in expected {
            if found != expected {
                return Err(format!("the kernel reports {name}={found}, not {expected}"));
            }
        }
        if self.in_flight_max < DEPTH_MIN {
            return Err(format!(
                "the kernel had {} requests in flight at most, not {DEPTH_MIN}",
                self.in_flight_max
            ));
        }
        Ok(())
    }
}

/// Checks every file of the disk `raw`. Returns how many there are.
///
/// # Errors
///
/// The first file that is missing, too many, or not what it must be.
pub(crate) fn verify_disk(raw: &Path, base: &Base, seed: u64) -> Result<usize, String> {
    let mut disk = fs::read(raw)
        .map_err(|error| format!("cannot read the disk {}: {error}", raw.display()))?;
    let found = base.partition_of(&mut disk)?.read_all()?;
    verify_files(&found, &expected_files(base, seed))?;
    Ok(found.len())
}

/// What must be on the disk after a run: the files of the base but for the one overwritten, and
/// the new ones.
fn expected_files(base: &Base, seed: u64) -> Files {
    let mut files = base.files.clone();
    let target_bytes: usize = base.extents.iter().map(|extent| extent.bytes).sum();
    let mut target = vec![0; target_bytes];
    target_pattern(seed, LAST_TARGET_ROUND).fill(0, &mut target);
    files.insert(TARGET.to_owned(), target);
    for (path, bytes) in NEW_FILES {
        let mut content = vec![0; bytes as usize];
        new_file_pattern(seed, path).fill(0, &mut content);
        files.insert(path.to_owned(), content);
    }
    files
}

fn verify_files(found: &Files, expected: &Files) -> Result<(), String> {
    for (path, content) in expected {
        let Some(own) = found.get(path) else {
            return Err(format!("{path} is missing on the disk"));
        };
        if own.len() != content.len() {
            let (len, expected) = (own.len(), content.len());
            return Err(format!(
                "{path} has {len} bytes on the disk, not {expected}"
            ));
        }
        if let Some(at) = own.iter().zip(content).position(|(a, b)| a != b) {
            return Err(format!("{path} differs on the disk, from byte {at} on"));
        }
    }
    match found.keys().find(|path| !expected.contains_key(*path)) {
        Some(path) => Err(format!("{path} is on the disk, and nobody wrote it")),
        None => Ok(()),
    }
}

/// Checks that the base is, byte for byte, what it was.
///
/// # Errors
///
/// If it is not.
pub(crate) fn verify_base(base: &Base) -> Result<(), String> {
    let content = fs::read(&base.path)
        .map_err(|error| format!("cannot read the base {}: {error}", base.path.display()))?;
    if sha256_hex(&content) != base.sha256 {
        return Err("the base has changed".to_owned());
    }
    Ok(())
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &[u8])]) -> Files {
        list.iter()
            .map(|(path, content)| ((*path).to_owned(), content.to_vec()))
            .collect()
    }

    #[test]
    fn each_way_in_which_files_can_be_wrong_is_found() {
        let expected = files(&[("A", b"one"), ("B/C", b"two")]);
        assert!(verify_files(&expected, &expected).is_ok());
        for (wrong, complaint) in [
            (files(&[("A", b"one")]), "missing"),
            (files(&[("A", b"one"), ("B/C", b"tw")]), "2 bytes"),
            (files(&[("A", b"one"), ("B/C", b"twO")]), "from byte 2"),
            (
                files(&[("A", b"one"), ("B/C", b"two"), ("D", b"")]),
                "nobody wrote it",
            ),
        ] {
            let fault = verify_files(&wrong, &expected).expect_err("wrong");
            assert!(fault.contains(complaint), "{fault}");
        }
    }

    #[test]
    fn digests_are_sha_256() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_report_is_found_and_read() {
        let output = format!(
            "{}\n{REPORT} files_checked=1 bytes_checked=2 files_written=3 bytes_written=4 \
             bytes_overwritten=5 in_flight_max=64\ndone\n",
            crate::agreed::GREETING
        );
        let report = Report::find(&output).expect("complete");
        assert_eq!((report.files_checked, report.in_flight_max), (1, 64));
        assert!(Report::find("done\n").is_err());
        assert!(Report::find(&output.replace("bytes_written", "bytes")).is_err());
    }
}
