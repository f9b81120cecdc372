//! A second reader of the reference's images, made from docs/DIALECTS.md alone: what the reference
//! implementation sees when it opens an image without replaying anything.

use std::fs;
use std::path::Path;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// An image, read whole.
pub struct Second {
    pub image: Vec<u8>,
    data: Option<Vec<u8>>,
    base: Vec<u8>,
}

impl Second {
    /// Reads an image and its parts. `base` is the content of its base.
    pub fn read(folder: &Path, base: Vec<u8>) -> Second {
        let image = fs::read(folder.join("image.fvd")).expect("image");
        assert_eq!(u32_at(&image, 0), 0x5143_F5A9);
        assert_eq!(u32_at(&image, 4), 1);
        let external = image[1108] != 0;
        let data = external.then(|| fs::read(folder.join("data.dat")).expect("data file"));
        Second { image, data, base }
    }

    pub fn virtual_bytes(&self) -> u64 {
        u64_at(&self.image, 12)
    }

    pub fn is_clean(&self) -> bool {
        u32_at(&self.image, 4300) != 0
    }

    fn has_table(&self) -> bool {
        u32_at(&self.image, 2208) != 0
    }

    fn data_start(&self) -> u64 {
        match self.data {
            Some(_) => 0,
            None => u64_at(&self.image, 20) / 512 * 512,
        }
    }

    fn store(&self) -> &[u8] {
        self.data.as_deref().unwrap_or(&self.image)
    }

    /// The table as it is used: the dirty bit masked, `None` = empty.
    pub fn entries(&self) -> Vec<Option<u64>> {
        if !self.has_table() {
            return Vec::new();
        }
        let offset = u64_at(&self.image, 2212) as usize;
        let chunk = u64_at(&self.image, 2220);
        let entry = |index: u64| match u32_at(&self.image, offset + 4 * index as usize) {
            u32::MAX => None,
            raw => Some(u64::from(raw & 0x7FFF_FFFF)),
        };
        (0..self.virtual_bytes().div_ceil(chunk))
            .map(entry)
            .collect()
    }

    /// Whether a byte of the disk comes from the base.
    fn in_base(&self, at: u64) -> bool {
        if u32_at(&self.image, 8) != 0 || at >= u64_at(&self.image, 1068) {
            return false;
        }
        let block = at / u64::from(u32_at(&self.image, 1092));
        let byte = u64_at(&self.image, 1076) + block / 8;
        self.image[byte as usize] >> (block % 8) & 1 == 0
    }

    /// What the guest sees, and what the reference asks of the file's length.
    pub fn contents(&self) -> Vec<u8> {
        let (entries, start) = (self.entries(), self.data_start());
        let chunk = u64_at(&self.image, 2220);
        if let Some(highest) = entries.iter().flatten().max() {
            let end = start + (highest + 1) * chunk;
            assert!(self.store().len() as u64 >= end, "the file is too short");
        }
        let mut owners: Vec<u64> = entries.iter().flatten().copied().collect();
        owners.sort_unstable();
        assert!(owners.is_sorted_by(|one, next| one < next), "two owners");
        let mut disk = vec![0; self.virtual_bytes() as usize];
        for (sector, bytes) in disk.chunks_exact_mut(512).enumerate() {
            let at = sector as u64 * 512;
            let (source, from) = if self.in_base(at) {
                (self.base.as_slice(), at)
            } else if !self.has_table() {
                (self.store(), start + at)
            } else if let Some(found) = entries[(at / chunk) as usize] {
                (self.store(), start + found * chunk + at % chunk)
            } else {
                continue;
            };
            let held = source.get(from as usize..).unwrap_or(&[]);
            let len = held.len().min(512);
            bytes[..len].copy_from_slice(&held[..len]);
        }
        disk
    }

    /// Bits that are set although their block has no place: the reference shows zeros there.
    pub fn bits_without_entry(&self) -> usize {
        let entries = self.entries();
        if entries.is_empty() || u32_at(&self.image, 8) != 0 {
            return 0;
        }
        let chunk = u64_at(&self.image, 2220);
        let base = u64_at(&self.image, 1068).min(self.virtual_bytes());
        (0..base)
            .step_by(512)
            .filter(|at| !self.in_base(*at) && entries[(at / chunk) as usize].is_none())
            .count()
    }
}
