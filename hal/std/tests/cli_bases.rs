//! Images on top of others: who says where the base is, and what shows through.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::Noise;
use common::cli::{Folder, allocated};
use fvd::buffer::Loan;
use fvd::device::{OpKind, Status};
use fvd_std::drive::Driver;
use fvd_std::image::{Access, BaseFormat, Image, Parts};
use serde_json::Value;

const BASE_BYTES: usize = 4 << 20;

/// A folder with a base: noise in its first three quarters, a hole behind.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &Noise::new(20).bytes(BASE_BYTES * 3 / 4));
    let base = File::options().write(true).open(folder.path("base.raw"));
    base.and_then(|base| base.set_len(BASE_BYTES as u64))
        .expect("length");
    folder
}

/// Opens the image with its base in the folder.
fn open(folder: &Folder, driver: &mut Driver, access: Access) -> Image {
    let parts = Parts {
        base: Some((folder.path("base.raw"), BaseFormat::Raw)),
        ..Parts::default()
    };
    Image::open(driver, &folder.path("disk.fvd"), access, &parts).expect("opened")
}

/// Writes to an image through its engine.
fn write(driver: &mut Driver, image: &mut Image, at: u64, data: &[u8]) {
    let mut bench = common::Bench::new();
    driver.attach(image);
    let (op, loan) = bench.with_data(OpKind::Write, at, data.to_vec());
    let mut op = driver.run_op(image, op);
    assert_eq!(op.status(), Status::Done);
    let lease = op.pop().expect("its lease");
    bench.pool.put(op).expect("own op");
    let _: Box<[u8]> = Loan::redeem(loan, lease).expect("the whole loan");
}

#[test]
fn an_overlay_shows_its_base_and_takes_its_size() {
    let folder = folder();
    folder.run("create --base base.raw disk.fvd").ends(0);
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["virtual_size"], BASE_BYTES);
    let base = &info["base"];
    assert_eq!(
        (&base["name"], &base["format"]),
        (&"base.raw".into(), &"raw".into())
    );
    assert_eq!(
        (&base["size"], &base["id"]),
        (&BASE_BYTES.into(), &Value::Null)
    );
    let map = folder.run("map --json disk.fvd").json();
    let whole =
        serde_json::json!([{"start": 0, "length": BASE_BYTES, "state": "base", "offset": 0}]);
    assert_eq!(map, whole);
    folder
        .run("convert -f fvd -O raw --base base.raw disk.fvd back")
        .ends(0);
    assert!(folder.read("back") == folder.read("base.raw"));
    assert!(allocated(&folder.path("back")) <= allocated(&folder.path("base.raw")));
}

#[test]
fn a_disk_may_be_longer_or_shorter_than_its_base() {
    let folder = folder();
    let base = folder.read("base.raw");
    folder.run("create --base base.raw long.fvd 6M").ends(0);
    folder
        .run("convert -f fvd -O raw --base base.raw long.fvd long")
        .ends(0);
    let long = folder.read("long");
    assert!(long.len() == 6 << 20 && long[..BASE_BYTES] == base);
    assert!(long[BASE_BYTES..].iter().all(|&byte| byte == 0));
    folder.run("create --base base.raw short.fvd 1M").ends(0);
    folder
        .run("convert -f fvd -O raw --base base.raw short.fvd short")
        .ends(0);
    assert!(folder.read("short") == base[..1 << 20]);
}

#[test]
fn names_are_followed_only_when_asked_and_from_the_folder_of_the_image() {
    let folder = folder();
    fs::create_dir_all(folder.path("images/a")).expect("folders");
    folder
        .run("create --base base.raw images/a/disk.fvd")
        .ends(0);
    let info = folder.run("info --json images/a/disk.fvd").json();
    assert_eq!(info["base"]["name"], "../../base.raw");
    let convert = "convert -f fvd -O raw images/a/disk.fvd back";
    folder
        .run(convert)
        .fails(1, &["'../../base.raw'", "--base", "--follow-names"]);
    folder.run(&format!("{convert} --follow-names")).ends(0);
    assert!(folder.read("back") == folder.read("base.raw"));
    // What is given goes before what is named.
    folder.write("other.raw", &[1; 4096]);
    let other = format!("{convert} --force --follow-names --base other.raw");
    folder.run(&other).fails(1, &["4096", "4194304"]);
    assert_eq!(folder.names(), ["back", "base.raw", "images", "other.raw"]);
}

