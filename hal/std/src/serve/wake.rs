//! Sleep until a socket, a device or a signal has something.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

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

/// A counter in the kernel that a waker raises and a sleeper waits for.
struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        // The counter can only be full, and then it is raised already.
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Waits for everything at once.
pub(super) struct Sleeper {
    bell: Arc<Bell>,
}

impl Sleeper {
    pub(super) fn new() -> io::Result<Sleeper> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Sleeper {
            bell: Arc::new(Bell(bell)),
        })
    }

    /// Ends a sleep, from any thread; one that comes early ends the next one at once.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.bell))
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
        set.push(PollFd::from_borrowed_fd(self.bell.0.as_fd(), PollFlags::IN));
        // Place 2 is always there: the listener, or the bell once more.
        let third = listener.unwrap_or(self.bell.0.as_fd());
        set.push(PollFd::from_borrowed_fd(third, PollFlags::IN));
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
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        match poll(&mut set, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has = |place: usize| {
            set.get(place)
                .is_some_and(|fd| fd.revents().intersects(PollFlags::IN))
        };
        if has(1) {
            let mut count = [0; 8];
            let _ = read(&self.bell.0, &mut count);
        }
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
