"""Pages of table and bitmap: checksums, replay in memory, and what must hold then (§5, §6, §7.5, §8, §9)."""

import struct

from .crc32c import crc32c
from .header import Header
from .journal import HAS_BITS, HAS_ENTRY, MapRecord, StoreRecord, Unit, parse
from .report import Refused, Report
from .rules import PAGE, SIGNED
from .source import Source

UNMAPPED = 0xFFFFFFFF
UNREADABLE = 0xFFFFFFFD
SPLIT_FIRST = 0x80000000
SPLIT_LAST = 0xFFFEFFFF
#: Beyond this the check gives up instead of filling memory: a table for 64 TiB by chunks of 1 MiB.
MEMORY_MOST = 256 << 20

EMPTY_PAGE = b"\xff" * PAGE


def entry_fault(entry: int, chunks: int) -> str | None:
    """Why a table entry breaks §6 in a store of so many chunks."""
    if entry in (UNMAPPED, UNREADABLE) or entry < min(chunks, SPLIT_FIRST):
        return None
    if entry < SPLIT_FIRST:
        return f"store chunk {entry}, but the store has {chunks}"
    if entry <= SPLIT_LAST:
        return f"split record {entry - SPLIT_FIRST}, without that feature"
    return f"{entry:#010x} means nothing"


