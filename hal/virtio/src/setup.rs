//! From a reset device to a negotiated one (virtio 1.2 §3.1.1), and what its configuration means.
//!
//! Invariants:
//! 1. No loop here is without bound, whatever the device answers.
//! 2. A configuration field is read only if the feature that brings it was accepted, and after
//!    `FEATURES_OK` was confirmed.
//! 3. No number from the configuration reaches [`Geometry`] unchecked: each is brought into the
//!    range that `Geometry` documents, or the device is refused.

use fvd::buffer::SEGMENTS_MAX;
use fvd::device::{DiscardLimits, Geometry, WriteZeroesLimits};
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::fault::InitError;
use crate::options::Options;

/// Reads of the status register before a reset counts as failed. One costs a microsecond or more on
/// virtual hardware, so this is about a second.
const RESET_READS_MAX: u32 = 1 << 20;
/// Attempts to read the configuration between two changes of it.
const CONFIG_READS_MAX: u32 = 64;
/// Largest logical block that makes sense; anything above is nonsense or hostile.
const LOGICAL_BLOCK_MAX: u32 = 1 << 20;
/// Longest transfer whatever the limits say, so that byte counts fit the ring's 32 bits.
const TRANSFER_MAX: u64 = 1 << 30;

pub(crate) const SECTOR_BYTES: u64 = fvd::units::SECTOR_BYTES;

/// A set of feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features(u64);

impl Features {
    pub(crate) const SIZE_MAX: Features = Features(1 << 1);
    pub(crate) const SEG_MAX: Features = Features(1 << 2);
    pub(crate) const READ_ONLY: Features = Features(1 << 5);
    pub(crate) const BLK_SIZE: Features = Features(1 << 6);
    pub(crate) const FLUSH: Features = Features(1 << 9);
    pub(crate) const TOPOLOGY: Features = Features(1 << 10);
    pub(crate) const DISCARD: Features = Features(1 << 13);
    pub(crate) const WRITE_ZEROES: Features = Features(1 << 14);
    pub(crate) const INDIRECT: Features = Features(1 << 28);
    pub(crate) const VERSION_1: Features = Features(1 << 32);
    /// The device's addresses are the platform's: what `Hal::share` returns, by definition.
    pub(crate) const ACCESS_PLATFORM: Features = Features(1 << 33);

    /// What this driver understands. Left out on purpose: `EVENT_IDX` (once per batch is few enough
    /// notifications already), `CONFIG_WCE` (without it, `FLUSH` means a write cache, which is what
    /// we report), `MQ` (one queue), and `ORDER_PLATFORM` (its barriers are for real hardware).
    const KNOWN: [Features; 11] = [
        Features::SIZE_MAX,
        Features::SEG_MAX,
        Features::READ_ONLY,
        Features::BLK_SIZE,
        Features::FLUSH,
        Features::TOPOLOGY,
        Features::DISCARD,
        Features::WRITE_ZEROES,
        Features::INDIRECT,
        Features::VERSION_1,
        Features::ACCESS_PLATFORM,
    ];

    pub(crate) fn has(self, feature: Features) -> bool {
        self.0 & feature.0 == feature.0
    }

    fn accept(offered: u64, options: &Options) -> Result<Features, InitError> {
        if !Features(offered).has(Features::VERSION_1) {
            return Err(InitError::Legacy);
        }
        let known = Features::KNOWN.iter().fold(0, |all, one| all | one.0);
        let mut accepted = offered & known;
        if !options.indirect {
            accepted &= !Features::INDIRECT.0;
        }
        Ok(Features(accepted))
    }
}

