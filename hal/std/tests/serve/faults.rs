//! Slow, silent, vanished and malicious clients, and signals.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Noise;
use crate::common::cli::Folder;
use crate::server::Server;
use crate::wire::{Client, FLUSH, READ, WRITE};

fn served(folder: &Folder) -> Server {
    folder.run("create disk.fvd 256M").ends(0);
    Server::start(folder, "--stats disk.fvd")
}

/// A client that is served while others misbehave.
fn is_served(server: &Server) {
    let mut client = server.client().enter();
    assert_eq!(client.write(0, 0, &[7; 4096]), 0);
    assert!(client.read(0, 4096) == [7; 4096]);
}

#[test]
fn clients_that_vanish_at_any_byte_harm_nobody() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut conversation = [0, 0, 0, 3].to_vec();
    conversation.extend(b"IHAVEOPT");
    conversation.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    conversation.extend(Client::header(WRITE, 0, 1, 8192, 4096));
    conversation.extend([1; 4096]);
    conversation.extend(Client::header(READ, 0, 2, 8192, 4096));
    let head = conversation.len() - 4096 - 28;
    let cuts = (0..=head).chain([head + 1, head + 4095, head + 4096]);
    for cut in cuts.chain(head + 4097..=conversation.len()) {
        let mut client = server.client();
        client.put(&conversation[..cut]);
        drop(client);
    }
    is_served(&server);
    let printed = server.stop();
    assert!(printed.contains("\"protocol_errors\":0"), "{printed}");
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn a_client_that_never_reads_is_bounded_and_harms_nobody() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut greedy = server.client().enter();
    // More reads than the server lets one client have in flight: it stops to listen to this one.
    greedy
        .stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    for cookie in 0..2000 {
        let header = Client::header(READ, 0, cookie, 0, 1 << 20);
        if greedy.stream.write_all(&header).is_err() {
            break;
        }
    }
    is_served(&server);
    let printed = server.stop();
    let read_bytes: u64 = printed
        .split("\"read_bytes\":")
        .nth(1)
        .and_then(|text| text.split(',').next())
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(
        read_bytes < 200 << 20,
        "{read_bytes} bytes were read for nobody"
    );
}

#[test]
fn noise_instead_of_a_conversation_harms_nobody() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut noise = Noise::new(5);
    for round in 0..60 {
        let mut client = if round % 2 == 0 {
            server.client()
        } else {
            server.client().enter()
        };
        let len = 1 + noise.below(5000) as usize;
        // The server may end it before all is sent.
        let _ = client.stream.write_all(&noise.bytes(len));
    }
    is_served(&server);
    server.stop();
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut client = server.client().enter();
    client.put(&[0x55; 28]);
    assert!(client.is_ended());
    let mut client = server.client().enter();
    client.put(&Client::header(WRITE, 0, 1, 0, u32::MAX));
    assert!(client.is_ended());
    is_served(&server);
    server.stop();
}

#[test]
fn a_client_that_never_comes_to_the_point_is_sent_away() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut silent = server.client();
    let start = Instant::now();
    is_served(&server);
    assert!(silent.is_ended());
    assert!(start.elapsed() >= Duration::from_secs(8), "not too early");
    server.stop();
}

#[test]
fn one_client_too_many_is_turned_away() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut clients: Vec<Client> = (0..64).map(|_| server.client().enter()).collect();
    let mut extra = std::os::unix::net::UnixStream::connect(&server.socket).expect("a server");
    let mut nothing = Vec::new();
    let count = std::io::Read::read_to_end(&mut extra, &mut nothing).expect("an end");
    assert_eq!(count, 0);
    assert_eq!(clients[63].ask(FLUSH, 0, 0, 0), 0);
    clients.pop();
    // Its place is free as soon as the server has seen that it is gone.
    thread::sleep(Duration::from_millis(200));
    is_served(&server);
    server.stop();
}

#[test]
fn sigterm_finishes_what_was_received() {
    let folder = Folder::new();
    let server = served(&folder);
    let mut client = server.client().enter();
    for cookie in 0..50u64 {
        client.put(&Client::header(WRITE, 0, cookie, cookie << 20, 1 << 16));
        client.put(&[cookie as u8 + 1; 1 << 16]);
    }
    // All of it is received when the last answer is there.
    for _ in 0..50 {
        assert_eq!(client.reply().error, 0);
    }
    let printed = server.stop();
    assert!(printed.contains("\"requests\":50"), "{printed}");
    folder.run("check disk.fvd").ends(0);
    let info = folder.run("info --json disk.fvd").ends(0);
    assert!(info.out.contains("\"clean\": true"), "{}", info.out);
    folder
        .run("convert -f fvd -O raw disk.fvd disk.raw")
        .ends(0);
    let raw = folder.read("disk.raw");
    for cookie in 0..50usize {
        assert!(raw[cookie << 20..][..1 << 16] == [cookie as u8 + 1; 1 << 16]);
    }
}

#[test]
fn an_image_is_served_once_and_a_dead_socket_is_replaced() {
    let folder = Folder::new();
    let server = served(&folder);
    let second = folder.run("serve --socket other disk.fvd").ends(1);
    assert!(second.err.contains("locked"), "{}", second.err);
    // A socket that somebody listens on is not taken away from them.
    folder.run("create free.fvd 1M").ends(0);
    folder.run("serve --socket socket free.fvd").ends(1);
    is_served(&server);
    drop(server);
    assert!(folder.path("socket").exists(), "it was killed");
    let server = Server::start(&folder, "disk.fvd");
    is_served(&server);
    server.stop();
}

#[test]
fn counters_are_printed_on_demand() {
    let folder = Folder::new();
    let server = served(&folder);
    is_served(&server);
    server.signal("USR1");
    thread::sleep(Duration::from_millis(100));
    is_served(&server);
    let printed = server.stop();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines[0].contains("\"requests\":2,"), "{printed}");
    assert!(lines[1].contains("\"requests\":4,"), "{printed}");
}
