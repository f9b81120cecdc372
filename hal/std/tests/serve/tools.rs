//! The clients that people use.

use std::process::{Command, Output};

use crate::common::cli::Folder;
use crate::common::{How, Noise, outside};
use crate::server::Server;
use fvd_std::file::Aio;

/// Runs a client to its end. `None` if it is not installed.
fn run(tool: &str, args: &[&str]) -> Option<Output> {
    let program = outside(tool)?;
    let output = Command::new(program).args(args).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {said}");
    Some(output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a test with each way to carry out operations on files.
pub(crate) fn on_every_adapter(test: fn(&str)) {
    let buffered = How {
        aio: Aio::IoUring,
        ..How::default()
    };
    for adapter in ["--aio threads", "--aio threads --cache none"] {
        test(adapter);
    }
    if buffered.is_possible() {
        for adapter in ["--aio io_uring", "--aio io_uring --cache none"] {
            test(adapter);
        }
    }
}

/// 32 MiB, a half of it holes.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 32 << 20];
    let mut noise = Noise::new(21);
    for _ in 0..100 {
        let at = noise.below(31 << 20) as usize & !511;
        let island = noise.bytes(128 << 10);
        bytes[at..at + island.len()].copy_from_slice(&island);
    }
    bytes
}

#[test]
fn nbdinfo_sees_sizes_and_allocation() {
    let folder = Folder::new();
    folder.run("create disk.fvd 32M").ends(0);
    let server = Server::start(&folder, "--export-name mine disk.fvd");
    let mut client = server.client().enter();
    assert_eq!(client.write(0, 8 << 20, &vec![1; 1 << 20]), 0);
    let named = server.uri().replace("///", "///mine");
    let Some(info) = run("nbdinfo", &["--json", &named]) else {
        return;
    };
    let info: serde_json::Value = serde_json::from_str(&text(&info)).expect("JSON");
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 32 << 20);
    assert_eq!(export["block_size_minimum"], 512);
    assert_eq!(export["can_multi_conn"], true);
    assert_eq!(export["is_read_only"], false);
    let map = run("nbdinfo", &["--json", "--map", &named]).expect("installed");
    let map: serde_json::Value = serde_json::from_str(&text(&map)).expect("JSON");
    let extents: Vec<(u64, u64, u64)> = map
        .as_array()
        .expect("extents")
        .iter()
        .map(|extent| {
            let number = |key: &str| extent[key].as_u64().expect("a number");
            (number("offset"), number("length"), number("type"))
        })
        .collect();
    assert_eq!(
        extents,
        [
            (0, 8 << 20, 3),
            (8 << 20, 1 << 20, 0),
            (9 << 20, 23 << 20, 3)
        ]
    );
    let list = run("nbdinfo", &["--list", &server.uri()]).expect("installed");
    assert!(text(&list).contains("mine"), "{}", text(&list));
    server.stop();
}

#[test]
fn nbdcopy_copies_both_ways_and_qemu_img_agrees() {
    on_every_adapter(nbdcopy_copies_both_ways_and_qemu_img_agrees_on);
}

fn nbdcopy_copies_both_ways_and_qemu_img_agrees_on(adapter: &str) {
    let folder = Folder::new();
    let bytes = disk();
    folder.write("in.raw", &bytes);
    folder.run("create disk.fvd 32M").ends(0);
    let server = Server::start(&folder, &format!("{adapter} disk.fvd"));
    let (input, output) = (folder.path("in.raw"), folder.path("out.raw"));
    let (input, output) = (
        input.to_str().expect("text"),
        output.to_str().expect("text"),
    );
    if run("nbdcopy", &[input, &server.uri()]).is_none() {
        return;
    }
    run("nbdcopy", &[&server.uri(), output]);
    assert!(folder.read("out.raw") == bytes);
    let compare = ["compare", "-f", "raw", "-F", "raw", input, &server.uri()];
    run("qemu-img", &compare);
    server.stop();
    folder.run("check disk.fvd").ends(0);
    folder
        .run("convert -f fvd -O raw disk.fvd back.raw")
        .ends(0);
    assert!(folder.read("back.raw") == bytes);
}

#[test]
fn qemu_img_converts_through_it() {
    let folder = Folder::new();
    let bytes = disk();
    folder.write("in.raw", &bytes);
    folder.run("create disk.fvd 32M").ends(0);
    let server = Server::start(&folder, "disk.fvd");
    let input = folder.path("in.raw");
    let input = input.to_str().expect("text");
    let args = [
        "convert",
        "-n",
        "-f",
        "raw",
        "-O",
        "raw",
        input,
        &server.uri(),
    ];
    if run("qemu-img", &args).is_none() {
        return;
    }
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", input, &server.uri()],
    );
    server.stop();
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn qemu_io_finds_what_it_wrote() {
    on_every_adapter(qemu_io_finds_what_it_wrote_on);
}

fn qemu_io_finds_what_it_wrote_on(adapter: &str) {
    let folder = Folder::new();
    folder.run("create --table off disk.fvd 32M").ends(0);
    let server = Server::start(&folder, &format!("{adapter} disk.fvd"));
    let uri = server.uri();
    let mut args = vec!["-f", "raw"];
    let commands = [
        "write -P 7 1M 64k",
        "write -f -P 9 8k 4k",
        "write -z 1040k 16k",
        "write -zu 8M 1M",
        "discard 16M 1M",
        "flush",
        "read -P 7 1M 16k",
        "read -P 0 1040k 16k",
        "read -P 9 8k 4k",
        "read -P 0 8M 1M",
        "aio_write -P 5 2M 1M",
        "aio_write -P 6 4M 1M",
        "aio_flush",
        "read -P 5 2M 1M",
        "read -P 6 4M 1M",
    ];
    commands
        .iter()
        .for_each(|command| args.extend(["-c", command]));
    args.push(&uri);
    let Some(output) = run("qemu-io", &args) else {
        return;
    };
    assert!(
        !text(&output).contains("verification failed"),
        "{}",
        text(&output)
    );
    server.stop();
}

#[test]
fn fio_verifies_what_it_wrote_at_depth() {
    on_every_adapter(fio_verifies_what_it_wrote_at_depth_on);
}

fn fio_verifies_what_it_wrote_at_depth_on(adapter: &str) {
    let folder = Folder::new();
    folder.run("create disk.fvd 64M").ends(0);
    let server = Server::start(&folder, &format!("{adapter} disk.fvd"));
    let uri = format!("--uri={}", server.uri());
    let job = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--size=32m",
        "--iodepth=16",
        "--fsync=64",
        "--randseed=7",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        // Else it leaves a file in the working directory.
        "--verify_state_save=0",
    ];
    if run("fio", &job).is_none() {
        return;
    }
    server.stop();
    folder.run("check disk.fvd").ends(0);
}

/// Optimised builds had a thread more, which cost two switches for each completion.
#[test]
fn no_thread_stands_between_the_kernel_and_the_server() {
    let ring = How {
        aio: Aio::IoUring,
        ..How::default()
    };
    if !ring.is_possible() {
        return;
    }
    let folder = Folder::new();
    folder.run("create disk.fvd 32M").ends(0);
    let server = Server::start(&folder, "--aio io_uring disk.fvd");
    let mut client = server.client().enter();
    assert_eq!(client.write(0, 0, &[1; 4096]), 0);
    let names = server.thread_names();
    assert!(names.iter().any(|name| name == "fvd-file"), "{names:?}");
    assert!(!names.iter().any(|name| name == "fvd-alarm"), "{names:?}");
    server.stop();
}
