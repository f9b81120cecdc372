//! Rows H: headers, right checksum and all.

use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::Ram;
use fvd::format::{CreateParams, SLOT_BYTES, plan_layout};

use crate::bench::Class::{self, Corrupt, Limit, NeedBase, NeedData, Opens, ReadOnly, Unsupported};
use crate::common;
use crate::image::{
    BASE, BLOCK, CHUNK, DISK, End, FULL, Image, KINDS, Kind, STORE_CHUNKS, WRITES, field, fresh,
    golden, seal,
};
use crate::row::Row;

const PLAIN: Kind = KINDS[3];
const NEW_STORE: Kind = KINDS[5];

/// A change of one field of a golden image.
fn one(rows: &mut Vec<Row>, id: &'static str, at: usize, values: &[u64], class: Class) {
    for value in values {
        let mut image = golden(FULL, End::Closed);
        image.set_u64(at, *value);
        rows.push(Row::new(id, format!("{value:#x} at {at}"), image, class));
    }
}

fn with(id: &'static str, what: &str, class: Class, change: impl FnOnce(&mut Image)) -> Row {
    let mut image = golden(FULL, End::Closed);
    change(&mut image);
    Row::new(id, what, image, class)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    identity(&mut rows);
    slots(&mut rows);
    sizes(&mut rows);
    places(&mut rows);
    journal(&mut rows);
    names(&mut rows);
    base(&mut rows);
    hints(&mut rows);
    rows
}

/// Magics that are none of ours.
pub(crate) const MAGICS: [[u8; 4]; 4] = [*b"XXXX", *b"\0DVF", [0x51, 0x43, 0xF5, 0xA9], [0; 4]];

fn identity(rows: &mut Vec<Row>) {
    for len in [0, 511, 512, 3071, 4095, 8191] {
        let cut = |image: &mut Image| image.metadata.truncate(len);
        rows.push(with("H1", &format!("{len} bytes long"), Corrupt, cut));
    }
    for magic in MAGICS {
        let what = format!("magic {magic:x?}");
        rows.push(with("H2", &what, Unsupported, |image| image.set(0, &magic)));
    }
    for version in [0, 3, u32::MAX] {
        let set = |image: &mut Image| image.set_u32(4, version);
        rows.push(with("H3", &format!("version {version}"), Unsupported, set));
    }
    let set = |image: &mut Image| image.set(0, &[0xA9, 0xF5, 0x43, 0x51]);
    rows.push(with(
        "H3",
        "version 2 with the reference's magic",
        Unsupported,
        set,
    ));
    for (word, class) in [(0, Unsupported), (1, ReadOnly), (2, Opens), (3, Opens)] {
        for bit in [20, 63] {
            let at = field::INCOMPATIBLE + 8 * word;
            let set = |image: &mut Image| image.set_u64(at, u64::from(word == 0) | 1 << bit);
            rows.push(with("H4", &format!("bit {bit} of word {word}"), class, set));
        }
    }
}

fn slots(rows: &mut Vec<Row>) {
    let damage = |image: &mut Image, slot: usize| image.metadata[slot + 4092] ^= 1;
    rows.push(with("H6", "one checksum wrong", Opens, |image| {
        damage(image, image.slot)
    }));
    rows.push(with("H6", "both checksums wrong", Corrupt, |image| {
        damage(image, 0);
        damage(image, SLOT_BYTES);
    }));
    rows.push(with(
        "H7",
        "one generation, two contents",
        Corrupt,
        |image| {
            let (from, to) = (image.slot, image.slot ^ SLOT_BYTES);
            image.metadata.copy_within(from..from + SLOT_BYTES, to);
            let other = &mut image.metadata[to..to + SLOT_BYTES];
            other[3384] ^= 1; // owner_nonce
            seal(other);
        },
    ));
    one(rows, "H8", field::GENERATION, &[u64::MAX], Corrupt);
}

