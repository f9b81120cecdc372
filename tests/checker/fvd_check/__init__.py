"""A second opinion on images of the FVD format, version 2.

Written from `docs/SPEC.md` alone and sharing nothing with the crate `fvd`, so that a mistake would have to be made
twice to go unseen. It reads, never writes, and opens no file but those it is given. Docstrings name the sections of
the specification that they follow.

    python3 tests/checker/fvd_check [--data-file FILE] [--base-size BYTES] [--json] [--dump] IMAGE

| module | what it knows |
|---|---|
| `crc32c` | the checksum (§1.3) |
| `source` | bytes of a file or block device, read only |
| `report` | findings, verdicts and exit codes (§1.1) |
| `header` | fields of a slot, and which slot counts (§3) |
| `rules` | rules for the fields, and for places (§2, §3.5, §3.6, §4) |
| `journal` | units, records, the run that recovery replays (§7) |
| `tables` | pages, checksums, replay in memory, table and bitmap (§5, §6, §8) |
| `mapping` | what a guest reads where (§2) |
| `cli` | the command line |
| `batch` | many images in one process |
"""
