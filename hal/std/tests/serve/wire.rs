//! A client made by hand, which can do what no library lets one do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::server::PATIENCE;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISCONNECT: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;
pub(crate) const FUA: u16 = 1;

pub(crate) const PERM: u32 = 1;
pub(crate) const INVAL: u32 = 22;
pub(crate) const NOSPC: u32 = 28;

/// A reply: what for, error, and data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) error: u32,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    /// Size of the data of each read that was asked for, by cookie.
    reads: Vec<(u64, usize)>,
}

impl Client {
    /// Connects and reads the greeting; the handshake has not begun.
    pub(crate) fn connect(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Client {
            stream,
            reads: Vec::new(),
        };
        let greeting = client.take(18);
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        client
    }

    /// The old way in, with simple replies only.
    pub(crate) fn enter(mut self) -> Client {
        self.put(&[0, 0, 0, 3]);
        self.put(b"IHAVEOPT");
        self.put(&[0, 0, 0, 1, 0, 0, 0, 0]);
        let answer = self.take(10);
        assert!(u64::from_be_bytes(answer[..8].try_into().expect("8")) > 0);
        self
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream
            .read_exact(&mut bytes)
            .expect("the server answers");
        bytes
    }

    /// Whether the server has ended the connection; what it still says is skipped.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn header(kind: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes
    }

    /// Sends a request and does not wait.
    pub(crate) fn send(&mut self, kind: u16, cookie: u64, offset: u64, len: u32) {
        if kind == READ {
            self.reads.push((cookie, len as usize));
        }
        self.put(&Client::header(kind, 0, cookie, offset, len));
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        let head = self.take(16);
        assert_eq!(head[..4], 0x6744_6698u32.to_be_bytes());
        let error = u32::from_be_bytes(head[4..8].try_into().expect("4"));
        let cookie = u64::from_be_bytes(head[8..].try_into().expect("8"));
        let read = self.reads.iter().position(|(known, _)| *known == cookie);
        let len = read.map_or(0, |index| self.reads.swap_remove(index).1);
        let data = if error == 0 {
            self.take(len)
        } else {
            Vec::new()
        };
        Reply {
            cookie,
            error,
            data,
        }
    }

    /// One request from start to end. Returns its error.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, offset: u64, len: u32) -> u32 {
        self.put(&Client::header(kind, flags, 7, offset, len));
        let reply = self.reply();
        assert_eq!(reply.cookie, 7);
        reply.error
    }

    pub(crate) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        self.put(&Client::header(WRITE, flags, 7, offset, data.len() as u32));
        self.put(data);
        self.reply().error
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        self.send(READ, 9, offset, len);
        let reply = self.reply();
        assert_eq!((reply.cookie, reply.error), (9, 0));
        reply.data
    }
}
