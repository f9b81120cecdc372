//! Names and commands in an image are data: nothing is opened, nothing is run, whatever they say.
//!
//! The names are those of pipes with somebody at the other end, who wakes when a pipe is opened. The
//! command would leave a file. That both would be noticed is shown with `--follow-names` and by
//! running the command.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::cli::Folder;
use fvd::format::{FormatName, Header, Limits, Name, SLOT_BYTES, choose_slot};

/// Waits at a pipe for somebody to open it.
struct Ear(Receiver<()>);

impl Ear {
    fn at(path: &Path) -> Ear {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("mkfifo runs").success(), "{}", path.display());
        let (heard, ear) = channel();
        let path = path.to_owned();
        // Opening a pipe for writing waits for whoever opens it for reading.
        thread::spawn(move || {
            if File::options().write(true).open(path).is_ok() {
                let _ = heard.send(());
            }
        });
        Ear(ear)
    }

    fn heard(&self) -> bool {
        self.0.try_recv().is_ok()
    }

    /// Waits, for a noise that must come.
    fn hears(&self) -> bool {
        self.0
            .recv_timeout(std::time::Duration::from_secs(60))
            .is_ok()
    }
}

/// Changes the header of an image, as somebody would who writes one by hand.
fn change(folder: &Folder, image: &str, change: impl FnOnce(&mut Header)) {
    let mut bytes = folder.read(image);
    let (first, second) = bytes[..2 * SLOT_BYTES].split_at(SLOT_BYTES);
    let chosen = choose_slot(first, second, &Limits::FORMAT).expect("an image");
    let mut header = chosen.header;
    header.generation += 1;
    change(&mut header);
    let other = chosen.slot.other().offset() as usize;
    let slot = bytes[other..].first_chunk_mut().expect("a slot");
    header.encode(slot).expect("a legal header");
    folder.write(image, &bytes);
}

fn name(path: &Path) -> Name {
    Name::new(path.as_os_str().as_encoded_bytes()).expect("a short path")
}

/// Everything that looks at an image.
fn look_at(folder: &Folder, image: &str) {
    for command in [
        "info",
        "info --json",
        "check",
        "check --json",
        "check --repair",
        "map",
        "convert --force -f fvd -O raw",
    ] {
        let target = if command.starts_with("convert") {
            "out"
        } else {
            ""
        };
        let said = folder.run(&format!("{command} {image} {target}"));
        assert!(!said.err.contains("panicked"), "{said:?}");
        for text in [&said.out, &said.err] {
            let raw = text.chars().any(|c| c.is_control() && c != '\n');
            assert!(
                !raw,
                "a control character of a name is shown as it is: {text:?}"
            );
        }
    }
}

#[test]
fn no_name_of_an_image_is_opened() {
    let folder = Folder::new();
    folder.write("base.raw", &vec![1; 1 << 20]);
    folder.run("create --base base.raw over.fvd 4M").ends(0);
    folder.run("create --data-file data apart.fvd 4M").ends(0);
    let (base, data) = (folder.path("listen-base"), folder.path("listen-data"));
    let ears = [Ear::at(&base), Ear::at(&data)];
    change(&folder, "over.fvd", |header| {
        header.core.base_name = name(&base);
        header.core.base_format = FormatName::new(b"raw").expect("short");
    });
    change(&folder, "apart.fvd", |header| {
        header.core.data_file = name(&data)
    });
    look_at(&folder, "over.fvd");
    look_at(&folder, "apart.fvd");
    assert!(!ears[0].heard() && !ears[1].heard(), "a name was opened");
    // Whoever asks for it gets what the names say; then each pipe wakes its listener.
    for (image, ear) in ["over.fvd", "apart.fvd"].into_iter().zip(&ears) {
        folder.run(&format!("info --follow-names {image}"));
        folder.run(&format!(
            "convert --force -f fvd -O raw --follow-names {image} out"
        ));
        if !ear.heard() {
            // A tool may look at what a path is before it opens it, and refuse a pipe.
            let path = if image == "over.fvd" { &base } else { &data };
            drop(File::open(path).expect("the listener is the other end"));
            assert!(ear.hears(), "the control: opening a pipe is heard");
        }
    }
}

#[test]
fn no_command_of_an_image_is_run() {
    let folder = Folder::new();
    folder.write("raw", &[7; 4096]);
    folder.run("convert raw disk.fvd").ends(0);
    let trace = folder.path("trace");
    let command = format!("touch {}", trace.display());
    for text in [
        command.clone(),
        format!("$({command})"),
        format!("\x1B[2J;{command}\n"),
    ] {
        change(&folder, "disk.fvd", |header| {
            header.core.add_storage_command = Name::new(text.as_bytes()).expect("short");
        });
        look_at(&folder, "disk.fvd");
        assert!(!trace.exists(), "{text:?} was run");
        assert!(folder.read("out").starts_with(&[7; 4096]));
    }
    let status = Command::new("sh").args(["-c", &command]).status();
    assert!(
        status.expect("a shell").success() && trace.exists(),
        "the control"
    );
    fs::remove_file(trace).expect("the trace");
}