/// Writes status 0 and waits, within bounds, until the device confirms it. False if it did not.
pub(crate) fn reset<T: Transport>(transport: &mut T) -> bool {
    transport.set_status(DeviceStatus::empty());
    for _ in 0..RESET_READS_MAX {
        if transport.get_status() == DeviceStatus::empty() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// Resets the device and agrees on features with it. The queue and `DRIVER_OK` are still to come.
pub(crate) fn negotiate<T: Transport>(
    transport: &mut T,
    options: &Options,
) -> Result<Features, InitError> {
    if !reset(transport) {
        return Err(InitError::ResetTimeout);
    }
    let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(found);
    let features = Features::accept(transport.read_device_features(), options)?;
    transport.write_driver_features(features.0);
    transport.set_status(found | DeviceStatus::FEATURES_OK);
    // Read back: a device that can not work with this subset clears the bit again.
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(InitError::FeaturesRefused);
    }
    Ok(features)
}

/// The configuration, as far as features make it meaningful; 0 elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) capacity_sectors: u64,
    pub(crate) size_max: u32,
    pub(crate) seg_max: u32,
    pub(crate) blk_size: u32,
    pub(crate) physical_block_exp: u8,
    pub(crate) max_discard_sectors: u32,
    pub(crate) discard_sector_alignment: u32,
    pub(crate) max_write_zeroes_sectors: u32,
    pub(crate) write_zeroes_may_unmap: bool,
}

/// Reads the whole configuration in one state of it.
pub(crate) fn read_config<T: Transport>(
    transport: &T,
    features: Features,
) -> Result<Config, InitError> {
    consistently(transport, || read_fields(transport, features))
}

/// Reads the capacity alone, in sectors.
pub(crate) fn read_capacity<T: Transport>(transport: &T) -> Result<u64, InitError> {
    consistently(transport, || capacity(transport))
}

/// Calls `read` until the configuration did not change meanwhile. `Transport::read_consistent` does
/// the same without a bound.
fn consistently<T: Transport, V>(
    transport: &T,
    read: impl Fn() -> Result<V, InitError>,
) -> Result<V, InitError> {
    for _ in 0..CONFIG_READS_MAX {
        let before = transport.read_config_generation();
        let value = read();
        if transport.read_config_generation() == before {
            return value;
        }
    }
    Err(InitError::BadConfig)
}

fn word<T: Transport>(transport: &T, offset: usize) -> Result<u32, InitError> {
    let word = transport.read_config_space::<u32>(offset);
    word.map(u32::from_le).map_err(|_| InitError::BadConfig)
}

fn byte<T: Transport>(transport: &T, offset: usize) -> Result<u8, InitError> {
    let byte = transport.read_config_space::<u8>(offset);
    byte.map_err(|_| InitError::BadConfig)
}

fn capacity<T: Transport>(transport: &T) -> Result<u64, InitError> {
    // Two halves: the configuration space is only aligned to 4 bytes.
    let (low, high) = (word(transport, 0)?, word(transport, 4)?);
    Ok(u64::from(low) | (u64::from(high) << 32))
}

/// Offsets: virtio 1.2 §5.2.4.
fn read_fields<T: Transport>(transport: &T, features: Features) -> Result<Config, InitError> {
    let mut config = Config {
        capacity_sectors: capacity(transport)?,
        ..Config::default()
    };
    if features.has(Features::SIZE_MAX) {
        config.size_max = word(transport, 8)?;
    }
    if features.has(Features::SEG_MAX) {
        config.seg_max = word(transport, 12)?;
    }
    if features.has(Features::BLK_SIZE) {
        config.blk_size = word(transport, 20)?;
    }
    if features.has(Features::TOPOLOGY) {
        config.physical_block_exp = byte(transport, 24)?;
    }
    if features.has(Features::DISCARD) {
        config.max_discard_sectors = word(transport, 36)?;
        // max_discard_seg at 40 is at least 1, and 1 is what a request of ours has.
        config.discard_sector_alignment = word(transport, 44)?;
    }
    if features.has(Features::WRITE_ZEROES) {
        config.max_write_zeroes_sectors = word(transport, 48)?;
        // max_write_zeroes_seg at 52: likewise.
        config.write_zeroes_may_unmap = byte(transport, 56)? == 1;
    }
    Ok(config)
}

