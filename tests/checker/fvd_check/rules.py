"""Rules for the fields of the slot that counts, and for places (§2, §3.3, §3.5, §3.6, §4)."""

from collections.abc import Callable

from .header import EXT_AT, EXTERNAL_DATA, NAMES, PAGE_CHECKSUMS, RESERVED_AT, Header, round_up
from .report import Report

PAGE = 4096
TWO_GIB = 2 << 30
JOURNAL_MOST = 64 << 20
SIGNED = 1 << 63
#: §3.3.
LATER = (
    "partial_offset partial_size split_offset split_size counts_a_offset counts_b_offset counts_size "
    "snapshot_offset snapshot_size"
).split()

Wrong = Callable[[str, str], None]


def is_power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def check_features(header: Header, report: Report) -> None:
    """§4. Comes first: an unknown incompatible feature may change what any other field means."""
    unknown = header.incompatible & ~(PAGE_CHECKSUMS | EXTERNAL_DATA)
    if unknown:
        report.unsupported(header.where("incompatible"), f"unknown bits {unknown:#x}")
    for word in ("ro_compatible", "compatible", "autoclear"):
        if getattr(header, word):
            report.note(header.where(word), f"unknown bits {getattr(header, word):#x}")
    report.refuse_if_any()


def check_fields(header: Header, report: Report) -> None:
    """§3.5, without the places. Later rules use values that the earlier ones have found sane."""

    def wrong(name: str, what: str) -> None:
        report.corrupt(header.where(name), f"{getattr(header, name)}: {what}")

    _check_names(header, report)
    _check_reserved(header, report)
    _check_sizes(header, wrong)
    _check_numbers(header, wrong)
    report.refuse_if_any()
    if header.chunks >= 1 << 31:  # rule 4
        report.limit(header.where("virtual_disk_size"), f"{header.chunks} chunks are too many")
    _check_region_sizes(header, wrong)
    _check_checksum_fields(header, wrong)
    _check_journal_size(header, wrong)
    if header.journal_size > JOURNAL_MOST:
        report.limit(header.where("journal_size"), f"{header.journal_size}: beyond 64 MiB")
    _check_store(header, wrong)
    report.refuse_if_any()


def _check_names(header: Header, report: Report) -> None:
    """§3.6, and rule 7."""
    for offset, size, name in NAMES:
        length = header.slot[offset : offset + size].find(0)
        if length < 0:
            report.corrupt(header.where(name), f"no zero byte within its {size} bytes")
        elif length > 255:
            report.limit(header.where(name), f"{length} bytes, more than 255")
    if header.slot[24] and not header.has_data_device:
        report.corrupt(header.where("data_file"), "not empty, but the data area is on this device")


def _check_reserved(header: Header, report: Report) -> None:
    """§3.3, rule 15, and `pad` of §3.1 (by the stricter reading: no text says that a reader refuses it)."""
    for name in ("pad", *LATER):
        if getattr(header, name):
            report.corrupt(header.where(name), f"{getattr(header, name):#x} where zero is due")
    if header.ext_len % 8 or not 216 <= header.ext_len <= 768:
        report.corrupt(header.where("ext_len"), f"{header.ext_len}: not a multiple of 8 from 216 to 768")
        return
    known_zero = EXT_AT + header.ext_len if header.ro_compatible or header.autoclear else RESERVED_AT
    for at in range(known_zero, 4092):
        if header.slot[at]:
            report.corrupt(f"header slot {header.number}, byte {header.number * 4096 + at} (reserved)", "not zero")
            break


def _check_sizes(header: Header, wrong: Wrong) -> None:
    """Rules 2, 3, 5 and 6."""
    for name in ("virtual_disk_size", "base_img_size"):
        if getattr(header, name) % 512 or getattr(header, name) >= SIGNED:
            wrong(name, "not a multiple of 512 below 2^63")
    block, chunk = header.block_size, header.chunk_size
    if not is_power(block) or block < 512:
        wrong("block_size", "not a power of two from 512 on")
    if not is_power(chunk) or not block <= chunk <= min(16 * block, TWO_GIB):
        wrong("chunk_size", "not a power of two from block_size to 16 blocks and 2 GiB")
    elif header.storage_grow_unit % chunk:
        wrong("storage_grow_unit", "not a multiple of chunk_size")
    if header.storage_grow_unit >= SIGNED:
        wrong("storage_grow_unit", "not below 2^63")


