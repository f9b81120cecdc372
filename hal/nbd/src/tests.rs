//! A client that does everything right, and many that do not.

extern crate std;

use std::vec::Vec;

use crate::export::Export;
use crate::handshake::{Agreed, End, Handshake, INPUT_BYTES_MAX, OPTION_BYTES_MAX, Progress};
use crate::reply::{self, Errno, Extent};
use crate::request::{Command, Refusal, Request, RequestError};
use crate::wire::{OPTION_MAGIC, OPTION_REPLY_MAGIC, answer, command, info, option};

const DISK: Export<'static> = Export {
    name: "disk",
    description: "the only one",
    size_bytes: 1 << 20,
    read_only: false,
    trim: true,
    block_bytes_min: 512,
    block_bytes_preferred: 4096,
    payload_bytes_max: 1 << 16,
};

const ALL: Agreed = Agreed {
    export: 0,
    structured: true,
    block_status: true,
};

/// Client flags: fixed newstyle, no zeroes.
const FLAGS: [u8; 4] = [0, 0, 0, 3];

fn message(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn named(name: &str, rest: &[u8]) -> Vec<u8> {
    let mut bytes = (name.len() as u32).to_be_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.extend(rest);
    bytes
}

fn query(name: &str, contexts: &[&str]) -> Vec<u8> {
    let mut rest = (contexts.len() as u32).to_be_bytes().to_vec();
    contexts
        .iter()
        .for_each(|context| rest.extend(named(context, &[])));
    named(name, &rest)
}

/// Feeds `input` in pieces of `step` bytes. Returns the answers to options, and the end.
fn talk(input: &[u8], step: usize) -> (Vec<u8>, Progress) {
    let (mut handshake, mut output, mut held) = (Handshake::new(), Vec::new(), Vec::new());
    let mut progress = Progress::Pending;
    for piece in input.chunks(step) {
        held.extend(piece);
        let (used, now) =
            handshake.advance(&held, &[DISK], &mut |bytes| output.extend_from_slice(bytes));
        held.drain(..used);
        assert!(held.len() <= INPUT_BYTES_MAX);
        progress = now;
        if progress != Progress::Pending {
            break;
        }
    }
    (output, progress)
}

/// (option, kind, data) of each answer.
fn answers(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4"));
        assert_eq!(bytes[..8], OPTION_REPLY_MAGIC.to_be_bytes());
        let len = word(16) as usize;
        found.push((word(8), word(12), bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    found
}

fn kinds(bytes: &[u8]) -> Vec<u32> {
    answers(bytes)
        .into_iter()
        .map(|(_, kind, _)| kind)
        .collect()
}

#[test]
fn the_greeting_is_fixed_newstyle() {
    let greeting = Handshake::greeting();
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
    assert_eq!(greeting[16..], [0, 3]);
}

#[test]
fn a_modern_client_gets_what_it_wants_in_pieces_of_any_size() {
    let mut input = FLAGS.to_vec();
    input.extend(message(option::STRUCTURED_REPLY, &[]));
    let contexts = ["qemu:dirty", "base:allocation"];
    input.extend(message(option::SET_META_CONTEXT, &query("disk", &contexts)));
    let items = [&2u16.to_be_bytes()[..], &[0, 3], &[0, 1]].concat();
    input.extend(message(option::GO, &named("disk", &items)));
    for step in [1, 7, 4096] {
        let (output, progress) = talk(&input, step);
        assert_eq!(progress, Progress::Agreed(ALL));
        let answers = answers(&output);
        let infos: Vec<u16> = answers
            .iter()
            .filter(|(_, kind, _)| *kind == answer::INFO)
            .map(|(_, _, data)| u16::from_be_bytes([data[0], data[1]]))
            .collect();
        assert_eq!(infos, [info::EXPORT, info::BLOCK_SIZE, info::NAME]);
        assert_eq!(answers[1].2[4..], *b"base:allocation");
        assert_eq!(answers[3].2[2..10], DISK.size_bytes.to_be_bytes());
        assert_eq!(answers.last().map(|last| last.1), Some(answer::ACK));
    }
}

#[test]
fn a_client_of_old_gets_124_zeros_unless_it_declines() {
    for (flags, zeros) in [(1u8, 124), (3, 0)] {
        let mut input = std::vec![0, 0, 0, flags];
        input.extend(message(option::EXPORT_NAME, b"disk"));
        let (output, progress) = talk(&input, 5);
        assert_eq!(progress, Progress::Agreed(Agreed::default()));
        assert_eq!(output.len(), 10 + zeros);
        assert_eq!(output[..8], DISK.size_bytes.to_be_bytes());
    }
    let mut input = FLAGS.to_vec();
    input.extend(message(option::EXPORT_NAME, b"other"));
    assert_eq!(talk(&input, 99).1, Progress::Ended(End::NoSuchExport));
}

#[test]
fn what_is_not_spoken_is_refused_and_the_talk_goes_on() {
    let mut input = FLAGS.to_vec();
    for number in [5, 11, 0xFFFF_FFFF] {
        input.extend(message(number, b"?"));
    }
    input.extend(message(option::LIST, b"x"));
    input.extend(message(option::GO, &named("other", &[0, 0])));
    input.extend(message(option::GO, &named("disk", &[0, 9])));
    input.extend(message(option::INFO, &[0xFF; 4]));
    input.extend(message(option::STRUCTURED_REPLY, b"x"));
    // Contexts need structured replies.
    input.extend(message(option::SET_META_CONTEXT, &query("disk", &[])));
    input.extend(message(77, &std::vec![0; OPTION_BYTES_MAX + 1]));
    input.extend(message(option::LIST, &[]));
    input.extend(message(option::ABORT, &[]));
    for step in [1, 3000, 1 << 20] {
        let (output, progress) = talk(&input, step);
        assert_eq!(progress, Progress::Ended(End::Aborted));
        assert_eq!(
            kinds(&output),
            [
                answer::ERR_UNSUP,
                answer::ERR_UNSUP,
                answer::ERR_UNSUP,
                answer::ERR_INVALID,
                answer::ERR_UNKNOWN,
                answer::ERR_INVALID,
                answer::ERR_INVALID,
                answer::ERR_INVALID,
                answer::ERR_INVALID,
                answer::ERR_TOO_BIG,
                answer::SERVER,
                answer::ACK,
                answer::ACK,
            ]
        );
    }
}

#[test]
fn a_client_that_makes_no_sense_is_sent_away() {
    let unknown = [0, 0, 1, 3];
    assert_eq!(talk(&unknown, 4).1, Progress::Ended(End::Flags(0x103)));
    let mut input = FLAGS.to_vec();
    input.extend([7; 16]);
    let magic = u64::from_be_bytes([7; 8]);
    assert_eq!(talk(&input, 4).1, Progress::Ended(End::Magic(magic)));
    let mut input = FLAGS.to_vec();
    (0..300).for_each(|_| input.extend(message(option::LIST, &[])));
    assert_eq!(talk(&input, 64).1, Progress::Ended(End::TooMany));
}

#[test]
fn contexts_can_be_listed_and_unset() {
    let mut input = FLAGS.to_vec();
    input.extend(message(option::STRUCTURED_REPLY, &[]));
    for contexts in [&[][..], &["base:"], &["base:allocation"], &["qemu:"]] {
        input.extend(message(option::LIST_META_CONTEXT, &query("", contexts)));
    }
    input.extend(message(
        option::SET_META_CONTEXT,
        &query("disk", &["base:allocation"]),
    ));
    input.extend(message(
        option::SET_META_CONTEXT,
        &query("disk", &["qemu:"]),
    ));
    input.extend(message(option::GO, &named("", &[0, 0])));
    let (output, progress) = talk(&input, 11);
    let without = Agreed {
        block_status: false,
        ..ALL
    };
    assert_eq!(progress, Progress::Agreed(without));
    let contexts = kinds(&output)
        .iter()
        .filter(|kind| **kind == answer::META_CONTEXT)
        .count();
    assert_eq!(contexts, 4);
}

#[test]
fn noise_neither_panics_nor_makes_the_server_talkative() {
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut input = FLAGS.to_vec();
        for _ in 0..next() % 6 {
            let len = (next() % 40) as usize;
            let data: Vec<u8> = (0..len).map(|_| (next() % 5) as u8).collect();
            let mut bytes = message((next() % 13) as u32, &data);
            if next() % 4 == 0 {
                let at = (next() as usize) % bytes.len();
                bytes[at] = next() as u8;
            }
            input.extend(bytes);
        }
        let (output, _) = talk(&input, 1 + (next() % 64) as usize);
        assert!(output.len() < 6 * 400, "{} bytes", output.len());
    }
}

fn request(kind: u16, flags: u16, offset: u64, len: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&42u64.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn parsed(bytes: &[u8; 28]) -> Result<Command, Errno> {
    match Request::parse(bytes, &DISK, &ALL) {
        Ok(request) => Ok(request.command),
        Err(RequestError::Refused(refusal)) => Err(refusal.error),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_understood() {
    let size = DISK.size_bytes;
    for (kind, flags, wanted) in [
        (command::READ, 0, Command::Read),
        (command::READ, command::FLAG_DF, Command::Read),
        (command::WRITE, 0, Command::Write { fua: false }),
        (
            command::WRITE,
            command::FLAG_FUA,
            Command::Write { fua: true },
        ),
        (command::TRIM, 0, Command::Trim { fua: false }),
        (command::CACHE, 0, Command::Cache),
        (
            command::WRITE_ZEROES,
            command::FLAG_NO_HOLE | command::FLAG_FUA,
            Command::WriteZeroes {
                fua: true,
                no_hole: true,
            },
        ),
        (
            command::BLOCK_STATUS,
            command::FLAG_REQ_ONE,
            Command::BlockStatus { one: true },
        ),
    ] {
        assert_eq!(parsed(&request(kind, flags, size - 512, 512)), Ok(wanted));
    }
    assert_eq!(
        parsed(&request(command::FLUSH, 0, 0, 0)),
        Ok(Command::Flush)
    );
    assert_eq!(
        parsed(&request(command::DISC, 0, 1, 1)),
        Ok(Command::Disconnect)
    );
    let whole = Request::parse(&request(command::READ, 0, 512, 1024), &DISK, &ALL);
    assert_eq!(
        whole,
        Ok(Request {
            command: Command::Read,
            cookie: 42,
            offset: 512,
            len: 1024,
        })
    );
}

#[test]
fn every_offset_and_length_is_distrusted() {
    let size = DISK.size_bytes;
    for (kind, offset, len, error) in [
        (command::READ, size, 512, Errno::Inval),
        (command::READ, u64::MAX - 511, 512, Errno::Inval),
        (command::READ, 0, 0, Errno::Inval),
        (command::READ, 1, 512, Errno::Inval),
        (command::READ, 0, 511, Errno::Inval),
        (command::READ, 0, (1 << 16) + 512, Errno::Inval),
        (command::WRITE, size - 512, 1024, Errno::NoSpc),
        (command::WRITE, u64::MAX - 511, 512, Errno::NoSpc),
        (command::WRITE_ZEROES, size, 512, Errno::NoSpc),
        (command::TRIM, 0, u32::MAX - 511, Errno::NoSpc),
        (command::BLOCK_STATUS, 0, u32::MAX - 511, Errno::Inval),
        (command::FLUSH, 0, 512, Errno::Inval),
        (8, 0, 512, Errno::Inval),
        (0xFFFF, 0, 512, Errno::Inval),
    ] {
        let bytes = request(kind, 0, offset, len);
        assert_eq!(parsed(&bytes), Err(error), "{kind} {offset} {len}");
    }
    // A range may be longer than what one request may carry, if it carries nothing.
    assert!(parsed(&request(command::WRITE_ZEROES, 0, 0, size as u32)).is_ok());
    for (kind, flags) in [
        (command::READ, 2),
        (command::WRITE, 4),
        (command::FLUSH, 16),
    ] {
        assert_eq!(parsed(&request(kind, flags, 0, 512)), Err(Errno::Inval));
    }
}

#[test]
fn what_was_not_agreed_is_refused() {
    let plain = Agreed::default();
    for (kind, flags) in [
        (command::BLOCK_STATUS, 0),
        (command::READ, command::FLAG_DF),
    ] {
        let bytes = request(kind, flags, 0, 512);
        assert!(matches!(
            Request::parse(&bytes, &DISK, &plain),
            Err(RequestError::Refused(Refusal {
                error: Errno::Inval,
                structured: false,
                ..
            }))
        ));
    }
    let read_only = Export {
        read_only: true,
        ..DISK
    };
    let no_trim = Export {
        trim: false,
        ..DISK
    };
    for (export, kind, error) in [
        (read_only, command::WRITE, Errno::Perm),
        (read_only, command::TRIM, Errno::Perm),
        (read_only, command::WRITE_ZEROES, Errno::Perm),
        (no_trim, command::TRIM, Errno::NotSup),
    ] {
        let found = Request::parse(&request(kind, 0, 0, 512), &export, &ALL);
        let payload_bytes = if kind == command::WRITE { 512 } else { 0 };
        assert_eq!(
            found,
            Err(RequestError::Refused(Refusal {
                cookie: 42,
                error,
                payload_bytes,
                structured: false,
            }))
        );
    }
}

#[test]
fn a_request_that_can_not_be_skipped_ends_the_connection() {
    let mut bytes = request(command::READ, 0, 0, 512);
    bytes[0] = 0;
    assert!(matches!(
        Request::parse(&bytes, &DISK, &ALL),
        Err(RequestError::Magic(_))
    ));
    let bytes = request(command::WRITE, 0, 0, u32::MAX);
    assert_eq!(
        Request::parse(&bytes, &DISK, &ALL),
        Err(RequestError::Oversized(u32::MAX))
    );
}

#[test]
fn replies_are_laid_out_as_the_protocol_says() {
    assert_eq!(
        reply::simple(42, None),
        [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42]
    );
    assert_eq!(reply::simple(1, Some(Errno::NoSpc))[7], 28);
    let head = reply::data_header(7, 512, 1024);
    assert_eq!(head[..8], [0x66, 0x8E, 0x33, 0xEF, 0, 1, 0, 1]);
    assert_eq!(head[16..20], 1032u32.to_be_bytes());
    assert_eq!(head[20..], 512u64.to_be_bytes());
    assert_eq!(reply::done(7)[4..8], [0, 1, 0, 0]);
    assert_eq!(reply::error(7, Errno::Io)[4..8], [0, 1, 0x80, 1]);
    assert_eq!(
        reply::error(7, Errno::Io)[16..],
        [0, 0, 0, 6, 0, 0, 0, 5, 0, 0]
    );
    let status = reply::status_header(7, 2);
    assert_eq!(status[16..], [0, 0, 0, 20, 0, 0, 0, 1]);
    let extent = Extent {
        bytes: 4096,
        hole: true,
        zero: true,
    };
    assert_eq!(reply::status_extent(extent), [0, 0, 16, 0, 0, 0, 0, 3]);
}
