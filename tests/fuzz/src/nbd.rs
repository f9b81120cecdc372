//! The server side of NBD, against a client that sends anything in any pieces.

use fvd_nbd::export::Export;
use fvd_nbd::handshake::{Agreed, Handshake, INPUT_BYTES_MAX, Progress};
use fvd_nbd::request::{Command, REQUEST_BYTES, Request, RequestError};

use crate::input::Input;

/// Answers to one piece of input are at most this much longer than it: an option of 16 bytes lists all
/// exports, or describes one.
const ANSWER_BYTES_MAX: usize = 512;

fn exports(read_only: bool) -> [Export<'static>; 2] {
    let disk = Export {
        name: "disk",
        description: "a disk",
        size_bytes: (1 << 20) + 512,
        read_only,
        trim: !read_only,
        block_bytes_min: 512,
        block_bytes_preferred: 4096,
        payload_bytes_max: 1 << 16,
    };
    let bytes = Export {
        name: "bytes",
        description: "",
        size_bytes: u64::MAX,
        block_bytes_min: 1,
        ..disk
    };
    [disk, bytes]
}

/// A handshake, and requests after it or without it.
pub fn nbd(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let exports = exports(input.u8().is_multiple_of(2));
    let agreed = if input.u8().is_multiple_of(4) {
        Some(Agreed {
            export: 0,
            structured: input.u8().is_multiple_of(2),
            block_status: input.u8().is_multiple_of(2),
        })
    } else {
        shake(&mut input, &exports)
    };
    let Some(agreed) = agreed else {
        return;
    };
    let export = exports.get(agreed.export).expect("an export that exists");
    while !input.is_empty() {
        request(&mut input, export, &agreed);
    }
}

/// Every piece moves the handshake on or is kept for the next; what is kept stays small.
fn shake(input: &mut Input<'_>, exports: &[Export<'_>]) -> Option<Agreed> {
    let (mut handshake, mut held) = (Handshake::new(), Vec::new());
    while !input.is_empty() {
        let step = 1 + usize::from(input.u8());
        held.extend(piece(input, step));
        let mut answered = 0;
        let (used, progress) =
            handshake.advance(&held, exports, &mut |bytes| answered += bytes.len());
        assert!(used <= held.len());
        let options = 1 + held.len() / 16;
        assert!(answered <= options * ANSWER_BYTES_MAX, "{answered} bytes");
        held.drain(..used);
        match progress {
            Progress::Agreed(agreed) => return Some(agreed),
            Progress::Ended(_) => return None,
            Progress::Pending => assert!(held.len() <= INPUT_BYTES_MAX),
        }
        // Without new input there is nothing more to say.
        let (used, again) = handshake.advance(&held, exports, &mut |_| panic!("said twice"));
        assert_eq!((used, again), (0, Progress::Pending));
    }
    None
}

/// Bytes of the input, or an option that is whole, which chance would take long to find.
fn piece(input: &mut Input<'_>, step: usize) -> Vec<u8> {
    let data = match input.u8() % 8 {
        0 => return vec![0, 0, 0, input.u8() % 4],
        1..=3 => named(input),
        4 => [named(input), vec![0, 1, 0, 3]].concat(),
        5 => {
            let context = b"base:allocation";
            let count = 1u32.to_be_bytes();
            let len = (context.len() as u32).to_be_bytes();
            [named(input), count.to_vec(), len.to_vec(), context.to_vec()].concat()
        }
        6 => Vec::new(),
        _ => return input.bytes(step),
    };
    let mut option = b"IHAVEOPT".to_vec();
    option.extend(u32::from(input.u8() % 16).to_be_bytes());
    option.extend((data.len() as u32).to_be_bytes());
    option.extend(data);
    // Sometimes cut, so that the rest comes from somewhere else.
    option.truncate(option.len().saturating_sub(usize::from(input.u8() / 128)));
    option
}

fn named(input: &mut Input<'_>) -> Vec<u8> {
    let name = match input.u8() % 4 {
        0 => b"disk".to_vec(),
        1 => b"bytes".to_vec(),
        2 => Vec::new(),
        _ => input.bytes(7),
    };
    let mut bytes = (name.len() as u32).to_be_bytes().to_vec();
    bytes.extend(name);
    bytes
}

/// What is let through is inside the export and aligned; what is refused says whose it is.
fn request(input: &mut Input<'_>, export: &Export<'_>, agreed: &Agreed) {
    let mut bytes = [0; REQUEST_BYTES];
    let places = [0, 512, 4096, 1 << 16, 1 << 20, 1 << 32, export.size_bytes];
    if input.u8().is_multiple_of(8) {
        let raw = input.bytes(REQUEST_BYTES);
        bytes[..raw.len()].copy_from_slice(&raw);
    } else {
        bytes[..4].copy_from_slice(&0x2560_9513_u32.to_be_bytes());
        bytes[4..6].copy_from_slice(&u16::from(input.u8() % 32).to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::from(input.u8() % 10).to_be_bytes());
        bytes[8..16].copy_from_slice(&input.u64().to_be_bytes());
        bytes[16..24].copy_from_slice(&input.edge(&places).to_be_bytes());
        bytes[24..28].copy_from_slice(&(input.edge(&places) as u32).to_be_bytes());
    }
    let cookie = u64::from_be_bytes(bytes[8..16].try_into().expect("eight"));
    match Request::parse(&bytes, export, agreed) {
        Ok(request) => {
            assert_eq!(request.cookie, cookie);
            let (at, len) = (request.offset, u64::from(request.len));
            match request.command {
                Command::Disconnect => return,
                Command::Flush => return assert_eq!((at, len), (0, 0)),
                Command::Read | Command::Write { .. } => {
                    assert!(request.len <= export.payload_bytes_max);
                }
                _ => {}
            }
            let changes = matches!(
                request.command,
                Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
            );
            assert!(!changes || !export.read_only, "{request:?}");
            assert!(
                len != 0
                    && at
                        .checked_add(len)
                        .is_some_and(|end| end <= export.size_bytes)
            );
            let block = u64::from(export.block_bytes_min);
            assert!(at.is_multiple_of(block) && len.is_multiple_of(block));
        }
        Err(RequestError::Refused(refusal)) => {
            assert_eq!(refusal.cookie, cookie);
            assert!(refusal.payload_bytes <= 256 << 20);
        }
        Err(_) => {}
    }
}
