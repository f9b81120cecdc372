//! What the device finds in the rings, checked against the specification.

use virtio_drivers::PhysAddr;

use super::device::Limits;
use super::hal::Platform;

/// Where the driver put the queue.
pub(crate) struct Rings {
    pub(crate) size: u16,
    descriptors: PhysAddr,
    available: PhysAddr,
    used: PhysAddr,
    /// Descriptors of chains in flight.
    busy: Vec<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: PhysAddr,
    len: u32,
    flags: u16,
    next: u16,
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A request as the device understood it.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) head: u16,
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// Data, or the ranges of a discard.
    pub(crate) data: Vec<(PhysAddr, u32)>,
    pub(crate) status: PhysAddr,
    /// Descriptors of the ring that it occupies.
    occupied: Vec<u16>,
}

impl Parsed {
    pub(crate) fn data_len(&self) -> u64 {
        self.data.iter().map(|(_, len)| u64::from(*len)).sum()
    }
}

pub(crate) fn read<const N: usize>(address: PhysAddr) -> [u8; N] {
    let pointer = Platform::device_pointer(address, N, false);
    // SAFETY: the platform vouches for `N` readable bytes.
    unsafe { pointer.cast::<[u8; N]>().read_unaligned() }
}

pub(crate) fn write<const N: usize>(address: PhysAddr, bytes: [u8; N]) {
    let pointer = Platform::device_pointer(address, N, true);
    // SAFETY: the platform vouches for `N` writable bytes.
    unsafe { pointer.cast::<[u8; N]>().write_unaligned(bytes) };
}

impl Rings {
    pub(crate) fn new(
        size: u16,
        descriptors: PhysAddr,
        available: PhysAddr,
        used: PhysAddr,
    ) -> Rings {
        let count = usize::from(size);
        for (address, len, alignment) in [
            (descriptors, 16 * count, 16),
            (available, 6 + 2 * count, 2),
            (used, 6 + 8 * count, 4),
        ] {
            assert!(address.is_multiple_of(alignment), "{address:#x} unaligned");
            Platform::device_pointer(address, len, false);
        }
        let overlap = |a: PhysAddr, len: usize, b: PhysAddr| a <= b && b < a + len as u64;
        assert!(!overlap(descriptors, 16 * count, available));
        assert!(!overlap(available, 6 + 2 * count, used));
        assert_eq!(read::<2>(available + 2), [0; 2], "a ring starts at index 0");
        assert_eq!(read::<2>(used + 2), [0; 2], "a ring starts at index 0");
        Rings {
            size,
            descriptors,
            available,
            used,
            busy: vec![false; count],
        }
    }

    pub(crate) fn available_index(&self) -> u16 {
        u16::from_le_bytes(read(self.available + 2))
    }

    pub(crate) fn interrupts_wanted(&self) -> bool {
        u16::from_le_bytes(read(self.available)) & 1 == 0
    }

    pub(crate) fn available_head(&self, index: u16) -> u16 {
        let slot = u64::from(index % self.size);
        u16::from_le_bytes(read(self.available + 4 + 2 * slot))
    }

    pub(crate) fn put_used(&self, index: u16, id: u32, len: u32) {
        let slot = u64::from(index % self.size);
        write(self.used + 4 + 8 * slot, id.to_le_bytes());
        write(self.used + 8 + 8 * slot, len.to_le_bytes());
    }

    pub(crate) fn put_used_index(&self, index: u16) {
        write(self.used + 2, index.to_le_bytes());
    }

    pub(crate) fn put_no_notify(&self, wanted: bool) {
        write(self.used, u16::from(wanted).to_le_bytes());
    }

    /// The device is done with the chain: its descriptors may be used again.
    pub(crate) fn release(&mut self, parsed: &Parsed) {
        for index in &parsed.occupied {
            self.busy[usize::from(*index)] = false;
        }
    }

    fn descriptor(table: PhysAddr, index: u16) -> Descriptor {
        let at = table + 16 * u64::from(index);
        Descriptor {
            address: u64::from_le_bytes(read(at)),
            len: u32::from_le_bytes(read(at + 8)),
            flags: u16::from_le_bytes(read(at + 12)),
            next: u16::from_le_bytes(read(at + 14)),
        }
    }

    /// Follows links from `index` in a table of `count` descriptors.
    fn walk(table: PhysAddr, mut index: u16, count: u16) -> Vec<(u16, Descriptor)> {
        let mut chain = Vec::new();
        loop {
            assert!(index < count, "link to {index} of {count}");
            assert!(chain.len() < usize::from(count), "the chain is a loop");
            let descriptor = Rings::descriptor(table, index);
            chain.push((index, descriptor));
            if descriptor.flags & NEXT == 0 {
                return chain;
            }
            index = descriptor.next;
        }
    }

    /// The chain that starts at `head`.
    pub(crate) fn parse(&mut self, head: u16, indirect: bool, limits: &Limits) -> Parsed {
        let direct = Rings::walk(self.descriptors, head, self.size);
        let occupied: Vec<u16> = direct.iter().map(|(index, _)| *index).collect();
        for index in &occupied {
            let busy = &mut self.busy[usize::from(*index)];
            assert!(!*busy, "descriptor {index} is in flight already");
            *busy = true;
        }
        let first = direct[0].1;
        let parts = if first.flags & INDIRECT != 0 {
            assert!(indirect, "INDIRECT was not negotiated");
            assert_eq!(first.flags, INDIRECT, "an indirect descriptor stands alone");
            assert!(first.len != 0 && first.len.is_multiple_of(16));
            let count = u16::try_from(first.len / 16).expect("a short table");
            let table = Rings::walk(first.address, 0, count);
            assert_eq!(table.len(), usize::from(count), "unused table entries");
            table
        } else {
            direct
        };
        assert!(
            parts.len() <= usize::from(self.size),
            "longer than the queue"
        );
        let parts: Vec<Descriptor> = parts.into_iter().map(|(_, part)| part).collect();
        Rings::interpret(head, occupied, &parts, limits)
    }

    fn interpret(head: u16, occupied: Vec<u16>, parts: &[Descriptor], limits: &Limits) -> Parsed {
        assert!(parts.len() >= 2, "no room for header and status");
        let (header, status) = (parts[0], parts[parts.len() - 1]);
        assert_eq!(header.flags & !NEXT, 0, "the header is not readable");
        assert_eq!(header.len, 16, "the header stands alone");
        assert_eq!(status.flags, WRITE, "the status is not writable and last");
        assert_eq!(status.len, 1, "the status stands alone");
        Platform::device_pointer(status.address, 1, true);
        let bytes: [u8; 16] = read(header.address);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
        let kind = word(0);
        assert_eq!(word(4), 0, "the reserved word");
        let sector = u64::from(word(8)) | (u64::from(word(12)) << 32);

        let data = &parts[1..parts.len() - 1];
        for part in data {
            let writes = part.flags & WRITE != 0;
            assert_eq!(part.flags & !(NEXT | WRITE), 0);
            assert_eq!(writes, kind == 0, "only a read has writable data");
            assert_ne!(part.len, 0, "an empty descriptor");
            assert!(part.len <= limits.size_max, "longer than size_max");
            Platform::device_pointer(part.address, part.len as usize, writes);
        }
        assert!(data.len() <= limits.seg_max as usize, "more than seg_max");
        Parsed {
            head,
            kind,
            sector,
            data: data.iter().map(|part| (part.address, part.len)).collect(),
            status: status.address,
            occupied,
        }
    }
}
