//! The device: takes chains when told to, works on them in random order, and lies on request.

use std::cell::RefCell;
use std::rc::Rc;

use virtio_drivers::transport::DeviceType;

use super::Random;
pub(crate) use super::chain::Rings;
use super::chain::{Parsed, read, write};
use super::hal::Platform;
use super::registers::{Handle, Registers, Reset};

pub(crate) const SIZE_MAX: u64 = 1 << 1;
pub(crate) const SEG_MAX: u64 = 1 << 2;
pub(crate) const READ_ONLY: u64 = 1 << 5;
pub(crate) const BLK_SIZE: u64 = 1 << 6;
pub(crate) const FLUSH: u64 = 1 << 9;
pub(crate) const TOPOLOGY: u64 = 1 << 10;
pub(crate) const DISCARD: u64 = 1 << 13;
pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const VERSION_1: u64 = 1 << 32;

const SECTOR: usize = 512;

/// What the device tells about itself and then insists on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) offered: u64,
    pub(crate) queue_size: u32,
    pub(crate) capacity_sectors: u64,
    pub(crate) size_max: u32,
    pub(crate) seg_max: u32,
    pub(crate) blk_size: u32,
    pub(crate) physical_block_exp: u8,
    pub(crate) max_discard_sectors: u32,
    pub(crate) discard_sector_alignment: u32,
    pub(crate) max_write_zeroes_sectors: u32,
    pub(crate) write_zeroes_may_unmap: u8,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            offered: VERSION_1 | FLUSH | SEG_MAX | BLK_SIZE | INDIRECT,
            queue_size: 256,
            capacity_sectors: 1024,
            size_max: u32::MAX,
            seg_max: 254,
            blk_size: 512,
            physical_block_exp: 0,
            max_discard_sectors: 64,
            discard_sector_alignment: 8,
            max_write_zeroes_sectors: 64,
            write_zeroes_may_unmap: 1,
        }
    }
}

impl Limits {
    fn config(&self) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[0..8].copy_from_slice(&self.capacity_sectors.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.size_max.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.seg_max.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.blk_size.to_le_bytes());
        bytes[24] = self.physical_block_exp;
        bytes[36..40].copy_from_slice(&self.max_discard_sectors.to_le_bytes());
        bytes[40..44].copy_from_slice(&1u32.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.discard_sector_alignment.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.max_write_zeroes_sectors.to_le_bytes());
        bytes[52..56].copy_from_slice(&1u32.to_le_bytes());
        bytes[56] = self.write_zeroes_may_unmap;
        bytes
    }
}

/// A lie for the next completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// This id in the used ring.
    Id(u32),
    /// The used index runs ahead by so many more.
    IndexAhead(u16),
    /// This status byte.
    Status(u8),
    /// No status byte at all.
    NoStatus,
    /// The used length is shorter by so many bytes.
    ShortBy(u32),
    /// This used length.
    Length(u32),
}

pub(crate) struct Device {
    pub(crate) registers: Registers,
    pub(crate) limits: Limits,
    pub(crate) rings: Option<Rings>,
    pub(crate) kicked: bool,
    /// Looks at the ring without being kicked, and says so in the used flags.
    pub(crate) busy_polling: bool,
    seen_available: u16,
    used_index: u16,
    pub(crate) in_service: Vec<Parsed>,
    pub(crate) in_service_most: usize,
    pub(crate) last_id: Option<u16>,
    /// What a read sees.
    pub(crate) current: Vec<u8>,
    /// What a power loss leaves.
    pub(crate) durable: Vec<u8>,
    pub(crate) flushes: u64,
    pub(crate) unmaps: u64,
    pub(crate) longest_chain: usize,
    pub(crate) lie: Option<Lie>,
    pub(crate) random: Random,
}

