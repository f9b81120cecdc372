"""Many images in one process: each comes on standard input, and its report goes to standard output.

An image is a line of JSON, `{"metadata": BYTES, "data": BYTES or null, "base": BYTES or null}`, and then the bytes of the
metadata device and of the data area's device, if it has one of its own. A report is one line of JSON, that of `--json
--dump` with `counts`: what the table and the bitmap add up to.
"""

import json
from typing import BinaryIO, TextIO

from .mapping import Mapping
from .report import Refused, Report
from .source import Held
from .tables import UNMAPPED, UNREADABLE, Tables


def counts(tables: Tables) -> dict:
    """Chunks that have a place, chunks that are lost, and blocks that hide the base."""
    header = tables.header
    entries = [tables.entry(chunk) for chunk in range(header.chunks)] if tables.table else []
    hidden = 0
    if header.needs_base:
        hidden = sum(tables.in_fvd(block) for block in range(header.base_blocks))
    return {
        "mapped": sum(entry not in (UNMAPPED, UNREADABLE) for entry in entries),
        "unreadable": entries.count(UNREADABLE),
        "hidden": hidden,
    }


def look(check, metadata: Held, data: Held | None, base_size: int | None) -> dict:
    """The report on one image."""
    report = Report()
    extents = numbers = None
    try:
        tables = check(metadata, data, report)
        extents = Mapping(tables, base_size).walk()
        numbers = counts(tables)
    except Refused:
        pass
    except OSError as error:
        return {"verdict": "could not check", "errors": [{"where": "device", "what": str(error)}]}
    return {**report.as_json(), "map": extents, "counts": numbers}


def serve(check, source: BinaryIO, answers: TextIO) -> None:
    """Answers until the input ends."""
    for line in iter(source.readline, b""):
        sizes = json.loads(line)
        metadata = Held("metadata", source.read(sizes["metadata"]))
        data = None if sizes["data"] is None else Held("data", source.read(sizes["data"]))
        print(json.dumps(look(check, metadata, data, sizes["base"])), file=answers, flush=True)