fn sizes(rows: &mut Vec<Row>) {
    let mut empty = fresh(PLAIN);
    empty.set_u64(field::DISK_SIZE, 0);
    rows.push(Row::shows("H9", "a disk of no bytes", empty, Vec::new()));
    one(rows, "H9", field::DISK_SIZE, &[0], Corrupt); // entries behind the last chunk
    let blocks = [0, 1, 511, 513, 3 * 512, 1 << 63, u64::MAX, CHUNK + 512, 256];
    one(rows, "H10", field::BLOCK_SIZE, &blocks, Corrupt);
    let chunks = [
        0,
        1,
        511,
        513,
        CHUNK + 256,
        BLOCK / 2,
        16 * 2 * BLOCK,
        1 << 63,
        u64::MAX,
    ];
    one(rows, "H11", field::CHUNK_SIZE, &chunks, Corrupt);
    let most = CHUNK << 31;
    let disks = [u64::MAX, 1 << 63, DISK + 1, most - CHUNK, 1025 * CHUNK];
    one(rows, "H12", field::DISK_SIZE, &disks, Corrupt);
    one(rows, "H12", field::DISK_SIZE, &[most, 1 << 62], Limit);
    one(
        rows,
        "H13",
        field::TABLE_SIZE,
        &[4 * 12, 4 * 13, 0, 8192, 1 << 63],
        Corrupt,
    );
    one(
        rows,
        "H14",
        field::GROW_UNIT,
        &[1, CHUNK + 512, 1 << 63, u64::MAX],
        Corrupt,
    );
    one(rows, "H14", field::GROW_UNIT, &[0, CHUNK], Opens);
    one(
        rows,
        "H15",
        field::BITMAP_SIZE,
        &[4095, 0, 8192, 1 << 62, u64::MAX],
        Corrupt,
    );
    // A quarter of a terabyte: right in itself, and more than this caller has memory for.
    rows.push(Row::new(
        "H32",
        "a table larger than the memory",
        large(),
        Limit,
    ));
}

/// A new image of the default shape for a disk of 256 GiB, on 3 MiB.
fn large() -> Image {
    let params = CreateParams::new(256 << 30, crate::image::ID);
    let header = plan_layout(&params).expect("legal");
    let ram = Ram::new(common::bytes(3 << 20, 0));
    let memory = common::memory(CREATE_ARENA_BYTES);
    let created = fvd::blocking::create(ram, header, true, memory, common::idle());
    created.result.expect("created");
    let mut image = fresh(NEW_STORE);
    image.base = None;
    let bytes = created.device.into_memory();
    image.metadata = bytes.unwrap_or_else(|_| panic!("idle")).to_vec();
    image
}

/// Header fields with the place of each region.
const REGIONS: [usize; 5] = [
    field::TABLE,
    field::BITMAP,
    field::CHECKSUM_A,
    field::CHECKSUM_A + 8,
    field::JOURNAL,
];

fn places(rows: &mut Vec<Row>) {
    let golden_image = golden(FULL, End::Closed);
    let end = golden_image.metadata.len() as u64;
    for region in REGIONS {
        let place = golden_image.u64_at(region);
        let bad = [
            0,
            4096,
            place + 512,
            end,
            end - 2048,
            u64::MAX - 4095,
            1 << 63,
        ];
        one(rows, "H16", region, &bad, Corrupt);
    }
    let data = [
        0,
        4096,
        8192,
        (64 << 10) + 512,
        end + 4096,
        u64::MAX - 4095,
        1 << 63,
    ];
    one(rows, "H16", field::DATA_OFFSET, &data, Corrupt);
    // Every region on top of every other, of both header slots and of the chunks.
    for region in REGIONS {
        let others = REGIONS.into_iter().filter(|other| *other != region);
        let mut over: Vec<u64> = others.map(|other| golden_image.u64_at(other)).collect();
        over.extend([0, 4096, 64 << 10, (64 << 10) + 8 * CHUNK]);
        one(rows, "H17", region, &over, Corrupt);
    }
    for region in REGIONS {
        let place = golden_image.u64_at(region);
        one(rows, "H17", field::DATA_OFFSET, &[place], Corrupt);
    }
    rows.push(with(
        "H18",
        "table and bitmap changed places",
        Opens,
        |image| {
            let (table, bitmap) = (image.u64_at(field::TABLE), image.u64_at(field::BITMAP));
            let (low, high) = image.metadata.split_at_mut(bitmap as usize);
            low[table as usize..][..4096].swap_with_slice(&mut high[..4096]);
            image.set_u64(field::TABLE, bitmap);
            image.set_u64(field::BITMAP, table);
        },
    ));
    rows.push(with(
        "H18",
        "a gap before the chunks closed, metadata behind it",
        Opens,
        |image| {
            let journal = image.u64_at(field::JOURNAL) as usize;
            let moved = image.metadata[journal..journal + 4096].to_vec();
            image.metadata[40 << 10..][..4096].copy_from_slice(&moved);
            image.set_u64(field::JOURNAL, 40 << 10);
        },
    ));
    let short = (64 << 10) + (STORE_CHUNKS - 1) * CHUNK;
    rows.push(with(
        "H16",
        "a device that is shorter than on record",
        Corrupt,
        |image| {
            image.metadata.truncate(short as usize);
        },
    ));
    one(
        rows,
        "H16",
        field::STORE_BYTES,
        &[0, 65535, end + 512, 1 << 63, u64::MAX],
        Corrupt,
    );
    one(
        rows,
        "H16",
        field::ZERO_FLOOR,
        &[17, u64::MAX, 1, 0],
        Corrupt,
    );
}

