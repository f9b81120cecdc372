//! The socket of one client: unix or loopback TCP.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A socket that never blocks.
pub(super) struct Stream {
    socket: Socket,
    /// Whether there may be something to read.
    readable: bool,
}

impl Stream {
    pub(super) fn unix(stream: UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream::new(Socket::Unix(stream)))
    }

    pub(super) fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        // Replies are gathered here; waiting for more would only delay them.
        stream.set_nodelay(true)?;
        Ok(Stream::new(Socket::Tcp(stream)))
    }

    fn new(socket: Socket) -> Stream {
        Stream {
            socket,
            readable: true,
        }
    }

    /// There is something to read.
    pub(super) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Reads what is there; 0 = the client is gone. `None` if nothing is there now.
    pub(super) fn receive(&mut self, target: &mut [u8]) -> io::Result<Option<usize>> {
        while self.readable {
            let result = match &mut self.socket {
                Socket::Unix(stream) => stream.read(target),
                Socket::Tcp(stream) => stream.read(target),
            };
            match result {
                Ok(count) => {
                    // Less than there was room for: that was all.
                    self.readable = count == target.len();
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(super) fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Unix(stream) => stream.write_vectored(slices),
            Socket::Tcp(stream) => stream.write_vectored(slices),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}
