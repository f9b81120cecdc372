"""The journal: units, records, and the run that recovery replays (§7)."""

import struct
from dataclasses import dataclass

from .crc32c import crc32c
from .header import Header
from .report import Report
from .source import Source

TRAILER = 32
UNIT_MAGIC = b"FVDJ"
MAP = 1
STORE = 2
HAS_ENTRY = 1
HAS_BITS = 2


@dataclass
class MapRecord:
    """§7.3, kind 1."""

    where: str
    flags: int
    bits: int
    chunk: int
    entry: int


@dataclass
class StoreRecord:
    """§7.3, kind 2."""

    where: str
    floor: int
    store_bytes: int


@dataclass
class Unit:
    """A unit that counts (§7.2)."""

    slot: int
    at: int
    seq: int
    stable_seq: int
    used: int
    flags: int
    records: bytes

    @property
    def where(self) -> str:
        return f"journal slot {self.slot}, byte {self.at} (unit {self.seq})"

    @property
    def is_last(self) -> bool:
        return bool(self.flags & 1)

    @property
    def earlier_known_durable(self) -> bool:
        """Bit 1 clear: every earlier commit was known durable when this unit was submitted."""
        return not self.flags & 2

    @property
    def index(self) -> int:
        return self.flags >> 2


def read_units(source: Source, header: Header) -> list[Unit]:
    """All units that count, by slot. Any other was never written, and is no error (§7.2)."""
    units = []
    size = header.atomic_unit
    journal = source.read(header.journal_offset, header.journal_size)
    for slot in range(header.units):
        unit = journal[slot * size : (slot + 1) * size]
        trailer = unit[-TRAILER:]
        end, magic, seq, stable_seq, used, flags, crc = struct.unpack("<I4sQQHHI", trailer)
        if end or magic != UNIT_MAGIC or used > size - TRAILER or seq >= 1 << 63 or seq % header.units != slot:
            continue
        if crc32c(header.image_id, unit[:used], trailer[:28]) == crc:
            at = header.journal_offset + slot * size
            units.append(Unit(slot, at, seq, stable_seq, used, flags, unit[:used]))
    return units


def parse(unit: Unit, report: Report) -> list[MapRecord | StoreRecord]:
    """Records of a unit, with the rules of §7.3 that need no header."""
    records: list[MapRecord | StoreRecord] = []
    at = 0
    while at < unit.used:
        where = f"{unit.where}, record {len(records)} at byte {unit.at + at}"
        kind = unit.records[at]
        length = {MAP: 12, STORE: 16}.get(kind)
        if length is None:
            report.corrupt(where, f"unknown kind {kind}")
            break
        if at + length > unit.used:
            report.corrupt(where, f"cut off: {unit.used - at} of {length} bytes")
            break
        if kind == MAP:
            records.append(_map_record(unit.records, at, where, report))
        else:
            records.append(_store_record(unit.records, at, where, report))
        at += length
    return records


def _map_record(records: bytes, at: int, where: str, report: Report) -> MapRecord:
    record = MapRecord(where, *struct.unpack_from("<BHII", records, at + 1))
    if record.flags & ~(HAS_ENTRY | HAS_BITS) or not record.flags:
        report.corrupt(where, f"flags {record.flags:#x}")
    if record.bits and not record.flags & HAS_BITS:
        report.corrupt(where, f"bits {record.bits:#x} in a record without bits")
    if record.entry and not record.flags & HAS_ENTRY:
        report.corrupt(where, f"entry {record.entry:#x} in a record without entry")
    return record


def _store_record(records: bytes, at: int, where: str, report: Report) -> StoreRecord:
    zero_byte, zero_word, floor, store_bytes = struct.unpack_from("<BHIQ", records, at + 1)
    if zero_byte or zero_word:
        report.corrupt(where, "bytes 1 to 3 are not zero")
    return StoreRecord(where, floor, store_bytes)


def commit_most(header: Header) -> int:
    """Units that a commit has at most (§7.4)."""
    return min(header.units // 2, 65536 // header.atomic_unit)


def check_units(header: Header, units: list[Unit], report: Report) -> None:
    """What holds for each unit that counts, replayed or not: the rules for its trailer (§7.2). Those for its records
    are for replayed ones only."""
    for unit in units:
        if unit.index >= commit_most(header):
            report.corrupt(unit.where, f"index {unit.index}: a commit has at most {commit_most(header)} units")
        if unit.index > unit.seq:
            report.corrupt(unit.where, f"index {unit.index} is above its seq")
        if unit.stable_seq > header.stable_journal_epoch:  # §7.5, 2
            stable = header.stable_journal_epoch
            report.corrupt(unit.where, f"stable_seq {unit.stable_seq} above the header's {stable}: a slot was lost")


def run(header: Header, units: list[Unit], report: Report) -> list[Unit]:
    """Units of complete commits from stable_seq to the gap (§7.5, 3 and 4)."""
    by_seq = {unit.seq: unit for unit in units}
    gap = header.stable_journal_epoch
    taken: list[Unit] = []
    place = complete = 0
    while len(taken) < header.units and gap in by_seq:
        unit = by_seq[gap]
        if unit.index != place:
            report.corrupt(unit.where, f"index {unit.index}, but it is unit {place} of its commit")
        taken.append(unit)
        place = 0 if unit.is_last else place + 1
        complete = len(taken) if unit.is_last else complete
        gap += 1
    for unit in units:
        if unit.seq > gap and unit.earlier_known_durable and unit.seq - unit.index > gap:
            report.corrupt(unit.where, f"unit {gap} is missing, though it was durable before this one was written")
    if taken[complete:]:
        first, last = taken[complete].seq, taken[-1].seq
        report.note(f"journal units {first} to {last}", "a commit without its last unit, dropped")
    return taken[:complete]


def read(source: Source, header: Header, report: Report) -> list[Unit]:
    """Checks the journal. The units to replay, in order."""
    if not header.journal_size:
        return []
    units = read_units(source, header)
    check_units(header, units, report)
    replay = run(header, units, report)
    burnt = max([header.stable_journal_epoch, *(unit.seq + 1 for unit in units)]) + header.units
    if burnt >= 1 << 63:  # §7.5, 7
        report.corrupt(header.where("stable_journal_epoch"), f"recovery would go on at {burnt}, not below 2^63")
    if replay:
        report.note(f"journal units {replay[0].seq} to {replay[-1].seq}", "replayed in memory")
    report.refuse_if_any()
    return replay
