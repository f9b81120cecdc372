"""The header: fields of a slot, and which slot counts (§3)."""

import struct

from .crc32c import crc32c
from .report import Refused, Report
from .source import Source

SLOT = 4096
MAGIC = b"FVD\0"
VERSION = 2
EXT_MAGIC = b"FVD2"
EXT_AT = 3320
RESERVED_AT = 3536
CRC_AT = 4092

#: §3.1, §3.2, §3.3: offset, form and name of each number.
NUMBERS = (
    (4, "<I", "version"),
    (8, "<Q", "virtual_disk_size"),
    (16, "<Q", "data_offset"),
    (2104, "<Q", "base_img_size"),
    (2112, "<Q", "bitmap_offset"),
    (2120, "<Q", "bitmap_size"),
    (2128, "<Q", "block_size"),
    (2136, "<Q", "table_offset"),
    (2144, "<Q", "table_size"),
    (2152, "<Q", "chunk_size"),
    (2160, "<Q", "storage_grow_unit"),
    (3192, "<Q", "journal_offset"),
    (3200, "<Q", "journal_size"),
    (3208, "<Q", "stable_journal_epoch"),
    (3216, "<I", "clean_shutdown"),
    (3220, "<I", "copy_on_read"),
    (3224, "<Q", "max_outstanding_copy_on_read_data"),
    (3232, "<q", "prefetch_start_delay"),
    (3240, "<I", "base_img_fully_prefetched"),
    (3244, "<I", "num_prefetch_slots"),
    (3248, "<Q", "bytes_per_prefetch"),
    (3256, "<Q", "prefetch_min_read_throughput"),
    (3264, "<Q", "prefetch_max_read_throughput"),
    (3272, "<Q", "prefetch_min_write_throughput"),
    (3280, "<Q", "prefetch_max_write_throughput"),
    (3288, "<Q", "prefetch_throttle_time"),
    (3296, "<Q", "prefetch_read_throughput_measure_time"),
    (3304, "<Q", "prefetch_write_throughput_measure_time"),
    (3312, "<I", "need_zero_init"),
    (3316, "<I", "pad"),
    (3324, "<I", "ext_len"),
    (3328, "<Q", "incompatible"),
    (3336, "<Q", "ro_compatible"),
    (3344, "<Q", "compatible"),
    (3352, "<Q", "autoclear"),
    (3360, "<Q", "generation"),
    (3384, "<Q", "owner_nonce"),
    (3408, "<Q", "base_generation"),
    (3416, "<Q", "zero_floor_chunk"),
    (3424, "<Q", "store_bytes"),
    (3432, "<I", "atomic_unit"),
    (3436, "<I", "checksum_active"),
    (3440, "<Q", "checksum_a_offset"),
    (3448, "<Q", "checksum_b_offset"),
    (3456, "<Q", "checksum_size"),
    (3464, "<Q", "partial_offset"),
    (3472, "<Q", "partial_size"),
    (3480, "<Q", "split_offset"),
    (3488, "<Q", "split_size"),
    (3496, "<Q", "counts_a_offset"),
    (3504, "<Q", "counts_b_offset"),
    (3512, "<Q", "counts_size"),
    (3520, "<Q", "snapshot_offset"),
    (3528, "<Q", "snapshot_size"),
    (4092, "<I", "slot_crc"),
)

#: §3.6: offset, size and name of each name.
NAMES = (
    (24, 1024, "data_file"),
    (1048, 16, "data_file_fmt"),
    (1064, 1024, "base_img"),
    (2088, 16, "base_img_fmt"),
    (2168, 1024, "add_storage_cmd"),
)

#: §4, bits of `incompatible` that this version defines.
PAGE_CHECKSUMS = 1 << 0
EXTERNAL_DATA = 1 << 4

_PLACES = {name: offset for offset, _, name in (*NUMBERS, *NAMES)}