#[test]
fn a_hostile_name_is_shown_in_one_line_and_opens_nothing() {
    let folder = folder();
    let name = "b\x1b[2Ja\nse";
    fs::copy(folder.path("base.raw"), folder.path(name)).expect("copy");
    folder.fvd(&["create", "--base", name, "disk.fvd"]).ends(0);
    let escaped = r"b\x1b[2Ja\nse";
    for line in [
        "info disk.fvd",
        "info --json disk.fvd",
        "map disk.fvd",
        "check disk.fvd",
    ] {
        let said = folder.run(line).ends(0);
        assert!(
            !said.out.contains('\x1b') && !said.err.contains('\x1b'),
            "{said:?}"
        );
    }
    assert!(folder.run("info disk.fvd").out.contains(escaped));
    assert_eq!(
        folder.run("info --json disk.fvd").json()["base"]["name"],
        escaped
    );
    let said = folder
        .run("convert -f fvd -O raw disk.fvd back")
        .fails(1, &[escaped]);
    assert!(
        !said.err.contains('\x1b') && said.err.trim_end().lines().count() == 1,
        "{said:?}"
    );
}

#[test]
fn a_base_of_another_size_is_refused_unless_accepted() {
    let folder = folder();
    folder.run("create --base base.raw disk.fvd").ends(0);
    let base = File::options()
        .write(true)
        .open(folder.path("base.raw"))
        .expect("base");
    base.set_len(3 << 20).expect("cut");
    let convert = "convert -f fvd -O raw --base base.raw disk.fvd back";
    folder.run(convert).fails(1, &["3145728", "4194304"]);
    folder.run(&format!("{convert} --accept-base")).ends(0);
    let mut expected = folder.read("base.raw");
    expected.resize(BASE_BYTES, 0);
    assert!(folder.read("back") == expected);
}

#[test]
fn the_id_of_a_raw_base_is_asked_for_and_compared() {
    let folder = folder();
    let (id, other) = (
        "00112233445566778899aabbccddeeff",
        "10112233445566778899aabbccddeeff",
    );
    folder
        .run(&format!("create --base base.raw --base-id {id} disk.fvd"))
        .ends(0);
    assert_eq!(folder.run("info --json disk.fvd").json()["base"]["id"], id);
    let convert = "convert -f fvd -O raw --base base.raw disk.fvd back";
    folder
        .run(convert)
        .fails(1, &["--base-id", "--accept-base"]);
    folder
        .run(&format!("{convert} --base-id {other}"))
        .fails(1, &["id of the base"]);
    folder.run(&format!("{convert} --base-id {id}")).ends(0);
    folder
        .run(&format!("{convert} --force --accept-base"))
        .ends(0);
    assert!(folder.read("back") == folder.read("base.raw"));
    // A look at metadata reads no base, so there is none to be wrong.
    folder.run("map disk.fvd").ends(0);
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn what_was_written_hides_the_base_and_the_base_stays_as_it_was() {
    let folder = folder();
    let base = folder.read("base.raw");
    folder.run("create --base base.raw disk.fvd").ends(0);
    let mut driver = Driver::new();
    let mut image = open(&folder, &mut driver, Access::ReadWrite);
    write(&mut driver, &mut image, 4096 * 20, &[5; 4096]);
    image.close(&mut driver).expect("closed");
    let mut expected = base.clone();
    expected[4096 * 20..4096 * 21].fill(5);
    folder
        .run("convert -f fvd -O raw --base base.raw disk.fvd back")
        .ends(0);
    assert!(folder.read("back") == expected);
    assert!(folder.read("base.raw") == base);
    let map = folder.run("map --json disk.fvd").json();
    let states: Vec<_> = map
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| &line["state"])
        .collect();
    assert_eq!(states, ["base", "image", "base"]);
}

#[test]
fn a_base_that_is_an_image_shows_through_all_levels() {
    let folder = folder();
    folder.run("create --base base.raw disk.fvd").ends(0);
    let mut driver = Driver::new();
    let mut image = open(&folder, &mut driver, Access::ReadWrite);
    write(&mut driver, &mut image, 1 << 20, &[6; 8192]);
    image.close(&mut driver).expect("closed");
    folder
        .run("create --base disk.fvd --base-format fvd top.fvd")
        .ends(0);
    folder
        .run("create --base top.fvd --base-format fvd tip.fvd")
        .ends(0);
    let info = folder.run("info --json top.fvd").json();
    let bottom = folder.run("info --json disk.fvd").json();
    assert_eq!(
        (&info["base"]["format"], &info["base"]["id"]),
        (&"fvd".into(), &bottom["image_id"])
    );
    folder
        .run("convert -f fvd -O raw --follow-names tip.fvd back")
        .ends(0);
    let mut expected = folder.read("base.raw");
    expected[1 << 20..(1 << 20) + 8192].fill(6);
    assert!(folder.read("back") == expected);
    // One level given, the next one missing: its own error, with its own name.
    let half = "convert -f fvd -O raw --base disk.fvd --base-format fvd top.fvd half";
    folder
        .run(half)
        .fails(1, &["disk.fvd", "'base.raw'", "--follow-names"]);
}

