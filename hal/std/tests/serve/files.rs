//! What a guest is told to do with files, and what must be in them afterwards.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::common::Noise;

/// Bytes that all contents are slices of. Each slice begins elsewhere, so bytes in a wrong place show.
const NOISE_BYTES: usize = 4 << 20;
/// Folders that files are in.
const FOLDERS: u64 = 8;

/// Steps of a guest, in its own language (`init.sh`), and the files that they end in.
pub(crate) struct Plan {
    pub(crate) noise: Vec<u8>,
    pub(crate) steps: String,
    /// Parts of `noise` that make up each file.
    pub(crate) files: BTreeMap<String, Vec<Range<usize>>>,
    random: Noise,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Plan {
        let mut random = Noise::new(seed);
        let mut plan = Plan {
            noise: random.bytes(NOISE_BYTES),
            steps: String::new(),
            files: BTreeMap::new(),
            random,
        };
        for folder in 0..FOLDERS {
            plan.say(format_args!("mkdir f{folder}"));
        }
        plan
    }

    fn say(&mut self, step: std::fmt::Arguments) {
        writeln!(self.steps, "{step}").expect("memory");
    }

    /// A name that no file had so far.
    pub(crate) fn name(&mut self, number: usize) -> String {
        format!("f{}/{number}", self.random.below(FOLDERS))
    }

    /// Up to 100 KB from anywhere.
    fn part(&mut self) -> Range<usize> {
        let first = self.random.below(NOISE_BYTES as u64 - 100_000) as usize;
        first..first + 1 + self.random.below(100_000) as usize
    }

    /// A new file, or new contents of one.
    pub(crate) fn put(&mut self, name: &str) {
        let part = self.part();
        self.say(format_args!("put {name} {} {}", part.start, part.len()));
        self.files.insert(name.into(), vec![part]);
    }

    /// A new file that is made durable. The guest says so.
    pub(crate) fn keep(&mut self, name: &str) {
        let part = self.part();
        self.say(format_args!("keep {name} {} {}", part.start, part.len()));
        self.files.insert(name.into(), vec![part]);
    }

    pub(crate) fn append(&mut self, name: &str) {
        let part = self.part();
        self.say(format_args!("append {name} {} {}", part.start, part.len()));
        self.files.get_mut(name).expect("it exists").push(part);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.say(format_args!("rm {name}"));
        self.files.remove(name);
    }

    /// Takes all space that is left, for a while.
    pub(crate) fn fill_and_free(&mut self) {
        self.say(format_args!("fill full; rm full"));
    }

    /// Takes all space that is left: the noise again and again.
    pub(crate) fn fill(&mut self) {
        self.say(format_args!("fill full"));
    }

    /// Any file that there is.
    pub(crate) fn any(&mut self) -> String {
        let index = self.random.below(self.files.len() as u64) as usize;
        self.files.keys().nth(index).expect("in range").clone()
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    pub(crate) fn contents(&self, name: &str) -> Vec<u8> {
        let parts = self.files[name].iter();
        parts
            .flat_map(|part| &self.noise[part.clone()])
            .copied()
            .collect()
    }

    /// Checks for the guest itself.
    pub(crate) fn wanted(&self) -> String {
        let one = self.files.iter().filter(|(_, parts)| parts.len() == 1);
        one.map(|(name, parts)| format!("has {name} {} {}\n", parts[0].start, parts[0].len()))
            .collect()
    }
}

/// All files below a folder, by their names from there.
pub(crate) fn all_files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it");
                let bytes = fs::read(&path).expect("a file");
                found.insert(name.to_str().expect("text").to_owned(), bytes);
            }
        }
    }
    found
}