def round_up(value: int, unit: int) -> int:
    """`value ~> unit` (§1.2)."""
    return -(-value // unit) * unit


class Header:
    """One slot, taken apart. A field `x` is the attribute `x`."""

    def __init__(self, number: int, slot: bytes) -> None:
        self.number = number
        self.slot = slot
        for offset, form, name in NUMBERS:
            setattr(self, name, struct.unpack_from(form, slot, offset)[0])
        self.image_id = slot[3368:3384]

    def where(self, name: str) -> str:
        """Place of a field on the metadata device."""
        return f"header slot {self.number}, byte {self.number * SLOT + _PLACES[name]} ({name})"

    @property
    def crc_is_right(self) -> bool:
        """§3.3: `slot_crc` covers the bytes before it, without `image_id` in front."""
        return crc32c(self.slot[:CRC_AT]) == self.slot_crc

    @property
    def is_ours(self) -> bool:
        """Right `magic` and `version`."""
        return self.slot[:4] == MAGIC and self.version == VERSION

    @property
    def has_extension(self) -> bool:
        return self.slot[EXT_AT : EXT_AT + 4] == EXT_MAGIC

    @property
    def is_valid(self) -> bool:
        """§3.4."""
        return self.is_ours and self.has_extension and self.crc_is_right

    @property
    def is_damaged(self) -> bool:
        """§3.4, 5. The text has the word for a slot with right `ext_magic` only (rule 2). By the stricter reading a
        slot that starts as §12 says for this version was ours, too, even if its `ext_magic` is gone."""
        return not self.is_valid and (self.is_ours or self.has_extension)

    @property
    def has_checksums(self) -> bool:
        return bool(self.incompatible & PAGE_CHECKSUMS)

    @property
    def has_data_device(self) -> bool:
        return bool(self.incompatible & EXTERNAL_DATA)

    @property
    def has_base(self) -> bool:
        """There is a base, needed or not (§3.1)."""
        return self.base_img_size != 0

    @property
    def needs_base(self) -> bool:
        """There is a base, and it is not fully prefetched (§3.1)."""
        return self.has_base and self.base_img_fully_prefetched != 1

    @property
    def chunks(self) -> int:
        """Chunks of the disk, the cut off one too (§6)."""
        return -(-self.virtual_disk_size // self.chunk_size)

    @property
    def base_blocks(self) -> int:
        """Blocks of the base that the disk can show, hence bits (§5)."""
        return -(-min(self.base_img_size, self.virtual_disk_size) // self.block_size)

    @property
    def blocks_per_chunk(self) -> int:
        return self.chunk_size // self.block_size

    @property
    def units(self) -> int:
        """§7.1."""
        return self.journal_size // self.atomic_unit

    def store_chunks(self, store_bytes: int) -> int:
        """Whole chunks between `data_offset` and `store_bytes`, of which at most 2^31 count (§3.5, 14)."""
        return min(max(store_bytes - self.data_offset, 0) // self.chunk_size, 1 << 31)


def choose(source: Source, report: Report) -> Header:
    """The slot that counts (§3.4). Raises `Refused` if there is none."""
    if source.size < 2 * SLOT:
        report.corrupt(f"metadata device, byte {source.size}", "shorter than two header slots")
        raise Refused
    slots = [Header(number, source.read(number * SLOT, SLOT)) for number in (0, 1)]
    for slot in slots:  # rule 2
        if slot.has_extension and slot.crc_is_right and not slot.is_ours:
            start = slot.slot[:8].hex(" ")
            report.unsupported(slot.where("version"), f"the work of another version: starts {start}")
            raise Refused
    _refuse_other_dialects(slots[0], report)
    valid = [slot for slot in slots if slot.is_valid]
    for slot in slots:
        if slot.is_damaged and valid:
            report.note(slot.where("slot_crc"), "the slot is torn or damaged; the other one counts")
    if not valid:  # rule 5
        damaged = [slot for slot in slots if slot.is_damaged]
        for slot in damaged:
            report.corrupt(slot.where("slot_crc"), "no slot is valid, and this one is damaged")
        if not damaged:
            report.unsupported("header", "no slot of this format: magic and version are missing")
        raise Refused
    if len(valid) == 2:  # rule 4
        _compare(*valid, report)
    return max(valid, key=lambda slot: slot.generation)


def _refuse_other_dialects(slot: Header, report: Report) -> None:
    """§3.4, 3 and §12."""
    if slot.slot[:4] == b"\xa9\xf5\x43\x51":
        report.unsupported("byte 0", "the 2011 reference implementation's dialect")
        raise Refused
    if slot.slot[:8] == b"FVD\0\1\0\0\0":
        report.unsupported("byte 0", "the 2011 written specification's dialect")
        raise Refused


def _compare(first: Header, second: Header, report: Report) -> None:
    """§3.4, 4: two valid slots must be of one image."""
    if first.image_id != second.image_id:
        report.corrupt("header slots, bytes 3368 and 7464 (image_id)", "two valid slots of different images")
    if first.generation == second.generation and first.slot != second.slot:
        report.corrupt("header slots, bytes 3360 and 7456 (generation)", "equal, but the slots differ")
    report.refuse_if_any()
    if abs(first.generation - second.generation) > 1:
        report.note("header slots, bytes 3360 and 7456 (generation)", "not successive: a header write is missing")
