//! A server in a process of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Doing, Failure};

/// How long a server may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one may take to end when nobody wants its results any more.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// A process that listens on a socket, or offers a file. Killed if it is dropped.
pub(super) struct Server {
    name: String,
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts `command`, which makes `socket`, and waits until it takes connections.
    ///
    /// # Errors
    /// It can not be started, or ends at once.
    pub(super) fn start(command: &mut Command, socket: &Path) -> Result<Server, Failure> {
        // One that was killed leaves its socket.
        let _ = fs::remove_file(socket);
        let mut server = Server::spawn(command, socket)?;
        server.wait_until(|| UnixStream::connect(socket).is_ok())?;
        Ok(server)
    }

    /// Starts `command`, which is ready when `is_ready` says so.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) fn start_until(
        command: &mut Command,
        is_ready: impl Fn() -> bool,
    ) -> Result<Server, Failure> {
        let mut server = Server::spawn(command, Path::new(""))?;
        server.wait_until(is_ready)?;
        Ok(server)
    }

    fn spawn(command: &mut Command, socket: &Path) -> Result<Server, Failure> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| OsStr::display(name).to_string());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(|| format!("cannot run {name}"))?;
        Ok(Server {
            name,
            child,
            socket: socket.to_path_buf(),
        })
    }

    fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        while !is_ready() {
            if let Some(status) = self.child.try_wait().doing(|| &self.name)? {
                return Err(Failure::because(&self.name, status));
            }
            if start.elapsed() > PATIENCE {
                return Err(Failure::because(&self.name, "it does not begin to serve"));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// For clients.
    pub(super) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Ends it by SIGTERM, so that it closes its image in good order.
    ///
    /// # Errors
    /// It does not end, or says that it failed.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        match self.terminate(PATIENCE)? {
            Some(status) if ended_well(status) => Ok(()),
            Some(status) => Err(Failure::because(&self.name, status)),
            None => Err(Failure::because(&self.name, "it does not end")),
        }
    }

    /// How it ended; `None` if it does not within `patience`.
    fn terminate(&mut self, patience: Duration) -> Result<Option<ExitStatus>, Failure> {
        let cannot = || format!("cannot stop {}", self.name);
        if self.child.try_wait().doing(cannot)?.is_none()
            && let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(id, Signal::TERM).doing(cannot)?;
        }
        let start = Instant::now();
        while start.elapsed() < patience {
            let status = self.child.try_wait().doing(|| &self.name)?;
            if status.is_some() {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }
}

/// Done, or killed by the signal that it was sent: strace ends as the program that it traces.
fn ended_well(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.success() || status.signal() == Some(Signal::TERM.as_raw())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Something went wrong if it has not ended yet. Killed at once, it would leave what it mounted.
        if !matches!(self.terminate(LAST_PATIENCE), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.socket);
    }
}