fn journal(rows: &mut Vec<Row>) {
    rows.push(with("H19", "no journal, not clean", Corrupt, |image| {
        image.set_u64(field::JOURNAL, 0);
        image.set_u64(field::JOURNAL_SIZE, 0);
        image.set_u32(field::CLEAN, 0);
    }));
    one(
        rows,
        "H20",
        field::JOURNAL_SIZE,
        &[511, 512, 3 * 512, 4 * 512 + 1],
        Corrupt,
    );
    one(rows, "H20", field::JOURNAL_SIZE, &[64 << 20], Corrupt);
    one(
        rows,
        "H20",
        field::JOURNAL_SIZE,
        &[(64 << 20) + 512, 1 << 62],
        Limit,
    );
    one(rows, "H20", field::JOURNAL_SIZE, &[4 * 512, 8 * 512], Opens);
    one(
        rows,
        "H20",
        field::ATOMIC_UNIT,
        &[0, 256, 513, 8192, 1 << 31],
        Corrupt,
    );
    one(
        rows,
        "H21",
        field::STABLE_SEQ,
        &[u64::MAX, 1 << 63, (1 << 63) - 1],
        Corrupt,
    );
    let above = golden(FULL, End::Closed).seq() + 1000;
    one(rows, "H21", field::STABLE_SEQ, &[above], Opens);
    for clean in [1, 2, u32::MAX] {
        let id = if clean == 1 { "H23" } else { "H22" };
        let mut image = golden(FULL, End::Crashed);
        image.set_u32(field::CLEAN, clean);
        rows.push(Row::new(
            id,
            format!("crashed, the flag says {clean}"),
            image,
            Opens,
        ));
    }
}

/// What somebody might hope that a reader opens, runs or prints.
pub(crate) const NAMES: [&[u8]; 12] = [
    b"/etc/passwd",
    b"../../../../etc/shadow",
    b"/dev/zero",
    b"http://127.0.0.1/base",
    b"nbd:unix:/run/x.sock",
    b"json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}",
    b"$(touch /tmp/x)",
    b"x; rm -rf /",
    b"%s%n%99999999d",
    b"\x1B]0;title\x07\x1B[2J\r\n",
    b"\xFF\xFE\x80 not text",
    b"\0hidden behind the end",
];