/// What the device is like, for a queue of `queue_size` entries.
pub(crate) fn geometry(
    config: &Config,
    features: Features,
    queue_size: u16,
    options: &Options,
) -> Result<Geometry, InitError> {
    let logical = if features.has(Features::BLK_SIZE) {
        config.blk_size
    } else {
        SECTOR_BYTES as u32
    };
    if !logical.is_power_of_two() || !(512..=LOGICAL_BLOCK_MAX).contains(&logical) {
        return Err(InitError::BadConfig);
    }
    let (segments, segment_bytes) = segment_limits(config, features, queue_size, options)?;
    let transfer = (u64::from(segment_bytes) * u64::from(segments))
        .min(u64::from(options.transfer_max_bytes))
        .min(TRANSFER_MAX) as u32;
    let transfer = transfer & !(logical - 1);
    if transfer == 0 {
        return Err(InitError::BadOptions);
    }
    // Without indirect descriptors a request takes at least three entries: header, data, status.
    let indirect = features.has(Features::INDIRECT);
    let depth = if indirect { queue_size } else { queue_size / 3 };
    let read_only = features.has(Features::READ_ONLY);
    let usable = |feature| features.has(feature) && !read_only;
    Ok(Geometry {
        capacity_bytes: capacity_bytes(config.capacity_sectors, logical)?,
        logical_block_bytes: logical,
        physical_block_bytes: physical_block(logical, config.physical_block_exp),
        atomic_write_bytes: options.atomic_write_bytes,
        memory_align_bytes: options.memory_align_bytes,
        transfer_max_bytes: transfer,
        segments_max: segments,
        segment_max_bytes: segment_bytes,
        queue_depth: depth.min(options.queue_depth_max).max(1),
        read_only,
        volatile_cache: features.has(Features::FLUSH),
        fua: false,
        discard: discard_limits(config, logical).filter(|_| usable(Features::DISCARD)),
        write_zeroes: write_zeroes_limits(config, logical)
            .filter(|_| usable(Features::WRITE_ZEROES)),
        growth: None,
    })
}

/// Most leases in a request, and the longest one.
fn segment_limits(
    config: &Config,
    features: Features,
    queue_size: u16,
    options: &Options,
) -> Result<(u16, u32), InitError> {
    // A device that does not say how many segments it takes may take one only, and some do.
    let offered = if features.has(Features::SEG_MAX) {
        config.seg_max.max(1)
    } else {
        1
    };
    // No chain is longer than the queue, indirect or not (virtio 1.2 §2.7.5.3.1).
    let fitting = u32::from(queue_size.saturating_sub(2));
    let segments = offered.min(fitting).min(SEGMENTS_MAX as u32);
    let longest = if features.has(Features::SIZE_MAX) {
        config.size_max
    } else {
        u32::MAX
    };
    if segments == 0 || longest == 0 {
        return Err(InitError::BadConfig);
    }
    let longest = longest
        .min(options.segment_max_bytes)
        .min(TRANSFER_MAX as u32);
    Ok((segments as u16, longest))
}

/// Whole logical blocks only.
pub(crate) fn capacity_bytes(sectors: u64, logical: u32) -> Result<u64, InitError> {
    let bytes = sectors.checked_mul(SECTOR_BYTES);
    let bytes = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
    let bytes = bytes.ok_or(InitError::BadConfig)?;
    Ok(bytes & !(u64::from(logical) - 1))
}

/// A hint for speed; nonsense is ignored.
fn physical_block(logical: u32, exponent: u8) -> u32 {
    let bytes = u64::from(logical) << exponent.min(32);
    u32::try_from(bytes).unwrap_or(logical)
}

fn discard_limits(config: &Config, logical: u32) -> Option<DiscardLimits> {
    let max_bytes = whole_blocks(config.max_discard_sectors, logical)?;
    let alignment = config
        .discard_sector_alignment
        .checked_mul(SECTOR_BYTES as u32)
        .filter(|bytes| *bytes != 0 && bytes.is_multiple_of(logical));
    Some(DiscardLimits {
        granularity_bytes: alignment.unwrap_or(logical),
        max_bytes,
        // Nothing in the specification says what a discarded sector reads.
        zeroes_after: false,
    })
}

fn write_zeroes_limits(config: &Config, logical: u32) -> Option<WriteZeroesLimits> {
    let max_bytes = whole_blocks(config.max_write_zeroes_sectors, logical)?;
    Some(WriteZeroesLimits {
        max_bytes,
        may_unmap: config.write_zeroes_may_unmap,
    })
}

/// A limit in sectors as bytes, in whole blocks. `None` if that leaves nothing.
fn whole_blocks(sectors: u32, logical: u32) -> Option<u64> {
    let bytes = u64::from(sectors) * SECTOR_BYTES;
    let bytes = bytes & !(u64::from(logical) - 1);
    (bytes != 0).then_some(bytes)
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
