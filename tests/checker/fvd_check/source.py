"""Bytes of a file or a block device, opened for reading only."""

import os


class Source:
    """A device of §2: the metadata device, or that of the data area."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        self.size = size - size % 512  # what is no whole sector does not count (§2)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; an `OSError` if there are fewer."""
        parts = []
        while length:
            part = os.pread(self._descriptor, min(length, 1 << 24), offset)
            if not part:
                raise OSError(f"{self.path}: ends at byte {offset}, {length} more were wanted")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self._descriptor)


class Held(Source):
    """A device whose bytes are in memory."""

    def __init__(self, name: str, content: bytes) -> None:
        self.path = name
        self._content = content
        self.size = len(content) - len(content) % 512

    def read(self, offset: int, length: int) -> bytes:
        part = self._content[offset : offset + length]
        if len(part) < length:
            missing = length - len(part)
            raise OSError(f"{self.path}: ends at byte {offset + len(part)}, {missing} more were wanted")
        return part

    def close(self) -> None:
        self._content = b""
