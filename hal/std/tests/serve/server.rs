//! A server in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::cli::Folder;
use crate::wire::Client;

/// How long anything may take that should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
    errors: BufReader<ChildStderr>,
    printed: BufReader<ChildStdout>,
}

impl Server {
    /// `fvd serve ARGS` on a socket in `folder`, ready for clients.
    pub(crate) fn start(folder: &Folder, args: &str) -> Server {
        let socket = folder.path("socket");
        let mut child = Command::new(env!("CARGO_BIN_EXE_fvd"))
            .current_dir(folder.path(""))
            .args(["serve", "--socket", "socket"])
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("fvd runs");
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let printed = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("readable");
        assert!(line.starts_with("fvd: serving"), "{line}");
        Server {
            child,
            socket,
            errors,
            printed,
        }
    }

    /// For the command lines of other programs.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket)
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    pub(crate) fn thread_names(&self) -> Vec<String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("a process");
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            let name = std::fs::read_to_string(task.expect("entry").path().join("comm"));
            name.expect("a thread").trim_end().to_string()
        };
        tasks.map(name).collect()
    }

    /// Ends it by SIGTERM. Returns what it printed.
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("text");
        assert!(status.success(), "{status}: {said}");
        assert!(!self.socket.exists(), "the socket is gone");
        let mut printed = String::new();
        self.printed.read_to_string(&mut printed).expect("text");
        printed
    }

    /// The counters now; it must have been started with `--stats`.
    pub(crate) fn counters(&mut self) -> serde_json::Value {
        self.signal("USR1");
        let mut line = String::new();
        self.printed.read_line(&mut line).expect("text");
        serde_json::from_str(&line).expect("JSON")
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