class Tables:
    """Table, bitmap, store size and floor, as the image has them and then as replay leaves them."""

    def __init__(self, source: Source, header: Header, report: Report) -> None:
        if header.table_size + header.bitmap_size > MEMORY_MOST:
            report.limit("header", f"table and bitmap of more than {MEMORY_MOST} bytes")
            raise Refused
        self.header = header
        self.report = report
        self.table = bytearray(source.read(header.table_offset, header.table_size))
        self.bitmap = bytearray(source.read(header.bitmap_offset, header.bitmap_size))
        self.store_bytes = header.store_bytes
        self.floor = header.zero_floor_chunk
        #: Pages with everything taken back that was replayed into them, by number (§8).
        self.before: dict[int, bytearray] = {}

    @property
    def table_pages(self) -> int:
        return len(self.table) // PAGE

    def entry(self, chunk: int) -> int:
        return struct.unpack_from("<I", self.table, 4 * chunk)[0]

    def in_fvd(self, block: int) -> bool:
        """The bit of a block that has one (§5)."""
        return bool(self.bitmap[block // 8] >> block % 8 & 1)

    def replay(self, units: list[Unit]) -> None:
        """§7.5, 5."""
        for unit in units:
            for record in parse(unit, self.report):
                if isinstance(record, StoreRecord):
                    self._replay_store(record)
                else:
                    self._replay_map(record)
        self.report.refuse_if_any()

    def _replay_store(self, record: StoreRecord) -> None:
        """The maximum of each counts (§7.3)."""
        if not self.header.data_offset <= record.store_bytes < SIGNED:
            self.report.corrupt(record.where, f"store_bytes {record.store_bytes} below data_offset, or not below 2^63")
            return
        chunks = self.header.store_chunks(record.store_bytes)
        if record.floor > chunks:
            self.report.corrupt(record.where, f"floor {record.floor} above the {chunks} chunks of its store")
        self.store_bytes = max(self.store_bytes, record.store_bytes)
        self.floor = max(self.floor, record.floor)

    def _replay_map(self, record: MapRecord) -> None:
        if record.chunk >= self.header.chunks:
            self.report.corrupt(record.where, f"chunk {record.chunk}, but the disk has {self.header.chunks}")
            return
        if record.flags & HAS_ENTRY:
            self._replay_entry(record)
        if record.flags & HAS_BITS:
            self._replay_bits(record)

    def _replay_entry(self, record: MapRecord) -> None:
        if not self.table:
            self.report.corrupt(record.where, "an entry, but there is no table")
            return
        fault = entry_fault(record.entry, self.header.store_chunks(self.store_bytes))
        if fault or record.entry >= SPLIT_FIRST:
            self.report.corrupt(record.where, fault or f"{record.entry:#010x} is no store chunk")
        self._take_back(4 * record.chunk, b"\xff" * 4)
        struct.pack_into("<I", self.table, 4 * record.chunk, record.entry)

    def _replay_bits(self, record: MapRecord) -> None:
        first = record.chunk * self.header.blocks_per_chunk
        held = min(self.header.blocks_per_chunk, self.header.base_blocks - first)
        if not self.bitmap or held <= 0:
            self.report.corrupt(record.where, "bits, but the bitmap holds no block of the chunk")
            return
        if record.bits >> held:
            self.report.corrupt(record.where, f"bits {record.bits:#x} for {held} blocks")
        for bit in range(held):
            byte, mask = (first + bit) // 8, 1 << (first + bit) % 8
            if record.bits >> bit & 1:
                at = len(self.table) + byte
                self._take_back(at, bytes([self._before(at // PAGE)[at % PAGE] & ~mask]))
                self.bitmap[byte] |= mask

    def _before(self, number: int) -> bytearray:
        """Page `number` without what was replayed. Pages are numbered over table and bitmap (§8)."""
        return self.before.setdefault(number, self._page(number))

    def _take_back(self, at: int, old: bytes) -> None:
        """Byte `at`, counted over table and bitmap, was `old` before the journal."""
        self._before(at // PAGE)[at % PAGE : at % PAGE + len(old)] = old

    def _clear_tails(self) -> None:
        """§8: what stands behind the last entry and the last bit counts as it has to be."""
        header = self.header
        for number in range(4 * header.chunks // PAGE, self.table_pages):
            page = self._before(number)
            start = max(4 * header.chunks - number * PAGE, 0)
            page[start:] = b"\xff" * (PAGE - start)
        for byte in range(header.base_blocks // 8, len(self.bitmap)):
            kept = (1 << header.base_blocks % 8) - 1 if byte == header.base_blocks // 8 else 0
            at = len(self.table) + byte
            self._before(at // PAGE)[at % PAGE] &= kept

    def check_checksums(self, source: Source) -> None:
        """§8: each page must match with what was replayed taken back."""
        header = self.header
        if not header.has_checksums:
            return
        offset = header.checksum_b_offset if header.checksum_active else header.checksum_a_offset
        array = source.read(offset, header.checksum_size)
        self._clear_tails()
        pages = self.table_pages + len(self.bitmap) // PAGE
        for number in range(pages):
            stored = struct.unpack_from("<I", array, 4 * number)[0]
            found = crc32c(header.image_id, struct.pack("<I", number), bytes(self._before(number)))
            if stored != found:
                what = f"checksum {found:08x}, but {stored:08x} at byte {offset + 4 * number}"
                self.report.corrupt(self._where_page(number), what)

    def _page(self, number: int) -> bytearray:
        data, number = (self.table, number) if number < self.table_pages else (self.bitmap, number - self.table_pages)
        return data[number * PAGE : (number + 1) * PAGE]

    def _where_page(self, number: int) -> str:
        if number < self.table_pages:
            return f"table page {number}, byte {self.header.table_offset + number * PAGE}"
        number -= self.table_pages
        return f"bitmap page {number}, byte {self.header.bitmap_offset + number * PAGE}"

    def check_table(self) -> None:
        """§6, of the table that replay leaves and against the store that it leaves."""
        store_chunks = self.header.store_chunks(self.store_bytes)
        owners: dict[int, int] = {}
        for start in range(0, len(self.table), PAGE):
            page = self.table[start : start + PAGE]
            if page == EMPTY_PAGE:
                continue
            for number, (entry,) in enumerate(struct.iter_unpack("<I", page), start // 4):
                if entry == UNMAPPED:
                    continue
                where = f"table entry {number}, byte {self.header.table_offset + 4 * number}"
                if number >= self.header.chunks:
                    self.report.corrupt(where, f"{entry:#010x} behind the last chunk of the disk")
                    continue
                fault = entry_fault(entry, store_chunks)
                if fault:
                    self.report.corrupt(where, fault)
                elif entry != UNREADABLE:
                    other = owners.setdefault(entry, number)
                    if other != number:
                        self.report.corrupt(where, f"store chunk {entry}, which chunk {other} has, too")
                    if entry >= self.floor:
                        self.report.corrupt(where, f"store chunk {entry}, at or above the zero floor, {self.floor}")

    def check_bitmap(self) -> None:
        """§5: bits behind the last block are zero."""
        blocks = self.header.base_blocks
        for byte in range(blocks // 8, len(self.bitmap)):
            value = self.bitmap[byte] >> blocks % 8 if byte == blocks // 8 else self.bitmap[byte]
            if value:
                where = f"bitmap byte {byte}, byte {self.header.bitmap_offset + byte}"
                self.report.corrupt(where, f"bits behind the last of {blocks} blocks")
                return

    def check_store(self, data_size: int | None) -> None:
        """§2, §9: a data area's device below the recorded size is damage; more is fine."""
        if data_size is None:
            self.report.note("data area", "its device was not given and is not checked")
        elif data_size < self.store_bytes:
            what = f"the device has {data_size} bytes, {self.store_bytes} are recorded"
            self.report.corrupt(self.header.where("store_bytes"), what)
