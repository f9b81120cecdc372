//! What can go wrong with the device as a whole, as opposed to one request.

/// Why the adapter gave up on its device. See the section on faults in the crate documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It named a request that is not in flight: unknown, or finished before.
    UnknownId,
    /// It named a request as finished without having written its status byte, as it would by naming
    /// an old request whose place a new one has taken.
    StatusUnwritten,
    /// It claims to have finished more requests than there are.
    UsedIndex,
    /// It says itself that it can not go on (`DEVICE_NEEDS_RESET`).
    NeedsReset,
    /// [`stop`](crate::VirtioBlk::stop) was called. No fault of the device.
    Stopped,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Fault::UnknownId => "the device finished a request that is not in flight",
            Fault::StatusUnwritten => "the device finished a request without writing its status",
            Fault::UsedIndex => "the device claims more finished requests than there are",
            Fault::NeedsReset => "the device asked for a reset",
            Fault::Stopped => "the device was stopped",
        })
    }
}

/// Why a device could not be taken into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InitError {
    /// It is not a block device.
    NotBlock,
    /// An option is out of its documented range, or leaves no legal request.
    BadOptions,
    /// It did not finish its reset in time. The transport is leaked: what the device still does to
    /// memory is unknown, and a transport may wait for the reset when it is dropped.
    ResetTimeout,
    /// It does not offer `VIRTIO_F_VERSION_1`. Legacy devices are not supported: some hide their
    /// write cache, which breaks the power-loss contract. In QEMU:
    /// `-global virtio-mmio.force-legacy=off`, or `disable-legacy=on` on a PCI device.
    Legacy,
    /// It refused the features that were chosen from its own offer.
    FeaturesRefused,
    /// Its configuration is missing, contradicts itself, or never stands still.
    BadConfig,
    /// It has no request queue, one of fewer than 4 entries, or one that is in use after a reset.
    NoQueue,
    /// The platform has no DMA memory left.
    NoMemory,
}

impl core::fmt::Display for InitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            InitError::NotBlock => "not a block device",
            InitError::BadOptions => "an option is out of range",
            InitError::ResetTimeout => "the device did not finish its reset",
            InitError::Legacy => "legacy virtio devices are not supported",
            InitError::FeaturesRefused => "the device refused the features it offered",
            InitError::BadConfig => "the device's configuration makes no sense",
            InitError::NoQueue => "the device has no usable request queue",
            InitError::NoMemory => "no DMA memory for the queue",
        })
    }
}

impl core::error::Error for InitError {}
