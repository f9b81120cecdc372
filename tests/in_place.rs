//! Images of 2011 have no journal that is written: a commit puts whole pages in place, entries before
//! bits, with a flush between them.

mod common;

use common::gate::Gate;
use common::guest::{Guest, options};
use fvd::blocking;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{OpKind, Ram};
use fvd::format::{
    BaseParams, CreateParams, Dialect, Header, ImageId, Limits, StoreChoice, plan_layout,
};
use fvd::stores::{One, WithBase};

const PAGE: u64 = 4096;
const CHUNK: u64 = 4096;
/// What the entries of one page of the table map: 1024 chunks.
const TABLE_PAGE: u64 = 1024 * CHUNK;
const TABLE_PAGES: u64 = 20;
/// Blocks are sectors, so that a page of the bitmap has 16 MiB of the base: four pages of the table.
const BLOCK: u64 = 512;
const BASE_BYTES: u64 = 18 * TABLE_PAGE;

type Stores = WithBase<One<Gate>, Ram>;

fn base() -> Ram {
    Ram::new(common::bytes(BASE_BYTES as usize, 0xBA)).read_only()
}

fn guest(dialect: Dialect) -> (Guest<Stores>, Header) {
    let device_bytes = 2 << 20;
    let header = plan_layout(&CreateParams {
        dialect,
        block_bytes: BLOCK,
        chunk_bytes: CHUNK,
        table: true,
        base: Some(BaseParams {
            name: Default::default(),
            format: Default::default(),
            bytes: BASE_BYTES,
            id: [0; 16],
            generation: 0,
        }),
        store: StoreChoice::FixedZeroed { device_bytes },
        limits: Limits::FORMAT,
        ..CreateParams::new(TABLE_PAGES * TABLE_PAGE, ImageId([7; 16]))
    })
    .expect("legal");
    let device = Ram::new(common::bytes(device_bytes as usize, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = blocking::create(device, header, true, arena, common::idle());
    created.result.expect("created");
    let stores = WithBase::new(One(Gate::new(created.device)), base());
    (Guest::open(stores, options()), header)
}

/// One operation of a commit.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Flush,
    /// So many pages from this one on.
    Table(u64, u64),
    Bitmap(u64, u64),
}

use Sent::{Bitmap, Flush, Table};

/// Flushes, and says what that took.
fn commit(guest: &mut Guest<Stores>, header: &Header) -> Vec<Sent> {
    guest.hold(|_| false);
    guest.run(OpKind::Flush, 0, 0, 0);
    let (table, bitmap) = (header.core.table.offset, header.core.bitmap.offset);
    let pages = |from: u64, bytes: u64| (from / PAGE, bytes / PAGE);
    let name = |head: &fvd::buffer::Head| match (head.kind, head.offset) {
        (OpKind::Flush, _) => Flush,
        (OpKind::Write, at) if (table..table + TABLE_PAGES * PAGE).contains(&at) => {
            let (first, count) = pages(at - table, head.len);
            Table(first, count)
        }
        (OpKind::Write, at) => {
            let (first, count) = pages(at - bitmap, head.len);
            Bitmap(first, count)
        }
        other => panic!("{other:?}"),
    };
    guest.sent().iter().map(name).collect()
}

fn write(guest: &mut Guest<Stores>, table_page: u64, byte: u8) {
    guest.run(OpKind::Write, table_page * TABLE_PAGE, CHUNK, byte);
}

#[test]
fn a_commit_writes_runs_of_pages_entries_first() {
    for dialect in [Dialect::Spec2011, Dialect::Reference] {
        let (mut guest, header) = guest(dialect);
        for page in 0..TABLE_PAGES {
            write(&mut guest, page, page as u8 + 1);
        }
        // As many pages as there is memory for, then the rest.
        let wanted = [
            Flush,
            Table(0, 16),
            Table(16, 4),
            Flush,
            Bitmap(0, 5),
            Flush,
        ];
        assert_eq!(commit(&mut guest, &header), wanted, "{dialect:?}");
        let stats = guest.disk.stats();
        assert_eq!((stats.commits, stats.strict_commits), (1, 1));
        assert_eq!((stats.pages_written, stats.metadata_writes), (25, 3));
        // A durable state needs a flush of the data and no more.
        assert_eq!(commit(&mut guest, &header), [Flush]);
        let mut stores = common::close(guest.disk);
        stores.parts_mut().0.0.heads.clear();
        let mut guest = Guest::open(stores, options());
        assert_eq!(guest.disk.header().dialect, dialect);
        for page in 0..TABLE_PAGES {
            let start = page * TABLE_PAGE;
            let read = guest.read(start, CHUNK);
            assert_eq!(read, [page as u8 + 1; CHUNK as usize]);
            let behind = if start + CHUNK < BASE_BYTES { 0xBA } else { 0 };
            assert_eq!(guest.read(start + CHUNK, 512), [behind; 512]);
        }
        common::close(guest.disk);
    }
}

#[test]
fn a_commit_writes_the_pages_that_changed_and_no_others() {
    let (mut guest, header) = guest(Dialect::Spec2011);
    for page in [2, 4, 9] {
        write(&mut guest, page, 1);
    }
    let wanted = [
        Flush,
        Table(2, 1),
        Table(4, 1),
        Table(9, 1),
        Flush,
        Bitmap(0, 3),
        Flush,
    ];
    assert_eq!(commit(&mut guest, &header), wanted);
    // A chunk behind the base has an entry and no bits.
    write(&mut guest, 19, 1);
    assert_eq!(commit(&mut guest, &header), [Flush, Table(19, 1), Flush]);
    // A part of a chunk, then another. Pages with what is known of a chunk go together.
    for block in 0..2 {
        guest.run(OpKind::Write, 17 * TABLE_PAGE + block * BLOCK, BLOCK, 1);
        let both = [Flush, Table(17, 1), Flush, Bitmap(4, 1), Flush];
        assert_eq!(commit(&mut guest, &header), both);
    }
    common::close(guest.disk);
}
