//! Feature bits: what an older reader may do with a newer image (SPEC.md §4).
//!
//! | class | a reader that does not know the bit |
//! |---|---|
//! | incompatible | refuses: it would misread the image |
//! | read-only compatible | reads, never writes: it would break a promise of the image |
//! | compatible | reads and writes, keeps the bit |
//! | autoclear | reads and writes, clears the bit and its bytes with its first header write |

use core::fmt;

/// What an older reader may do with an image that has a bit it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureClass {
    /// Refuse the image.
    Incompatible,
    /// Open it for reading only.
    ReadOnlyCompatible,
    /// Ignore the bit and keep it.
    Compatible,
    /// Ignore the bit and clear it when writing.
    Autoclear,
}

impl FeatureClass {
    const ALL: [FeatureClass; 4] = [
        FeatureClass::Incompatible,
        FeatureClass::ReadOnlyCompatible,
        FeatureClass::Compatible,
        FeatureClass::Autoclear,
    ];

    fn next(self) -> Option<FeatureClass> {
        let mut rest = FeatureClass::ALL
            .into_iter()
            .skip_while(move |class| *class != self);
        rest.nth(1)
    }

    const fn name(self) -> &'static str {
        match self {
            FeatureClass::Incompatible => "incompatible",
            FeatureClass::ReadOnlyCompatible => "ro-compatible",
            FeatureClass::Compatible => "compatible",
            FeatureClass::Autoclear => "autoclear",
        }
    }
}

/// The four words of feature bits in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Features {
    /// Bits that a reader must know to read at all.
    pub incompatible: u64,
    /// Bits that a writer must know to write.
    pub ro_compatible: u64,
    /// Bits that anyone may ignore and must keep.
    pub compatible: u64,
    /// Bits that a writer which does not know them clears.
    pub autoclear: u64,
}

impl Features {
    /// No features.
    pub const NONE: Features = Features {
        incompatible: 0,
        ro_compatible: 0,
        compatible: 0,
        autoclear: 0,
    };

    /// Incompatible bit 0: table and bitmap pages have checksums (SPEC.md §8).
    pub const PAGE_CHECKSUMS: u64 = 1 << 0;
    /// Incompatible bit 1, reserved: partial blocks.
    pub const PARTIAL_BLOCKS: u64 = 1 << 1;
    /// Incompatible bit 2, reserved: split records.
    pub const SPLIT_RECORDS: u64 = 1 << 2;
    /// Incompatible bit 3, reserved: snapshots.
    pub const SNAPSHOTS: u64 = 1 << 3;
    /// Incompatible bit 4: chunks live on another device, from `data_offset` on.
    pub const EXTERNAL_DATA: u64 = 1 << 4;

    /// Incompatible bits that this crate reads and writes.
    pub const INCOMPATIBLE_KNOWN: u64 = Features::PAGE_CHECKSUMS | Features::EXTERNAL_DATA;
    /// Read-only compatible bits that this crate knows: none exist yet.
    pub const RO_COMPATIBLE_KNOWN: u64 = 0;
    /// Autoclear bits that this crate knows: none exist yet.
    pub const AUTOCLEAR_KNOWN: u64 = 0;

    /// Incompatible bits that forbid opening the image.
    #[must_use]
    pub const fn unknown_incompatible(&self) -> u64 {
        self.incompatible & !Features::INCOMPATIBLE_KNOWN
    }

    /// Read-only compatible bits that forbid writing to the image.
    #[must_use]
    pub const fn unknown_ro_compatible(&self) -> u64 {
        self.ro_compatible & !Features::RO_COMPATIBLE_KNOWN
    }

    /// Autoclear bits that the first header write clears.
    #[must_use]
    pub const fn unknown_autoclear(&self) -> u64 {
        self.autoclear & !Features::AUTOCLEAR_KNOWN
    }

    /// All set bits, class by class and lowest first, for people to read.
    #[must_use]
    pub const fn iter(&self) -> FeaturesIter {
        FeaturesIter {
            left: *self,
            class: Some(FeatureClass::Incompatible),
        }
    }

    fn word_mut(&mut self, class: FeatureClass) -> &mut u64 {
        match class {
            FeatureClass::Incompatible => &mut self.incompatible,
            FeatureClass::ReadOnlyCompatible => &mut self.ro_compatible,
            FeatureClass::Compatible => &mut self.compatible,
            FeatureClass::Autoclear => &mut self.autoclear,
        }
    }
}

impl IntoIterator for Features {
    type Item = Feature;
    type IntoIter = FeaturesIter;

    fn into_iter(self) -> FeaturesIter {
        self.iter()
    }
}

/// Iterator over the set bits of [`Features`]; at most 256 of them.
#[derive(Clone, Debug)]
pub struct FeaturesIter {
    left: Features,
    class: Option<FeatureClass>,
}

impl Iterator for FeaturesIter {
    type Item = Feature;

    fn next(&mut self) -> Option<Feature> {
        while let Some(class) = self.class {
            let word = self.left.word_mut(class);
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= word.wrapping_sub(1);
                return Some(Feature { class, bit });
            }
            self.class = class.next();
        }
        None
    }
}

/// One feature bit; shows itself by name, or as class and number if it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Feature {
    /// What a reader that does not know it has to do.
    pub class: FeatureClass,
    /// Number of the bit in its word, 0 to 63.
    pub bit: u32,
}

impl Feature {
    /// The name of the feature, or `None` if this version does not know the bit.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match (self.class, self.bit) {
            (FeatureClass::Incompatible, 0) => Some("page-checksums"),
            (FeatureClass::Incompatible, 1) => Some("partial-blocks"),
            (FeatureClass::Incompatible, 2) => Some("split-records"),
            (FeatureClass::Incompatible, 3) => Some("snapshots"),
            (FeatureClass::Incompatible, 4) => Some("external-data"),
            _ => None,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown-{}-{}", self.class.name(), self.bit),
        }
    }
}