fn names(rows: &mut Vec<Row>) {
    for name in NAMES {
        let what = format!("base_img {:?}", String::from_utf8_lossy(name));
        rows.push(with("H24", &what, Opens, |image| {
            image.set(field::BASE_NAME, name)
        }));
        let what = format!("add_storage_cmd {:?}", String::from_utf8_lossy(name));
        rows.push(with("H27", &what, Opens, |image| {
            image.set(field::COMMAND, name)
        }));
        let mut image = golden(KINDS[4], End::Closed);
        image.set(field::DATA_FILE, name);
        let what = format!("data_file {:?}", String::from_utf8_lossy(name));
        rows.push(Row::new("H25", what, image, Opens));
    }
    for at in [field::DATA_FILE, field::BASE_NAME, field::COMMAND] {
        let endless = |image: &mut Image| image.set(at, &[b'n'; 1024]);
        rows.push(with(
            "H25",
            &format!("no end of the name at {at}"),
            Corrupt,
            endless,
        ));
    }
    for at in [field::BASE_NAME, field::COMMAND] {
        let long = |image: &mut Image| image.set(at, &[b'n'; 256]);
        rows.push(with("H25", &format!("a long name at {at}"), Limit, long));
    }
    for at in [1048, 2088] {
        let endless = |image: &mut Image| image.set(at, &[b'n'; 16]);
        rows.push(with(
            "H25",
            &format!("no end of the format at {at}"),
            Corrupt,
            endless,
        ));
    }
    let named = |image: &mut Image| image.set(field::DATA_FILE, b"/etc/passwd");
    rows.push(with(
        "H26",
        "a data file without its feature",
        Corrupt,
        named,
    ));
    let mut alone = golden(KINDS[4], End::Closed);
    alone.set(field::DATA_FILE, b"/etc/passwd");
    alone.data = None;
    rows.push(Row::new(
        "H26",
        "a data file that the host did not supply",
        alone,
        NeedData,
    ));
}

fn base(rows: &mut Vec<Row>) {
    let mut longer = fresh(FULL);
    longer.set_u64(field::BASE_SIZE, 2 * DISK);
    let base = common::base_bytes(2 * DISK as usize).to_vec();
    let contents = base[..DISK as usize].to_vec();
    longer.base = Some(base);
    rows.push(Row::shows(
        "H28",
        "a base longer than the disk",
        longer,
        contents,
    ));
    one(
        rows,
        "H28",
        field::BASE_SIZE,
        &[BASE + 1, u64::MAX, 1 << 63, 0],
        Corrupt,
    );
    rows.push(with("H28", "a base that nobody gave", NeedBase, |image| {
        image.base = None
    }));
    // A prefetch that claims to be over: the flag wins, and every hidden block shows as zeros.
    let mut image = golden(NEW_STORE, End::Closed);
    image.set_u32(field::PREFETCHED, 1);
    let mut contents = vec![0; DISK as usize];
    for (at, len) in WRITES {
        let whole = at / BLOCK * BLOCK..((at + len).next_multiple_of(BLOCK)).min(DISK);
        let range = whole.start as usize..whole.end as usize;
        contents[range.clone()].copy_from_slice(&image.last_state()[range]);
    }
    rows.push(Row::shows(
        "H29",
        "fully prefetched, it says",
        image,
        contents,
    ));
}

fn hints(rows: &mut Vec<Row>) {
    let mut promised = golden(KINDS[2], End::Closed);
    promised.set_u32(field::NEED_ZERO_INIT, 1);
    let what = "zeros wanted of a store that does not promise them";
    rows.push(Row::new("H30", what, promised, Unsupported));
    // With a table, what was never written has no chunk and reads zeros by itself.
    let wanted = |image: &mut Image| image.set_u32(field::NEED_ZERO_INIT, 1);
    rows.push(with("H30", "zeros wanted with a table", Opens, wanted));
    for byte in [0, 1, 0x7F, 0x80, 0xFF] {
        let noise = |image: &mut Image| {
            for (at, len) in field::HINTS {
                image.set(at, &vec![byte; len]);
            }
        };
        rows.push(with("H31", &format!("hints of {byte:#x}"), Opens, noise));
    }
}

/// H30, the other half: whoever knows the store may promise what the image asks for.
#[test]
fn a_promise_of_zeros_lets_an_image_rely_on_them() {
    let mut image = golden(KINDS[2], End::Closed);
    image.set_u32(field::NEED_ZERO_INIT, 1);
    let options = fvd::open::OpenOptions {
        store_reads_zeros: true,
        ..crate::image::options()
    };
    let (_, outcome) = crate::bench::Bench::new().open(image.devices::<true>(), options);
    assert!(outcome.result.expect("opens") == image.last_state());
}
