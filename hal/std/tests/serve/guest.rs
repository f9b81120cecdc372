//! A Linux guest on a disk that is served: a file system that another program made and checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::common::cli::{Folder, Said, run};
use crate::common::{Noise, outside};
use crate::files::{Plan, all_files};
use crate::linux::Linux;
use crate::server::Server;

const DISK_BYTES: usize = 96 << 20;
/// A part of the disk has no base below it.
const BASE_BYTES: usize = 64 << 20;

/// A folder with `disk.fvd`, thin, over a base full of noise.
fn folder_with_image() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &Noise::new(77).bytes(BASE_BYTES));
    let create = format!("create --base base.raw disk.fvd {DISK_BYTES}");
    folder.run(&create).ends(0);
    folder
}

fn serve(folder: &Folder) -> Server {
    Server::start(folder, "--stats --base base.raw disk.fvd")
}

/// Ends the server and expects that no request failed.
fn stop(server: Server) {
    let printed = server.stop();
    let counters: serde_json::Value = serde_json::from_str(&printed).expect("one line");
    assert_eq!(counters["errors"], 0, "{printed}");
    assert_eq!(counters["disk"]["protocol_errors"], 0, "{printed}");
}

fn e2fsck(program: &Path, image: &Path) -> Said {
    run(Command::new(program).arg("-fn").arg(image))
}

/// Has the image checked, and its file system by e2fsck. Returns all files in it.
fn files_after_checks(folder: &Folder) -> Option<BTreeMap<String, Vec<u8>>> {
    let (fsck, debugfs) = (outside("e2fsck")?, outside("debugfs")?);
    folder.run("check --base base.raw disk.fvd").ends(0);
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["clean"], true, "{info}");
    folder
        .run("convert -f fvd --base base.raw -O raw disk.fvd disk.raw")
        .ends(0);
    e2fsck(&fsck, &folder.path("disk.raw")).ends(0);
    std::fs::create_dir(folder.path("files")).expect("a folder");
    run(Command::new(debugfs)
        .args(["-R", "rdump / files", "disk.raw"])
        .current_dir(folder.path("")))
    .ends(0);
    Some(all_files(&folder.path("files")))
}

#[test]
fn a_linux_guest_fills_an_ext4_and_e2fsck_finds_nothing() {
    let Some(linux) = Linux::find() else { return };
    let mut plan = Plan::new(31);
    for number in 0..300 {
        let name = plan.name(number);
        match plan.below(10) {
            0 => plan.keep(&name),
            _ => plan.put(&name),
        }
        let other = plan.any();
        match plan.below(4) {
            0 => plan.remove(&other),
            1 => plan.put(&other),
            2 => plan.append(&other),
            _ => {}
        }
        if number == 150 {
            plan.fill_and_free();
        }
    }
    plan.fill();

    let folder = folder_with_image();
    let server = serve(&folder);
    linux.boot(&folder, &server.socket, "make", &plan).finish();
    stop(server);
    let Some(mut found) = files_after_checks(&folder) else {
        return;
    };
    let full = found.remove("full").expect("it took the rest");
    let all_bytes = full.len() + found.values().map(Vec::len).sum::<usize>();
    assert!(all_bytes > DISK_BYTES / 10 * 8, "not full: {all_bytes}");
    let noise = plan.noise.iter().cycle();
    assert!(
        full.iter().eq(noise.take(full.len())),
        "the file that took the rest"
    );
    assert!(found.keys().eq(plan.files.keys()), "{:?}", found.keys());
    for (name, bytes) in found {
        assert!(bytes == plan.contents(&name), "{name}");
    }
}

#[test]
fn what_a_linux_guest_fsynced_survives_a_server_that_is_killed() {
    let Some(linux) = Linux::find() else { return };
    let mut plan = Plan::new(32);
    let mut loose = Vec::new();
    for number in 0..600 {
        let name = plan.name(number);
        if number % 3 == 0 {
            plan.keep(&name);
            continue;
        }
        plan.put(&name);
        loose.push(name);
        if plan.below(3) == 0 {
            let index = plan.below(loose.len() as u64) as usize;
            plan.remove(&loose.swap_remove(index));
        }
    }

    let folder = folder_with_image();
    let server = serve(&folder);
    let guest = linux.boot(&folder, &server.socket, "make", &plan);
    let mut said: Vec<String> = (0..60).map_while(|_| guest.line()).collect();
    drop(server);
    said.extend(guest.kill());
    let kept: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("kept "))
        .collect();
    assert!(
        (60..200).contains(&kept.len()),
        "not in the middle: {said:?}"
    );
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["clean"], false, "{info}");

    let server = serve(&folder);
    linux
        .boot(&folder, &server.socket, "recover", &plan)
        .finish();
    stop(server);
    let Some(found) = files_after_checks(&folder) else {
        return;
    };
    for name in kept {
        let bytes = found.get(name);
        assert!(bytes == Some(&plan.contents(name)), "{name}");
    }
    assert!(found["after"] == plan.noise[..100_000], "after recovery");
}