def _check_numbers(header: Header, wrong: Wrong) -> None:
    """Rules 1, 10, 11, and 13 as far as it stands alone."""
    if header.generation == (1 << 64) - 1:
        wrong("generation", "the last number, which none may have")
    if not is_power(header.atomic_unit) or not 512 <= header.atomic_unit <= 4096:
        wrong("atomic_unit", "not a power of two from 512 to 4096")
    if header.stable_journal_epoch >= SIGNED:
        wrong("stable_journal_epoch", "not below 2^63")
    if header.data_offset % PAGE or header.data_offset >= SIGNED:
        wrong("data_offset", "not a multiple of 4096 below 2^63")


def _check_region_sizes(header: Header, wrong: Wrong) -> None:
    """Rule 8."""
    table = max(round_up(4 * header.chunks, PAGE), PAGE)
    if header.table_size not in (0, table):
        wrong("table_size", f"neither 0 nor {table}")
    bitmap = max(round_up(-(-header.base_blocks // 8), PAGE), PAGE)
    if header.bitmap_size not in (0, bitmap):
        wrong("bitmap_size", f"neither 0 nor {bitmap}")
    if header.needs_base and not header.bitmap_size:
        wrong("bitmap_size", "0, but there is a base that is not fully prefetched")
    if header.bitmap_size and not header.has_base:
        wrong("bitmap_size", "not 0, but there is no base")


def _check_checksum_fields(header: Header, wrong: Wrong) -> None:
    """Rule 9."""
    if not header.has_checksums:
        for name in ("checksum_active", "checksum_a_offset", "checksum_b_offset", "checksum_size"):
            if getattr(header, name):
                wrong(name, "not 0, but there are no page checksums")
        return
    pages = (header.table_size + header.bitmap_size) // PAGE
    if not pages:
        wrong("incompatible", "page checksums without a page")
    elif header.checksum_size != round_up(4 * pages, PAGE):
        wrong("checksum_size", f"not {round_up(4 * pages, PAGE)} for {pages} pages")
    if header.checksum_active > 1:
        wrong("checksum_active", "neither 0 nor 1")


def _check_journal_size(header: Header, wrong: Wrong) -> None:
    """Rule 12."""
    if header.journal_size == 0:
        if header.table_size or header.needs_base:
            wrong("journal_size", "0, but there is a table, or a base that is not fully prefetched")
    elif header.journal_size % header.atomic_unit or header.units < 4:
        wrong("journal_size", "not a multiple of atomic_unit from four units on")


def _check_store(header: Header, wrong: Wrong) -> None:
    """Rules 13 and 14."""
    least = header.data_offset if header.table_size else header.data_offset + header.virtual_disk_size
    if not least <= header.store_bytes < SIGNED:
        wrong("store_bytes", f"not from {least} to below 2^63")
    elif header.zero_floor_chunk > header.store_chunks(header.store_bytes):
        wrong("zero_floor_chunk", f"above the {header.store_chunks(header.store_bytes)} chunks of the store")


def check_places(header: Header, metadata_size: int, report: Report) -> None:
    """§2: regions and data area, on a metadata device of this size."""
    regions = []
    for name, offset_name, size_name in (
        ("table", "table_offset", "table_size"),
        ("bitmap", "bitmap_offset", "bitmap_size"),
        ("checksums A", "checksum_a_offset", "checksum_size"),
        ("checksums B", "checksum_b_offset", "checksum_size"),
        ("journal", "journal_offset", "journal_size"),
    ):
        offset, size = getattr(header, offset_name), getattr(header, size_name)
        if (offset, size) == (0, 0):
            continue
        where = header.where(offset_name)
        if size == 0:  # the stricter reading: only {0, 0} is said to mean that there is none
            report.corrupt(where, f"{offset}, but its size is 0")
        elif offset % PAGE or offset < 2 * PAGE:
            report.corrupt(where, f"{offset}: not a multiple of 4096 from 8192 on")
        elif offset + size > metadata_size:
            report.corrupt(where, f"{name} ends at {offset + size}, past the device, which ends at {metadata_size}")
        else:
            regions.append((offset, offset + size, name, where))
    regions.sort()
    for before, after in zip(regions, regions[1:]):
        if after[0] < before[1]:
            report.corrupt(after[3], f"{after[2]} from {after[0]} overlaps {before[2]}, which ends at {before[1]}")
    if not header.has_data_device:
        _check_data_area(header, regions, report)
    report.refuse_if_any()


def _check_data_area(header: Header, regions: list, report: Report) -> None:
    """§2: a data area on the metadata device."""
    where = header.where("data_offset")
    start = header.data_offset
    if start < 2 * PAGE:
        report.corrupt(where, f"{start}: below 8192")
    stop = 1 << 64 if header.table_size else start + header.virtual_disk_size
    for first, end, name, _ in regions:
        if max(first, start) < min(end, stop):
            report.corrupt(where, f"the data area from {start} overlaps {name}, from {first} to {end}")