impl Device {
    pub(crate) fn create(limits: Limits, seed: u64) -> Handle {
        let bytes = limits.capacity_sectors as usize * SECTOR;
        Handle(Rc::new(RefCell::new(Device {
            registers: Registers {
                device_type: DeviceType::Block,
                offered: limits.offered,
                accepted: None,
                refuse_features: false,
                status: 0,
                reset: Reset::Prompt,
                reset_pending: None,
                queue_size_max: limits.queue_size,
                queue_busy: false,
                config: limits.config(),
                config_generation: 0,
                config_unstable: false,
                interrupts: 0,
                kicks: 0,
                dropped: false,
                events: Vec::new(),
            },
            limits,
            rings: None,
            kicked: false,
            busy_polling: false,
            seen_available: 0,
            used_index: 0,
            in_service: Vec::new(),
            in_service_most: 0,
            last_id: None,
            current: vec![0; bytes],
            durable: vec![0; bytes],
            flushes: 0,
            unmaps: 0,
            longest_chain: 0,
            lie: None,
            random: Random::new(seed),
        })))
    }

    pub(crate) fn forget_queue(&mut self) {
        self.rings = None;
        self.in_service.clear();
        self.seen_available = 0;
        self.used_index = 0;
        self.kicked = false;
    }

    fn accepted(&self, feature: u64) -> bool {
        self.registers.accepted.unwrap_or(0) & feature != 0
    }

    fn effective_limits(&self) -> Limits {
        let mut limits = self.limits;
        if !self.accepted(SIZE_MAX) {
            limits.size_max = u32::MAX;
        }
        if !self.accepted(SEG_MAX) {
            limits.seg_max = 1;
        }
        limits
    }

    /// Takes new chains off the available ring, if it was told that there are some.
    pub(crate) fn fetch(&mut self) {
        let (limits, indirect) = (self.effective_limits(), self.accepted(INDIRECT));
        let Some(rings) = &mut self.rings else { return };
        rings.put_no_notify(self.busy_polling);
        if !std::mem::take(&mut self.kicked) && !self.busy_polling {
            return;
        }
        let index = rings.available_index();
        let new = index.wrapping_sub(self.seen_available);
        assert!(new <= rings.size, "{new} new chains at once");
        while self.seen_available != index {
            let head = rings.available_head(self.seen_available);
            let parsed = rings.parse(head, indirect, &limits);
            self.longest_chain = self.longest_chain.max(parsed.data.len() + 2);
            self.in_service.push(parsed);
            self.seen_available = self.seen_available.wrapping_add(1);
        }
        self.in_service_most = self.in_service_most.max(self.in_service.len());
    }

    /// Fetches, then finishes one request, picked at random. False if there was none.
    pub(crate) fn step(&mut self) -> bool {
        self.fetch();
        if self.in_service.is_empty() || self.registers.reset_pending.is_some() {
            return false;
        }
        let pick = self.random.below(self.in_service.len() as u64) as usize;
        self.finish(pick);
        true
    }

    /// Finishes everything that it has or finds.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// Finishes the request at `pick` in the order of service, with the lie that is due.
    pub(crate) fn finish(&mut self, pick: usize) {
        let parsed = self.in_service.swap_remove(pick);
        let lie = self.lie.take();
        let status = match lie {
            Some(Lie::Status(status)) => status,
            _ => 0,
        };
        let written = if status == 0 {
            self.execute(&parsed)
        } else {
            0
        };
        if lie != Some(Lie::NoStatus) {
            write(parsed.status, [status]);
        }
        let len = match lie {
            Some(Lie::ShortBy(bytes)) => written + 1 - bytes,
            Some(Lie::Length(len)) => len,
            _ => written + 1,
        };
        let id = match lie {
            Some(Lie::Id(id)) => id,
            _ => u32::from(parsed.head),
        };
        let rings = self.rings.as_mut().expect("a queue");
        rings.put_used(self.used_index, id, len);
        rings.release(&parsed);
        self.used_index = self.used_index.wrapping_add(1);
        let ahead = match lie {
            Some(Lie::IndexAhead(ahead)) => ahead,
            _ => 0,
        };
        rings.put_used_index(self.used_index.wrapping_add(ahead));
        self.last_id = Some(parsed.head);
        if rings.interrupts_wanted() {
            self.registers.interrupts |= 1;
        }
    }

