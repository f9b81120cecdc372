"""An image of the written specification of 2011, its parts, and what a session does to them."""

import hashlib
import struct

SECTOR = 512
KIB = 1024
MIB = 1024 * KIB
PAGE = 4096
HEADER = 8192
NONE = 0xFFFFFFFF
DIRTY = 0x80000000
BITMAP_RECORD = 0x3F2AB8ED
TABLE_RECORD = 0xB4E6F7AC

# name, offset, bytes: a number, or text of that many bytes
FIELDS = {
    "version": (4, 4),
    "virtual_disk_size": (8, 8),
    "data_offset": (16, 8),
    "data_file": (24, 1024),
    "data_file_fmt": (1048, 16),
    "base_img": (1064, 1024),
    "base_img_fmt": (2088, 16),
    "base_img_size": (2104, 8),
    "bitmap_offset": (2112, 8),
    "bitmap_size": (2120, 8),
    "block_size": (2128, 8),
    "table_offset": (2136, 8),
    "table_size": (2144, 8),
    "chunk_size": (2152, 8),
    "storage_grow_unit": (2160, 8),
    "add_storage_cmd": (2168, 1024),
    "journal_offset": (3192, 8),
    "journal_size": (3200, 8),
    "stable_journal_epoch": (3208, 8),
    "clean_shutdown": (3216, 4),
    "copy_on_read": (3220, 4),
    "max_outstanding_copy_on_read_data": (3224, 8),
    "prefetch_start_delay": (3232, 8),
    "base_img_fully_prefetched": (3240, 4),
    "num_prefetch_slots": (3244, 4),
    "bytes_per_prefetch": (3248, 8),
    "prefetch_min_read_throughput": (3256, 8),
    "prefetch_max_read_throughput": (3264, 8),
    "prefetch_min_write_throughput": (3272, 8),
    "prefetch_max_write_throughput": (3280, 8),
    "prefetch_throttle_time": (3288, 8),
    "prefetch_read_throughput_measure_time": (3296, 8),
    "prefetch_write_throughput_measure_time": (3304, 8),
    "need_zero_init": (3312, 4),
}


