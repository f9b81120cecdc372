//! Images that others made, each in a folder of its own: those of the reference, and those that a
//! script made from the written specification.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use fvd_std::file::OpenError;
use fvd_std::image::{Access, BaseFormat, Image, ImageError, Parts};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Bench, outside};

/// An image and what is known of it: for one of the reference, its line of `MANIFEST.tsv`.
pub struct Golden {
    pub name: String,
    pub intended: String,
    pub after_rw: String,
    pub unclean: bool,
    pub json: Value,
    /// Its parts are those that it names.
    pub by_name: bool,
    folder: TempDir,
}

/// Where the images are of `reference` or `spec2011`.
pub fn images(dialect: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/images")
        .join(dialect)
}

fn can_unpack() -> bool {
    outside("tar").is_some() && outside("xz").is_some()
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("description");
    serde_json::from_str(&text).expect("JSON")
}

/// The names of all images of the written specification, good ones or those with an `error`; an
/// empty list if they can not be unpacked here.
pub fn spec_names(good: bool) -> Vec<String> {
    let folder = images("spec2011");
    let entries = fs::read_dir(&folder).expect("folder");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.expect("entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(String::from))
        .filter(|name| read_json(&folder.join(format!("{name}.json")))["error"].is_null() == good)
        .filter(|_| can_unpack())
        .collect();
    names.sort();
    names
}

/// The names of all images of the reference of a class, or an empty list if they can not be unpacked
/// here.
pub fn names(good: bool) -> Vec<String> {
    if !can_unpack() {
        return Vec::new();
    }
    let manifest = images("reference").join("MANIFEST.tsv");
    let manifest = fs::read_to_string(manifest).expect("manifest");
    let lines = manifest
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect());
    let wanted = if good { "good" } else { "corrupt" };
    lines
        .filter(|fields: &Vec<&str>| fields[6] == wanted)
        .map(|fields| fields[0].to_string())
        .collect()
}

impl Golden {
    /// Unpacks an image of the reference.
    pub fn unpack(name: &str) -> Golden {
        let manifest = images("reference").join("MANIFEST.tsv");
        let manifest = fs::read_to_string(manifest).expect("manifest");
        let line = manifest
            .lines()
            .find(|line| line.split('\t').next() == Some(name));
        let fields: Vec<&str> = line.expect("a line of its own").split('\t').collect();
        Golden {
            intended: fields[3].into(),
            after_rw: fields[5].into(),
            unclean: fields[2] == "1",
            ..Golden::of("reference", name)
        }
    }

    /// Unpacks an image of the written specification.
    pub fn unpack_spec(name: &str) -> Golden {
        let golden = Golden::of("spec2011", name);
        Golden {
            intended: golden.json["sha256"].as_str().expect("a hash").into(),
            unclean: golden.json["unclean"] == true,
            ..golden
        }
    }

    fn of(dialect: &str, name: &str) -> Golden {
        let folder = tempfile::tempdir().expect("temporary folder");
        let done = Command::new("tar")
            .arg("-xJf")
            .arg(images(dialect).join(format!("{name}.tar.xz")))
            .arg("-C")
            .arg(folder.path())
            .status();
        assert!(done.expect("tar").success(), "{name}");
        Golden {
            name: name.into(),
            intended: String::new(),
            after_rw: String::new(),
            unclean: false,
            json: read_json(&images(dialect).join(format!("{name}.json"))),
            by_name: false,
            folder,
        }
    }

    /// The folder that the archive was unpacked to, with the image in it.
    pub fn folder(&self) -> PathBuf {
        let inner = self.folder.path().join(&self.name);
        if inner.is_dir() {
            inner
        } else {
            self.folder.path().into()
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder().join("image.fvd")
    }

    /// Where its parts are.
    pub fn parts(&self) -> Parts {
        if self.by_name {
            return Parts {
                follow_names: true,
                ..Parts::default()
            };
        }
        let file = |name: &str| Some(self.folder().join(name)).filter(|path| path.exists());
        let base = match (file("base.raw"), file("mid.fvd")) {
            (_, Some(path)) => Some((path, BaseFormat::Fvd)),
            (Some(path), None) => Some((path, BaseFormat::Raw)),
            (None, None) => None,
        };
        Parts {
            base,
            data_file: file("data.dat"),
            ..Parts::default()
        }
    }

    pub fn open(&self, bench: &mut Bench, access: Access) -> Result<Image, ImageError> {
        for _ in 0..500 {
            match Image::open(&mut bench.driver, &self.path(), access, &self.parts()) {
                // A process that another test is just about to start has this one's files until then.
                Err(ImageError::File(OpenError::Locked)) => sleep(Duration::from_millis(10)),
                result => return result,
            }
        }
        Err(ImageError::File(OpenError::Locked))
    }

    /// What the base shows; empty without one.
    pub fn base_contents(&self, bench: &mut Bench) -> Vec<u8> {
        match self.parts().base {
            Some((path, BaseFormat::Raw)) => fs::read(path).expect("base"),
            Some((path, BaseFormat::Fvd)) => {
                let parts = Parts::default();
                let mut image = Image::open(&mut bench.driver, &path, Access::ReadOnly, &parts)
                    .expect("a base that is an image");
                let bytes = contents(bench, &mut image).expect("its contents");
                image.close(&mut bench.driver).expect("closed");
                bytes
            }
            None => Vec::new(),
        }
    }

    /// Every file, to see whether one changed.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.folder()).expect("folder");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).expect("file")))
            .collect();
        files.sort();
        files
    }
}

/// Reads a whole disk.
pub fn contents(bench: &mut Bench, image: &mut Image) -> Result<Vec<u8>, String> {
    use fvd::device::BlockDevice;
    let geometry = image.geometry();
    let step = u64::from(geometry.transfer_max_bytes.min(1 << 20));
    let mut all = Vec::with_capacity(geometry.capacity_bytes as usize);
    let mut at = 0;
    while at < geometry.capacity_bytes {
        let len = step.min(geometry.capacity_bytes - at);
        let bytes = bench.read(image, at, len as usize);
        all.extend(bytes.map_err(|status| format!("{at}: {status:?}"))?);
        at += len;
    }
    Ok(all)
}
