//! What requests cost in operations on the image's file: exact, by the server's own counters.

use serde_json::Value;

use crate::common::cli::Folder;
use crate::server::Server;
use crate::tools::on_every_adapter;
use crate::wire::{Client, FLUSH, WRITE};

const CHUNK: u64 = 1 << 20;
/// A journal unit in a file.
const UNIT: u64 = 4096;

/// Writes, their bytes, and syncs.
type Cost = (u64, u64, u64);

/// A server, a client, and what the counters said last.
struct Counted {
    server: Server,
    client: Client,
    last: Value,
}

impl Counted {
    fn start(folder: &Folder, adapter: &str) -> Counted {
        let mut server = Server::start(folder, &format!("--stats {adapter} disk.fvd"));
        let client = server.client().enter();
        let last = server.counters();
        Counted {
            server,
            client,
            last,
        }
    }

    /// Writes 4 KiB at the start of each of these chunks, all at once, then flushes.
    fn write_and_flush(&mut self, chunks: impl Iterator<Item = u64>) {
        let mut count = 0;
        for chunk in chunks {
            let header = Client::header(WRITE, 0, chunk, chunk * CHUNK, 4096);
            self.client.put(&header);
            self.client.put(&[chunk as u8 + 1; 4096]);
            count += 1;
        }
        for _ in 0..count {
            assert_eq!(self.client.reply().error, 0);
        }
        assert_eq!(self.client.ask(FLUSH, 0, 0, 0), 0);
    }

    /// What was done since the last call. No metadata may have been read.
    fn cost(&mut self) -> Cost {
        let now = self.server.counters();
        let since = |device: &str, what: &str| {
            let number = |all: &Value| all["disk"]["devices"][device][what].as_u64();
            number(&now).expect("a number") - number(&self.last).expect("a number")
        };
        let both = |what| since("metadata", what) + since("data", what);
        assert_eq!(since("metadata", "reads"), 0);
        for other in ["discards", "write_zeroes", "grows", "fua_writes"] {
            assert_eq!(both(other), 0, "{other}");
        }
        let cost = (both("writes"), both("write_bytes"), both("flushes"));
        self.last = now;
        cost
    }
}

/// An image whose store has grown, and whose zero floor is above what follows.
fn counted(folder: &Folder, adapter: &str) -> Counted {
    // So long a journal that no checkpoint falls into what is counted.
    folder.run("create --journal-size 1M disk.fvd 1G").ends(0);
    let mut counted = Counted::start(folder, adapter);
    counted.write_and_flush(0..1);
    counted.last = counted.server.counters();
    counted
}

#[test]
fn a_first_write_and_a_flush_are_two_writes_and_one_sync() {
    on_every_adapter(|adapter| {
        let folder = Folder::new();
        let mut counted = counted(&folder, adapter);
        for chunk in 1..9 {
            counted.write_and_flush(chunk..=chunk);
            assert_eq!(counted.cost(), (2, 4096 + UNIT, 1), "chunk {chunk}");
            // Once more at the same place: nothing extra.
            counted.write_and_flush(chunk..=chunk);
            assert_eq!(counted.cost(), (1, 4096, 1), "chunk {chunk}");
        }
        assert!(counted.client.read(3 * CHUNK, 4096) == [4; 4096]);
        assert_eq!(counted.cost(), (0, 0, 0));
        counted.server.stop();
    });
}

#[test]
fn first_writes_before_a_flush_share_one_journal_write() {
    on_every_adapter(|adapter| {
        let folder = Folder::new();
        let mut counted = counted(&folder, adapter);
        let mut next = 1;
        for count in [2, 8, 32] {
            counted.write_and_flush(next..next + count);
            next += count;
            let wanted = (count + 1, count * 4096 + UNIT, 1);
            assert_eq!(counted.cost(), wanted, "{count} writes");
        }
        counted.server.stop();
    });
}
