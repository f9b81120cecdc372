//! Replies: what a client is answered, and how much of it was sent.

use std::io::IoSlice;

use fvd_nbd::reply::{self, Errno};
use fvd_nbd::request::{Command, Request};

use crate::aligned::AlignedBuffer;

/// Bytes on their way to a client.
pub(super) struct Reply {
    head: Vec<u8>,
    data: Option<AlignedBuffer>,
    /// A buffer that came home with it and carries nothing.
    spare: Option<AlignedBuffer>,
    sent: usize,
    /// Bytes of data that its request held.
    held: usize,
    error: bool,
}

impl Reply {
    pub(super) fn bytes(head: Vec<u8>) -> Reply {
        Reply {
            head,
            data: None,
            spare: None,
            sent: 0,
            held: 0,
            error: false,
        }
    }

    pub(super) fn success(structured: bool, request: &Request) -> Reply {
        let cookie = request.cookie;
        let head = if structured && returns_data(request) {
            reply::done(cookie).to_vec()
        } else {
            reply::simple(cookie, None).to_vec()
        };
        Reply {
            held: held(request),
            ..Reply::bytes(head)
        }
    }

    pub(super) fn data(structured: bool, request: &Request, data: AlignedBuffer) -> Reply {
        let (cookie, offset, len) = (request.cookie, request.offset, request.len);
        let head = if structured {
            reply::data_header(cookie, offset, len).to_vec()
        } else {
            reply::simple(cookie, None).to_vec()
        };
        Reply {
            data: Some(data),
            held: held(request),
            ..Reply::bytes(head)
        }
    }

    pub(super) fn failure(structured: bool, request: &Request, error: Errno) -> Reply {
        let structured = structured && returns_data(request);
        Reply {
            held: held(request),
            ..Reply::refusal(structured, request.cookie, error)
        }
    }

    /// The answer to a request that holds nothing.
    pub(super) fn refusal(structured: bool, cookie: u64, error: Errno) -> Reply {
        let head = if structured {
            reply::error(cookie, error).to_vec()
        } else {
            reply::simple(cookie, Some(error)).to_vec()
        };
        Reply {
            error: true,
            ..Reply::bytes(head)
        }
    }

    pub(super) fn and_spare(mut self, spare: Option<AlignedBuffer>) -> Reply {
        self.spare = spare;
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.error
    }

    pub(super) fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    /// Notes that up to `count` bytes more were sent. Returns how many of them were of this reply.
    pub(super) fn on_sent(&mut self, count: usize) -> usize {
        let part = self.left().min(count);
        self.sent += part;
        part
    }

    /// Bytes that are not sent yet.
    pub(super) fn left(&self) -> usize {
        (self.head.len() + self.data_len()).saturating_sub(self.sent)
    }

    /// Bytes of data that its request held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Its memory, for other requests.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = AlignedBuffer> {
        [self.data, self.spare].into_iter().flatten()
    }

    /// What is left to send.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        let data: &[u8] = self.data.as_deref().unwrap_or(&[]);
        let head = self.head.get(self.sent..).unwrap_or(&[]);
        let sent_data = self.sent.saturating_sub(self.head.len());
        [head, data.get(sent_data..).unwrap_or(&[])].map(IoSlice::new)
    }
}

/// Whether the answer is more than done or failed; only those come structured.
fn returns_data(request: &Request) -> bool {
    matches!(request.command, Command::Read | Command::BlockStatus { .. })
}

/// Bytes of data that a request carries, one way or the other.
pub(super) fn held(request: &Request) -> usize {
    match request.command {
        Command::Read | Command::Write { .. } => request.len as usize,
        _ => 0,
    }
}
