"""The command line, and the order of the checks (§13)."""

import argparse
import json
import sys

from . import batch, journal, rules
from .header import choose
from .mapping import Mapping
from .report import CLEAN, COULD_NOT_CHECK, Refused, Report
from .source import Source
from .tables import Tables

WRONG_USAGE = 64


class Parser(argparse.ArgumentParser):
    """Wrong usage has an exit code of its own, since 2 means corrupt."""

    def error(self, message: str) -> None:
        self.print_usage(sys.stderr)
        self.exit(WRONG_USAGE, f"{self.prog}: {message}\n")


def check(source: Source, data: Source | None, report: Report) -> Tables:
    """Checks everything in an order in which each step uses only what the ones before have found sane. Raises
    `Refused` if the image is."""
    header = choose(source, report)
    rules.check_features(header, report)
    rules.check_fields(header, report)
    rules.check_places(header, source.size, report)
    units = journal.read(source, header, report)
    tables = Tables(source, header, report)
    tables.replay(units)
    tables.check_checksums(source)
    tables.check_table()
    tables.check_bitmap()
    if not header.has_data_device:
        tables.check_store(source.size)
    else:
        tables.check_store(None if data is None else data.size)
    report.refuse_if_any()
    return tables


def say(report: Report, extents: list[dict] | None, options: argparse.Namespace) -> None:
    """One JSON document on standard output with `--json` or `--dump`; findings as text otherwise."""
    if options.json:
        document = report.as_json()
        if options.dump:
            document["map"] = extents
        print(json.dumps(document, indent=2))
    elif options.dump:
        print(report.as_text(), file=sys.stderr)
        print(json.dumps(extents, indent=2))
    else:
        print(report.as_text())


def main() -> int:
    parser = Parser(prog="fvd_check", description="Checks an FVD image of version 2 by its specification alone.")
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="the image; it is only read")
    parser.add_argument("--data-file", metavar="FILE", help="the data area's file, for an image with one of its own")
    parser.add_argument("--base-size", metavar="BYTES", type=int, help="size of the base's device, for --dump")
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.add_argument("--dump", action="store_true", help="the guest's mapping as JSON; null if there is none")
    parser.add_argument("--batch", action="store_true", help="images on standard input instead; see batch.py")
    parser.epilog = "Exit codes: 0 clean, 2 corrupt, 1 could not check, 64 wrong usage. Names in IMAGE stay unopened."
    options = parser.parse_args()
    if options.batch:
        batch.serve(check, sys.stdin.buffer, sys.stdout)
        return CLEAN
    if options.image is None:
        parser.error("no IMAGE")

    report = Report()
    extents = None
    try:
        source = Source(options.image)
        data = Source(options.data_file) if options.data_file else None
        tables = check(source, data, report)
        if options.dump:
            extents = Mapping(tables, options.base_size).walk()
    except Refused:
        pass
    except OSError as error:
        print(f"fvd_check: {error}", file=sys.stderr)
        return COULD_NOT_CHECK
    say(report, extents, options)
    return report.code
