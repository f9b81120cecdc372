//! A second reader of images of 2011, made from docs/DIALECTS.md alone: what a reader sees that
//! replays nothing, as the reference implementation does when it opens an image read-only.

use std::fs;
use std::path::Path;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Where the header of a dialect says what.
struct Fields {
    virtual_size: usize,
    prefetched: usize,
    base_size: usize,
    bitmap: usize,
    block: usize,
    table: usize,
    chunk: usize,
    clean: usize,
    data_file: usize,
}

const REFERENCE: Fields = Fields {
    virtual_size: 12,
    prefetched: 8,
    base_size: 1068,
    bitmap: 1076,
    block: 1092,
    table: 2212,
    chunk: 2220,
    clean: 4300,
    data_file: 1108,
};

const SPEC2011: Fields = Fields {
    virtual_size: 8,
    prefetched: 3240,
    base_size: 2104,
    bitmap: 2112,
    block: 2128,
    table: 2136,
    chunk: 2152,
    clean: 3216,
    data_file: 24,
};

/// An image, read whole.
pub struct Second {
    pub image: Vec<u8>,
    reference: bool,
    fields: Fields,
    data: Option<Vec<u8>>,
    base: Vec<u8>,
}

impl Second {
    /// Reads an image and its parts. `base` is the content of its base.
    pub fn read(folder: &Path, base: Vec<u8>) -> Second {
        let image = fs::read(folder.join("image.fvd")).expect("image");
        let reference = u32_at(&image, 0) == 0x5143_F5A9;
        assert!(reference || image.starts_with(b"FVD\0"));
        assert_eq!(u32_at(&image, 4), 1);
        let fields = if reference { REFERENCE } else { SPEC2011 };
        let external = image[fields.data_file] != 0;
        let data = external.then(|| fs::read(folder.join("data.dat")).expect("data file"));
        Second {
            image,
            reference,
            fields,
            data,
            base,
        }
    }

    pub fn virtual_bytes(&self) -> u64 {
        u64_at(&self.image, self.fields.virtual_size)
    }

    pub fn is_clean(&self) -> bool {
        u32_at(&self.image, self.fields.clean) == 1
    }

    fn has_table(&self) -> bool {
        if self.reference {
            u32_at(&self.image, 2208) != 0
        } else {
            u64_at(&self.image, self.fields.table + 8) != 0
        }
    }

    fn data_start(&self) -> u64 {
        match self.data {
            _ if !self.reference => u64_at(&self.image, 16),
            Some(_) => 0,
            None => u64_at(&self.image, 20) / 512 * 512,
        }
    }

    fn chunk_bytes(&self) -> u64 {
        u64_at(&self.image, self.fields.chunk)
    }

    /// Bytes of the base that show where no bit is set.
    fn base_bytes(&self) -> u64 {
        if u32_at(&self.image, self.fields.prefetched) != 0 {
            return 0;
        }
        u64_at(&self.image, self.fields.base_size).min(self.virtual_bytes())
    }

    fn store(&self) -> &[u8] {
        self.data.as_deref().unwrap_or(&self.image)
    }

    /// The table as it is used: the dirty bit masked, `None` = empty.
    pub fn entries(&self) -> Vec<Option<u64>> {
        if !self.has_table() {
            return Vec::new();
        }
        let offset = u64_at(&self.image, self.fields.table) as usize;
        let chunk = self.chunk_bytes();
        let entry = |index: u64| match u32_at(&self.image, offset + 4 * index as usize) {
            u32::MAX => None,
            raw => Some(u64::from(raw & 0x7FFF_FFFF)),
        };
        (0..self.virtual_bytes().div_ceil(chunk))
            .map(entry)
            .collect()
    }

    /// Whether a byte of the disk comes from the base.
    pub fn in_base(&self, at: u64) -> bool {
        if at >= self.base_bytes() {
            return false;
        }
        let block = at / u64::from(u32_at(&self.image, self.fields.block));
        let byte = u64_at(&self.image, self.fields.bitmap) + block / 8;
        self.image[byte as usize] >> (block % 8) & 1 == 0
    }

    /// What the guest sees, and what the reference asks of the file's length.
    pub fn contents(&self) -> Vec<u8> {
        let (entries, start) = (self.entries(), self.data_start());
        let chunk = self.chunk_bytes();
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
        if entries.is_empty() {
            return 0;
        }
        let chunk = self.chunk_bytes();
        (0..self.base_bytes())
            .step_by(512)
            .filter(|at| !self.in_base(*at) && entries[(at / chunk) as usize].is_none())
            .count()
    }
}
