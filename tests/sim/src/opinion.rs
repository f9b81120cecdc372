//! What two checkers that share no code say of one image.
//!
//! The first is the engine's own, [`Engine::examine`](crate::engine::Engine::examine); the second is
//! `tests/checker`, written in Python from the specification alone. A search shows them a sample of
//! its states, before and after recovery: see [`Explorer::set_auditor`].
//!
//! [`Explorer::set_auditor`]: crate::explore::Explorer::set_auditor

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

/// The bytes of an image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What the metadata device holds.
    pub metadata: Vec<u8>,
    /// What the data device holds, if there is one.
    pub data: Option<Vec<u8>>,
    /// Size of the base, if there is one.
    pub base_bytes: Option<u64>,
}

/// Whether an image is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Verdict {
    /// It is; what a crash leaves is.
    #[serde(rename = "clean")]
    Clean,
    /// It breaks a rule.
    #[serde(rename = "corrupt")]
    Corrupt,
    /// The checker can not tell.
    #[serde(rename = "could not check")]
    Unknown,
}

/// Where a run of the guest's bytes is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Extent {
    /// First byte of the disk.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// `image`, `base`, `zero` or `unreadable`.
    pub state: String,
    /// First byte there.
    pub offset: Option<u64>,
}

/// What an image uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Chunks of the disk that have a chunk of the store.
    pub mapped: u64,
    /// Chunks of the disk that are lost.
    pub unreadable: u64,
    /// Blocks that hide the base.
    pub hidden: u64,
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Whether the image is sound.
    pub verdict: Verdict,
    /// Where the guest's bytes are, of a sound image.
    pub extents: Option<Vec<Extent>>,
    /// What it uses, of a sound image.
    pub counts: Option<Counts>,
    /// What is wrong, for people.
    pub findings: Vec<String>,
}

impl Examined {
    /// Of an image that is not sound.
    #[must_use]
    pub fn unsound(verdict: Verdict, findings: Vec<String>) -> Examined {
        Examined {
            verdict,
            extents: None,
            counts: None,
            findings,
        }
    }

    /// Where another checker says something else.
    #[must_use]
    pub fn differs_from(&self, other: &Examined) -> Option<String> {
        if self.verdict != other.verdict {
            let (one, two) = (&self.findings, &other.findings);
            return Some(format!(
                "{:?} {one:?} to the engine, {:?} {two:?} to the checker",
                self.verdict, other.verdict
            ));
        }
        if self.counts != other.counts {
            return Some(format!(
                "{:?} to the engine, {:?} to the checker",
                self.counts, other.counts
            ));
        }
        (self.extents != other.extents).then(|| {
            format!(
                "the engine maps {:?}, the checker {:?}",
                self.extents, other.extents
            )
        })
    }
}

/// Joins extents that continue each other.
#[must_use]
pub fn joined(extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut all: Vec<Extent> = Vec::new();
    for extent in extents {
        match all.last_mut() {
            Some(last)
                if last.state == extent.state
                    && last.offset.map(|offset| offset + last.length) == extent.offset =>
            {
                last.length += extent.length;
            }
            _ => all.push(extent),
        }
    }
    all
}

/// A checker that is not the engine's.
pub trait Opinion: Send {
    /// What it says of an image.
    ///
    /// # Errors
    /// Why it says nothing; for people.
    fn ask(&mut self, image: &Image) -> Result<Examined, String>;
}

/// `tests/checker`, one process for any number of images.
pub struct Python {
    child: Child,
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Sizes {
    metadata: usize,
    data: Option<usize>,
    base: Option<u64>,
}

#[derive(Deserialize)]
struct Finding {
    r#where: String,
    what: String,
}

#[derive(Deserialize)]
struct Answer {
    verdict: Verdict,
    errors: Vec<Finding>,
    #[serde(default)]
    map: Option<Vec<Extent>>,
    #[serde(default)]
    counts: Option<Counts>,
}

impl Python {
    /// Starts it. `None` if there is no Python, unless this is CI, where there has to be one.
    ///
    /// # Errors
    /// Why it does not start, or that CI has none.
    pub fn start() -> Result<Option<Python>, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path)
            .map(|folder| folder.join("python3"))
            .find(|place| place.is_file());
        match found {
            Some(python) => Python::run(&python).map(Some),
            None if env::var("CI").as_deref() == Ok("true") => {
                Err("python3 is not installed".into())
            }
            None => Ok(None),
        }
    }

    fn run(python: &Path) -> Result<Python, String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checker/fvd_check");
        let mut child = Command::new(python)
            .arg("-BIS")
            .arg(program)
            .arg("--batch")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", python.display()))?;
        let input = child.stdin.take();
        let answers = child.stdout.take().ok_or("the checker has no output")?;
        Ok(Python {
            child,
            input,
            answers: BufReader::new(answers),
        })
    }

    fn send(&mut self, image: &Image) -> std::io::Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let sizes = Sizes {
            metadata: image.metadata.len(),
            data: image.data.as_ref().map(Vec::len),
            base: image.base_bytes,
        };
        serde_json::to_writer(&mut *input, &sizes)?;
        input.write_all(b"\n")?;
        input.write_all(&image.metadata)?;
        input.write_all(image.data.as_deref().unwrap_or_default())?;
        input.flush()
    }
}

impl Opinion for Python {
    fn ask(&mut self, image: &Image) -> Result<Examined, String> {
        let mut line = String::new();
        self.send(image)
            .and_then(|()| self.answers.read_line(&mut line))
            .map_err(|error| format!("the checker: {error}"))?;
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| format!("the checker: {error}"))?;
        let findings = answer.errors.iter();
        Ok(Examined {
            verdict: answer.verdict,
            extents: answer.map.map(|map| joined(map.into_iter())),
            counts: answer.counts,
            findings: findings
                .map(|finding| format!("{}: {}", finding.r#where, finding.what))
                .collect(),
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input = None;
        let _ = self.child.wait();
    }
}