#[test]
fn a_base_image_that_was_written_to_is_refused_unless_accepted() {
    let folder = folder();
    folder.run("create --base base.raw disk.fvd").ends(0);
    folder
        .run("create --base disk.fvd --base-format fvd top.fvd")
        .ends(0);
    let mut driver = Driver::new();
    let mut image = open(&folder, &mut driver, Access::ReadWrite);
    write(&mut driver, &mut image, 0, &[6; 4096]);
    image.close(&mut driver).expect("closed");
    let convert = "convert -f fvd -O raw --follow-names top.fvd back";
    folder
        .run(convert)
        .fails(1, &["written to since", "--accept-base"]);
    folder.run(&format!("{convert} --accept-base")).ends(0);
}

#[test]
fn an_image_can_not_be_its_own_base() {
    let folder = Folder::new();
    folder.run("create disk.fvd 1M").ends(0);
    folder
        .run("create --force --base disk.fvd --base-format fvd disk.fvd")
        .fails(1, &["locked"]);
    // A loop made by hand: two images of one name after another.
    fs::create_dir(folder.path("a")).expect("folder");
    folder.run("create a/disk.fvd 1M").ends(0);
    folder
        .run("create --base a/disk.fvd --base-format fvd --force disk.fvd")
        .ends(0);
    fs::copy(folder.path("disk.fvd"), folder.path("a/disk.fvd")).expect("copy");
    fs::create_dir(folder.path("a/a")).expect("folder");
    std::os::unix::fs::symlink("../disk.fvd", folder.path("a/a/disk.fvd")).expect("link");
    let convert = "convert -f fvd -O raw --follow-names --accept-base disk.fvd back";
    // Each level is reached by a longer name, until there are too many.
    let said = folder.run(convert);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!folder.names().contains(&"back".into()));
}

#[test]
fn a_target_on_a_base_holds_only_what_differs() {
    let folder = folder();
    let base = folder.read("base.raw");
    let mut disk = base.clone();
    disk[64 << 10..(64 << 10) + 100].fill(1);
    disk[1 << 20..(1 << 20) + (128 << 10)].fill(0);
    disk[BASE_BYTES - 4096..].fill(9);
    disk.resize(5 << 20, 0);
    disk[(5 << 20) - 512..].fill(3);
    folder.write("disk.raw", &disk);
    folder
        .run("convert --target-base base.raw disk.raw disk.fvd")
        .ends(0);
    folder
        .run("convert -f fvd -O raw --base base.raw disk.fvd back")
        .ends(0);
    assert!(folder.read("back") == disk);
    let map = folder.run("map --json disk.fvd").json();
    let own: u64 = map
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| line["state"] == "image")
        .map(|line| line["length"].as_u64().expect("a length"))
        .sum();
    // One block each for the first and the third difference, one chunk beyond the base.
    assert!(
        own <= (2 * (64 << 10)) + (1 << 20),
        "{own} bytes in the image: {map}"
    );
    let zeroes = serde_json::json!(
        {"start": 1 << 20, "length": 128 << 10, "state": "zero", "offset": null}
    );
    assert!(map.as_array().expect("lines").contains(&zeroes), "{map}");
    // The same disk again differs in nothing.
    folder
        .run("convert --target-base disk.raw disk.raw same.fvd")
        .ends(0);
    assert_eq!(
        folder.run("info --json same.fvd").json()["allocated_bytes"],
        0
    );
}

#[test]
fn zeros_of_the_base_are_found_at_creation_if_asked_for() {
    let folder = folder();
    // Written zeros in the middle of the noise, beside the hole at the end.
    let base = File::options()
        .write(true)
        .open(folder.path("base.raw"))
        .expect("base");
    base.write_all_at(&[0; 128 << 10], 1 << 20).expect("write");
    folder
        .run("create --base base.raw --detect-zeroes disk.fvd")
        .ends(0);
    let map = folder.run("map --json disk.fvd").json();
    let zeroes: Vec<_> = map
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| line["state"] == "zero")
        .map(|line| (line["start"].as_u64(), line["length"].as_u64()))
        .collect();
    let (middle, end) = ((1 << 20, 128 << 10), (3 << 20, 1 << 20));
    assert_eq!(
        zeroes,
        [middle, end].map(|(start, len)| (Some(start), Some(len)))
    );
    assert_eq!(
        folder.run("info --json disk.fvd").json()["allocated_bytes"],
        0
    );
    folder
        .run("convert -f fvd -O raw --base base.raw disk.fvd back")
        .ends(0);
    assert!(folder.read("back") == folder.read("base.raw"));
}

#[test]
fn settings_for_a_base_are_kept() {
    let folder = folder();
    let line = "create --base base.raw --copy-on-read --prefetch-delay 30 --grow-unit 8M disk.fvd";
    folder.run(line).ends(0);
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["copy_on_read"], true);
    assert_eq!(info["prefetch_delay"], 30);
    assert_eq!(info["grow_unit"], 8 << 20);
    folder
        .run("create --grow-unit 1000 disk2.fvd 1G")
        .fails(64, &["storage_grow_unit"]);
}
