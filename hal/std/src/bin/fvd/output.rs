//! What goes to the screen: results to standard output, everything else to standard error.

use core::fmt;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;

/// Tells the user something that is not the result.
pub(crate) fn say(text: impl fmt::Display) {
    // Nothing is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "fvd: {text}");
}

/// Prints the result as one JSON document.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from);
    printed(
        result
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush()),
    )
}

/// Prints the result as text; `text` ends its own lines.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    printed(write!(out, "{text}").and_then(|()| out.flush()))
}

fn printed(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::PipeClosed,
        _ => Failure::because("cannot write to standard output", error),
    })
}

/// A path in quotes, with everything escaped that could move the cursor or end the quotes.
///
/// Paths may come from an image, and a hostile image must not get to draw on a terminal.
pub(crate) struct Shown<'a>(pub(crate) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '"' => f.write_str("\"")?,
                    _ => letter.escape_debug().fmt(f)?,
                }
            }
            chunk.invalid().escape_ascii().fmt(f)?;
        }
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn paths_are_shown_in_one_line_whatever_is_in_them() {
        let shown = |bytes: &[u8]| Shown(Path::new(OsStr::from_bytes(bytes))).to_string();
        assert_eq!(shown(b"disk.fvd"), "'disk.fvd'");
        assert_eq!(shown("bücher \"a\"/日本".as_bytes()), "'bücher \"a\"/日本'");
        assert_eq!(shown(b"a\x1b[2J\nb\xff'"), r"'a\u{1b}[2J\nb\xff\''");
        assert_eq!(shown("a\u{202e}b\u{9b}".as_bytes()), r"'a\u{202e}b\u{9b}'");
    }
}
