//! Runs the `fvd` command as a user would.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What the command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The JSON document on standard output.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).expect("one JSON document")
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Fails the test unless the command failed with a message that has all these words in it.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self
    }
}

/// A folder to work in.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `fvd` in this folder.
    pub fn fvd<S: AsRef<OsStr>>(&self, args: &[S]) -> Said {
        run(Command::new(env!("CARGO_BIN_EXE_fvd"))
            .args(args)
            .current_dir(self.0.path()))
    }

    /// Runs `fvd` in this folder with the words of `line`.
    pub fn run(&self, line: &str) -> Said {
        self.fvd(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a file written");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file read")
    }

    /// Names of all files, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("folder");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }
}

/// Runs a command and collects what it says.
pub fn run(command: &mut Command) -> Said {
    let output = command.output().expect("a command that can be started");
    Said {
        code: output.status.code().expect("an exit code, no signal"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Bytes that a file takes on its file system.
pub fn allocated(path: &Path) -> u64 {
    fs::metadata(path).expect("file").blocks() * 512
}
