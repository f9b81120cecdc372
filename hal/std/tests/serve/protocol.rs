//! Requests, answers, refusals.

use crate::common::Noise;
use crate::common::cli::Folder;
use crate::server::Server;
use crate::wire::{
    BLOCK_STATUS, CACHE, Client, DISCONNECT, FLUSH, FUA, INVAL, NOSPC, PERM, READ, Reply, TRIM,
    WRITE, WRITE_ZEROES,
};

const DISK_BYTES: u64 = 64 << 20;

fn folder_with_image(options: &str) -> Folder {
    let folder = Folder::new();
    folder
        .run(&format!("create {options} disk.fvd 64M"))
        .ends(0);
    folder
}

#[test]
fn what_was_written_is_read_back_and_is_there_after_a_restart() {
    let folder = folder_with_image("");
    let mut noise = Noise::new(3);
    let data = noise.bytes(1 << 20);
    {
        let server = Server::start(&folder, "disk.fvd");
        let mut client = server.client().enter();
        assert_eq!(client.write(0, 512 * 3, &data), 0);
        assert_eq!(client.write(FUA, 40 << 20, &data[..4096]), 0);
        assert!(client.read(512 * 3, 1 << 20) == data);
        assert_eq!(client.ask(WRITE_ZEROES, 0, 0, 4096), 0);
        assert_eq!(client.ask(CACHE, 0, 0, 4096), 0);
        assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
        client.send(DISCONNECT, 0, 0, 0);
        assert!(client.is_ended());
        server.stop();
    }
    folder.run("check disk.fvd").ends(0);
    let server = Server::start(&folder, "--read-only disk.fvd");
    let mut client = server.client().enter();
    let mut wanted = data.clone();
    wanted[..4096 - 512 * 3].fill(0);
    assert!(client.read(512 * 3, 1 << 20) == wanted);
    assert!(client.read(40 << 20, 4096) == data[..4096]);
    assert!(client.read(DISK_BYTES - 512, 512) == [0; 512]);
    for kind in [TRIM, WRITE_ZEROES] {
        assert_eq!(client.ask(kind, 0, 0, 4096), PERM);
    }
    assert_eq!(
        client.write(0, 0, &[1; 512]),
        PERM,
        "and its data are skipped"
    );
    assert!(client.read(0, 512) == [0; 512]);
    server.stop();
}

#[test]
fn many_requests_are_in_flight_and_each_gets_its_own_answer() {
    let folder = folder_with_image("");
    let server = Server::start(&folder, "disk.fvd");
    let mut client = server.client().enter();
    for block in 0..200u64 {
        let data = [block as u8 + 1; 4096];
        client.put(&Client::header(WRITE, 0, block, block * 4096, 4096));
        client.put(&data);
    }
    let mut cookies: Vec<u64> = (0..200)
        .map(|_| client.reply())
        .map(|reply| {
            assert_eq!(reply.error, 0);
            reply.cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..200));
    for block in 0..200u64 {
        client.send(READ, block, block * 4096, 4096);
    }
    for _ in 0..200 {
        let Reply {
            cookie,
            error,
            data,
        } = client.reply();
        assert_eq!(error, 0);
        assert!(data == [cookie as u8 + 1; 4096], "block {cookie}");
    }
    server.stop();
}

#[test]
fn a_flush_on_one_connection_covers_writes_of_another() {
    let folder = folder_with_image("");
    let server = Server::start(&folder, "disk.fvd");
    let (mut one, mut two) = (server.client().enter(), server.client().enter());
    assert_eq!(one.write(0, 4096, &[5; 4096]), 0);
    assert!(two.read(4096, 4096) == [5; 4096]);
    assert_eq!(two.ask(FLUSH, 0, 0, 0), 0);
    // Killed without a chance to close: what was flushed is there.
    drop(server);
    let server = Server::start(&folder, "disk.fvd");
    assert!(server.client().enter().read(4096, 4096) == [5; 4096]);
    server.stop();
}

#[test]
fn every_offset_and_length_is_distrusted_and_the_connection_goes_on() {
    let folder = folder_with_image("");
    let server = Server::start(&folder, "disk.fvd");
    let mut client = server.client().enter();
    for (kind, flags, offset, len, error) in [
        (READ, 0, DISK_BYTES, 512, INVAL),
        (READ, 0, u64::MAX - 511, 512, INVAL),
        (READ, 0, 1, 512, INVAL),
        (READ, 0, 0, 0, INVAL),
        (READ, 0, 0, u32::MAX, INVAL),
        (READ, 0, 0, (32 << 20) + 512, INVAL),
        (READ, 0x40, 0, 512, INVAL),
        (TRIM, 0, DISK_BYTES - 512, 1024, NOSPC),
        (WRITE_ZEROES, 0, u64::MAX - 511, 512, NOSPC),
        (FLUSH, 0, 512, 512, INVAL),
        (BLOCK_STATUS, 0, 0, 512, INVAL),
        (99, 0, 0, 512, INVAL),
    ] {
        let found = client.ask(kind, flags, offset, len);
        assert_eq!(found, error, "{kind} {offset} {len}");
    }
    assert_eq!(client.write(0, DISK_BYTES - 512, &[1; 1024]), NOSPC);
    assert!(
        client.read(DISK_BYTES - 512, 512) == [0; 512],
        "nothing was written"
    );
    assert_eq!(client.ask(TRIM, 0, 0, DISK_BYTES as u32), 0);
    server.stop();
}

#[test]
fn a_raw_file_is_served_by_the_same_server() {
    let folder = Folder::new();
    folder.write("disk.raw", &vec![0; 8 << 20]);
    let server = Server::start(&folder, "-f raw disk.raw");
    let mut client = server.client().enter();
    assert_eq!(client.write(FUA, 1 << 20, &[3; 8192]), 0);
    assert_eq!(client.ask(TRIM, 0, 512, 8192), 0);
    assert_eq!(client.ask(WRITE_ZEROES, FUA, (1 << 20) + 4096, 4096), 0);
    assert!(client.read(1 << 20, 8192)[..4096] == [3; 4096]);
    server.stop();
    let file = folder.read("disk.raw");
    assert!(file[1 << 20..][..4096] == [3; 4096]);
    assert!(file[(1 << 20) + 4096..] == vec![0; (7 << 20) - 4096]);
}

#[test]
fn an_image_over_a_base_shows_the_base() {
    let folder = Folder::new();
    let base = Noise::new(8).bytes(3 << 20);
    folder.write("base.raw", &base);
    folder.run("create --base base.raw disk.fvd").ends(0);
    let server = Server::start(&folder, "--base base.raw disk.fvd");
    let mut client = server.client().enter();
    assert_eq!(client.write(0, 1000 * 512, &[9; 512]), 0);
    let mut wanted = base.clone();
    wanted[1000 * 512..1001 * 512].fill(9);
    assert!(client.read(0, 3 << 20) == wanted);
    server.stop();
    assert!(folder.read("base.raw") == base);
}

#[test]
fn the_command_line_says_what_is_missing() {
    let folder = folder_with_image("");
    folder.run("serve disk.fvd").ends(64);
    folder
        .run("serve --socket s --listen 127.0.0.1:0 disk.fvd")
        .ends(64);
    folder.run("serve --socket s missing.fvd").ends(1);
    folder.run("serve --socket disk.fvd disk.fvd").ends(1);
    folder.run("check disk.fvd").ends(0);
}