def up(value, to):
    return -(-value // to) * to


def noise(seed, length):
    """Bytes in which every sector is another, and which pack well."""
    sectors = bytearray()
    for number in range(up(length, SECTOR) // SECTOR):
        sectors += hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4] * (SECTOR // 4)
    return bytes(sectors[:length])


def table_record(epoch, first, entries):
    head = struct.pack("<IQII", TABLE_RECORD, epoch, len(entries), first)
    return head + struct.pack(f"<{len(entries)}I", *entries)


def bitmap_record(first, sectors):
    return struct.pack("<IIq", BITMAP_RECORD, sectors, first)


class Image:
    """An image as its parts; `pack` lays it out. Changes go to `header`, `table`, `bits`, `journal`."""

    def __init__(self, name, note, size, block=None, chunk=None, base=0, journal=8 * KIB,
                 order=("bitmap", "journal", "table"), data_file=None, data_offset=None, gap=0,
                 table_size=None):
        self.name, self.note, self.size = name, note, size
        self.block, self.chunk, self.data_file = block, chunk, data_file
        self.base = noise(f"{name} base", base)
        self.journal = bytearray(journal)
        self.bits = bytearray(up(min(base, size), block) // block + 7 >> 3) if base else bytearray()
        self.table = [NONE] * (up(size, chunk) // chunk) if chunk else []
        self.store = bytearray() if chunk else bytearray(size)
        self.disk = bytearray(size)
        self.disk[: min(base, size)] = self.base[:size]
        self.next, self.epoch, self.sector = 0, 100, 0
        self.places, self.patches, self.changes = {}, [], {}
        self.cut = self.expect = None
        self.fields = dict.fromkeys(FIELDS, 0)
        self.fields.update(
            version=1, virtual_disk_size=size, clean_shutdown=1, storage_grow_unit=max(chunk or 0, MIB),
            prefetch_start_delay=(1 << 64) - 1, num_prefetch_slots=2, bytes_per_prefetch=MIB,
            max_outstanding_copy_on_read_data=2 * MIB, stable_journal_epoch=self.epoch,
        )
        if base:
            self.fields.update(base_img=b"base.raw", base_img_fmt=b"raw", base_img_size=base,
                               block_size=block)
        if chunk:
            self.fields.update(chunk_size=chunk)
        if data_file:
            self.fields.update(data_file=b"data.dat", data_file_fmt=b"raw")
        self.place(order, data_offset, gap, table_size)

    def place(self, order, data_offset, gap, table_size):
        sizes = {
            "bitmap": up(len(self.bits), PAGE),
            "journal": len(self.journal),
            "table": table_size or up(4 * len(self.table), PAGE),
        }
        end = HEADER
        for part in order:
            if sizes[part]:
                end += gap
                self.fields[f"{part}_offset"], self.fields[f"{part}_size"] = end, sizes[part]
                end += sizes[part]
        if data_offset is None:
            data_offset = 0 if self.data_file else end + gap
        self.fields["data_offset"] = data_offset
        self.metadata = end

    # What a session does, and where it notes it: "table" in place, "journal", or "lost".

    def set_bits(self, start, end):
        for block in range(start // self.block, up(end, self.block) // self.block):
            if block < len(self.bits) * 8:
                self.bits[block // 8] |= 1 << block % 8

    def copied_range(self, start, length):
        """The request with the blocks of the base that it cuts, whole."""
        limit = min(len(self.base), self.size)
        if not self.bits:
            return start, start + length
        first = start // self.block * self.block if start < limit else start
        end = start + length
        if end < limit:
            end = min(up(end, self.block), limit)
        return first, end

    def write(self, start, length, to="place", pad=0, order=None):
        """A guest write, and what it makes of table and bitmap: `to` is "place" or "journal"."""
        data = noise(f"{self.name} {start} {length}", length)
        self.disk[start : start + length] = data
        first, end = self.copied_range(start, length)
        if not self.chunk:
            self.put(first, self.disk[first:end])
        else:
            chunks = list(range(first // self.chunk, up(end, self.chunk) // self.chunk))
            for chunk in order or chunks:
                if self.where(chunk) == NONE:
                    self.places[chunk] = self.next
                    self.next += 1
                    self.store += bytes(self.next * self.chunk - len(self.store))
            for chunk in chunks:
                low, high = max(first, chunk * self.chunk), min(end, (chunk + 1) * self.chunk)
                at = self.where(chunk) * self.chunk + low - chunk * self.chunk
                self.put(at, self.disk[low:high])
        if to == "place":
            for chunk in chunks if self.chunk else []:
                self.table[chunk] = self.where(chunk)
            if self.bits:
                self.set_bits(first, min(end, len(self.base)))
        else:
            self.note_in_journal(start, length, chunks if self.chunk else [])
        return self

    def where(self, chunk):
        return self.places.get(chunk, NONE)

    def put(self, at, data):
        self.store[at : at + len(data)] = data

    def note_in_journal(self, start, length, chunks):
        """One sector, as full as it may be, for each 100 chunks."""
        for at in range(0, max(len(chunks), 1), 100):
            records = b""
            part = chunks[at : at + 100]
            if part:
                entries = [self.where(chunk) | DIRTY for chunk in part]
                records += table_record(self.epoch, part[0], entries)
                self.epoch += 1
            if self.bits:
                records += bitmap_record(start // SECTOR, length // SECTOR)
            self.add_sector(records)

    def add_sector(self, records, at=None):
        """Puts records into the next journal sector, round and round."""
        assert len(records) <= SECTOR
        sectors = len(self.journal) // SECTOR
        place = self.sector % sectors if at is None else at
        self.journal[place * SECTOR : place * SECTOR + len(records)] = records
        self.sector = place + 1

    def unclean(self):
        self.fields["clean_shutdown"] = 0
        return self

    def set(self, **fields):
        self.fields.update(fields)
        return self

    # The files.

    def written_fields(self):
        """What stands in the header: damage is done last, so the parts are where they were."""
        return {**self.fields, **self.changes}

    def header(self):
        header = bytearray(HEADER)
        header[:4] = b"FVD\0"
        fields = self.written_fields()
        for name, (offset, length) in FIELDS.items():
            value = fields[name]
            if isinstance(value, bytes):
                assert len(value) <= length
                header[offset : offset + len(value)] = value
            else:
                raw = (value % (1 << 64)).to_bytes(8, "little")
                header[offset : offset + length] = raw[:length] if length <= 8 else bytes(length)
        return header

    def files(self):
        image = bytearray(self.metadata)
        parts = [
            ("bitmap", bytes(self.bits)),
            ("table", struct.pack(f"<{len(self.table)}I", *self.table)),
            ("journal", bytes(self.journal)),
        ]
        for part, content in parts:
            at, size = self.fields[f"{part}_offset"], self.fields[f"{part}_size"]
            if content and size:
                fill = b"\xff" if part == "table" else b"\0"
                image[at : at + size] = content + fill * (size - len(content))
        image[:HEADER] = self.header()
        for at, raw in self.patches:
            image[at : at + len(raw)] = raw
        files = {}
        store = bytes(self.store)
        if self.data_file:
            files["data.dat"] = bytes(self.fields["data_offset"]) + store
        else:
            image += bytes(self.fields["data_offset"] - len(image)) + store
        files["image.fvd"] = bytes(image if self.cut is None else image[: self.cut])
        if self.fields["base_img_size"]:
            files["base.raw"] = self.base
        return files

    def damaged(self, error, **fields):
        """Changes fields afterwards; `error` is what an answer has to name."""
        self.changes, self.expect = fields, error
        return self

    def patch(self, at, raw):
        self.patches.append((at, raw))
        return self

    def sees(self, disk):
        self.disk = bytearray(disk)
        return self

    def description(self):
        fields = self.written_fields()
        show = {
            name: value.decode("latin-1") if isinstance(value, bytes) else value
            for name, value in fields.items()
        }
        for name, (_, length) in FIELDS.items():
            if length >= 16 and show[name] == 0:
                show[name] = ""
        found = {
            "name": self.name,
            "note": self.note,
            "unclean": self.fields["clean_shutdown"] != 1,
            "sha256": hashlib.sha256(self.disk).hexdigest(),
            "files": {name: len(content) for name, content in self.files().items()},
            "header": show,
        }
        if self.expect:
            found["error"] = self.expect
        return found
