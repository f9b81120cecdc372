//! Sleep until a socket, a device or a signal has something.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::bell::{BLIND_SLEEP, Bell, timespec};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) control: bool,
    pub(super) listener: bool,
    /// Connections that may have something to read, by index.
    pub(super) readable: Vec<usize>,
}

/// Waits for everything at once.
pub(super) struct Sleeper {
    bell: Arc<Bell>,
}

impl Sleeper {
    pub(super) fn new() -> Sleeper {
        Sleeper { bell: Bell::new() }
    }

    /// Ends a sleep, from any thread; one that comes early ends the next one at once.
    pub(super) fn waker(&self) -> Waker {
        self.bell.waker()
    }

    /// Sleeps until something is ready, at most for `limit`.
    pub(super) fn sleep<'f>(
        &'f self,
        control: BorrowedFd<'f>,
        listener: Option<BorrowedFd<'f>>,
        connections: &[Option<(BorrowedFd<'f>, Interest)>],
        limit: Option<Duration>,
    ) -> io::Result<Ready> {
        let mut set = Vec::with_capacity(connections.len() + 3);
        set.push(PollFd::from_borrowed_fd(control, PollFlags::IN));
        // Places 1 and 2 are always there; what is missing is replaced by the first.
        for fd in [self.bell.fd(), listener] {
            set.push(PollFd::from_borrowed_fd(
                fd.unwrap_or(control),
                PollFlags::IN,
            ));
        }
        let mut indices = Vec::with_capacity(connections.len());
        for (index, connection) in connections.iter().enumerate() {
            let Some((fd, interest)) = connection else {
                continue;
            };
            // A socket that nothing is wanted of would still report that its peer is gone.
            if !interest.read && !interest.write {
                continue;
            }
            indices.push(index);
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.read);
            flags.set(PollFlags::OUT, interest.write);
            set.push(PollFd::from_borrowed_fd(*fd, flags));
        }
        // Sockets are looked at even if there is no reason to sleep.
        let sleeps = self.bell.lie_down();
        let limit = match self.bell.fd() {
            _ if !sleeps => Some(Duration::ZERO),
            Some(_) => limit,
            None => Some(limit.unwrap_or(BLIND_SLEEP).min(BLIND_SLEEP)),
        };
        let polled = poll(&mut set, limit.map(timespec).as_ref());
        if sleeps {
            self.bell.get_up();
        }
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has = |place: usize| {
            set.get(place)
                .is_some_and(|fd| fd.revents().intersects(PollFlags::IN))
        };
        let readable = indices.iter().zip(set.iter().skip(3)).filter(|(_, fd)| {
            let events = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            fd.revents().intersects(events)
        });
        Ok(Ready {
            control: has(0),
            listener: listener.is_some() && has(2),
            readable: readable.map(|(index, _)| *index).collect(),
        })
    }
}