    /// Does the work. Returns the bytes written to the driver's memory.
    fn execute(&mut self, parsed: &Parsed) -> u32 {
        match parsed.kind {
            0 | 1 => self.transfer(parsed),
            4 => {
                assert!(self.accepted(FLUSH), "FLUSH was not negotiated");
                assert!(parsed.data.is_empty() && parsed.sector == 0);
                self.durable.copy_from_slice(&self.current);
                self.flushes += 1;
                0
            }
            11 | 13 => {
                self.change_range(parsed);
                0
            }
            kind => panic!("request type {kind}"),
        }
    }

    fn transfer(&mut self, parsed: &Parsed) -> u32 {
        let len = parsed.data_len() as usize;
        let mut at = parsed.sector as usize * SECTOR;
        assert!(len != 0 && len.is_multiple_of(self.limits.blk_size as usize));
        assert!(
            at.is_multiple_of(self.limits.blk_size as usize),
            "unaligned"
        );
        assert!(at + len <= self.current.len(), "beyond the end");
        let start = at;
        for (address, len) in &parsed.data {
            let len = *len as usize;
            let pointer = Platform::device_pointer(*address, len, parsed.kind == 0);
            let disk = &mut self.current[at..at + len];
            if parsed.kind == 0 {
                // SAFETY: the platform vouches for `len` writable bytes, apart from the disk.
                unsafe { pointer.copy_from_nonoverlapping(disk.as_ptr(), len) };
            } else {
                // SAFETY: the platform vouches for `len` readable bytes, apart from the disk.
                unsafe { pointer.copy_to_nonoverlapping(disk.as_mut_ptr(), len) };
            }
            at += len;
        }
        if parsed.kind == 1 {
            self.changed(start, len);
        }
        if parsed.kind == 0 { len as u32 } else { 0 }
    }

    /// Without a write cache, what is written is durable.
    fn changed(&mut self, at: usize, len: usize) {
        assert_eq!(
            self.limits.offered & READ_ONLY,
            0,
            "changed a read-only disk"
        );
        if !self.accepted(FLUSH) {
            self.durable[at..at + len].copy_from_slice(&self.current[at..at + len]);
        }
    }

    fn change_range(&mut self, parsed: &Parsed) {
        let discard = parsed.kind == 11;
        let feature = if discard { DISCARD } else { WRITE_ZEROES };
        assert!(self.accepted(feature), "not negotiated");
        assert_eq!((parsed.sector, parsed.data.len()), (0, 1));
        let (address, len) = parsed.data[0];
        assert_eq!(len, 16, "one range");
        let bytes: [u8; 16] = read(address);
        let sector = u64::from_le_bytes(bytes[0..8].try_into().expect("8"));
        let count = u32::from_le_bytes(bytes[8..12].try_into().expect("4"));
        let flags = u32::from_le_bytes(bytes[12..16].try_into().expect("4"));
        let limits = &self.limits;
        assert!(count != 0 && sector + u64::from(count) <= limits.capacity_sectors);
        if discard {
            let granule = limits.discard_sector_alignment;
            assert_eq!(flags, 0, "a discard has no flags");
            assert!(count <= limits.max_discard_sectors);
            assert!(sector.is_multiple_of(u64::from(granule)) && count.is_multiple_of(granule));
        } else {
            assert!(count <= limits.max_write_zeroes_sectors);
            assert!(flags == 0 || (flags == 1 && limits.write_zeroes_may_unmap == 1));
            self.unmaps += u64::from(flags);
        }
        let (at, len) = (sector as usize * SECTOR, count as usize * SECTOR);
        self.current[at..at + len].fill(if discard { 0xd5 } else { 0 });
        self.changed(at, len);
    }
}
