"""What a guest reads where (§2), as `fvd map --json` says it."""

from .tables import PAGE, EMPTY_PAGE, UNMAPPED, UNREADABLE, Tables


class Extents:
    """Extents in order; neighbours that continue each other are one."""

    def __init__(self) -> None:
        self.list: list[dict] = []

    def add(self, start: int, end: int, state: str, offset: int | None = None) -> None:
        if start >= end:
            return
        if self.list:
            last = self.list[-1]
            next_offset = None if last["offset"] is None else last["offset"] + last["length"]
            if last["state"] == state and next_offset == offset:
                last["length"] += end - start
                return
        self.list.append({"start": start, "length": end - start, "state": state, "offset": offset})


class Mapping:
    """Walks the disk. `base_size` is the size of the base's device, if known; `base_img_size` bounds it, since a byte
    of the disk beyond that was never the base's (the stricter reading of "if the base ends before it")."""

    def __init__(self, tables: Tables, base_size: int | None) -> None:
        self.tables = tables
        self.header = tables.header
        size = self.header.base_img_size
        self.base_end = size if base_size is None else min(size, base_size)
        self.extents = Extents()

    def walk(self) -> list[dict]:
        """Extents of the whole disk."""
        header = self.header
        start = 0
        while start < header.virtual_disk_size:
            end = min(start + self._stride(start), header.virtual_disk_size)
            if header.needs_base and start // header.block_size < header.base_blocks:
                self._blocks(start, end)
            else:
                self._image(start, end)
            start = end
        return self.extents.list

    def _stride(self, start: int) -> int:
        """Bytes to go on: a chunk, or a whole page of unmapped ones, or without a table as much as there is."""
        header = self.header
        if header.needs_base and start // header.block_size < header.base_blocks:
            return header.chunk_size
        if not self.tables.table:
            return header.virtual_disk_size
        at = 4 * (start // header.chunk_size)
        if at % PAGE == 0 and self.tables.table[at : at + PAGE] == EMPTY_PAGE:
            return PAGE // 4 * header.chunk_size
        return header.chunk_size

    def _blocks(self, start: int, end: int) -> None:
        """A chunk that the base reaches into: step 1 of §2 for each block, else steps 2 and 3."""
        size = self.header.block_size
        for first in range(start, end, size):
            last = min(first + size, end)
            block = first // size
            if block < self.header.base_blocks and not self.tables.in_fvd(block):
                edge = min(max(self.base_end, first), last)
                self.extents.add(first, edge, "base", first)
                self.extents.add(edge, last, "zero")
            else:
                self._image(first, last)

    def _image(self, start: int, end: int) -> None:
        """Steps 2 and 3 of §2, for a range within one chunk, or in unmapped ones, or without a table."""
        header = self.header
        if not self.tables.table:
            self.extents.add(start, end, "image", header.data_offset + start)
            return
        entry = self.tables.entry(start // header.chunk_size)
        if entry == UNMAPPED:
            self.extents.add(start, end, "zero")
        elif entry == UNREADABLE:
            self.extents.add(start, end, "unreadable")
        else:
            offset = header.data_offset + entry * header.chunk_size + start % header.chunk_size
            self.extents.add(start, end, "image", offset)
