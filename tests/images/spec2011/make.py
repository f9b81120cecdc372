#!/usr/bin/env python3
"""Makes images of the written specification of 2011 (`FVD\\0`, version 1).

    make.py [FOLDER]

Written from docs/SPEC.md section 3.1 and docs/DIALECTS.md alone; shares nothing with the crate. For
each image: NAME.tar.xz with `image.fvd`, `base.raw` and `data.dat` as far as they exist, and NAME.json,
which says what is in it, what a guest has to see, and, if it is damaged, what an error has to name. The
same bytes come out wherever this runs.
"""

import io
import json
import lzma
import struct
import sys
import tarfile
from pathlib import Path

sys.dont_write_bytecode = True

from image import (  # noqa: E402
    DIRTY, HEADER, KIB, MIB, NONE, PAGE, SECTOR, TABLE_RECORD, Image, bitmap_record, noise, table_record, up,
)

BOTH = dict(block=16 * KIB, chunk=64 * KIB, base=MIB)


def good_images():
    odd = 3 * MIB + 3 * SECTOR

    yield Image("a1-empty", "table only; nothing mapped; odd size", odd, chunk=64 * KIB)
    yield Image("a2-empty-base", "bitmap only; nothing written", 2 * MIB, block=64 * KIB, base=MIB)
    image = Image("a3-plain", "neither table nor bitmap nor journal", MIB, journal=0)
    yield image.write(0, 4096).write(MIB - 512, 512).write(300 * KIB, 33 * SECTOR)
    image = Image("a4-plain-short", "the same, and the file ends with the metadata", MIB, journal=0)
    image.store = bytearray()
    yield image
    yield Image("a5-no-bytes", "a disk of no bytes", 0, journal=0)

    image = Image("b1-scatter", "table; parts of chunks, in an order of their own", odd, chunk=64 * KIB)
    yield image.write(40 * 64 * KIB, 512).write(3 * SECTOR, 70 * KIB).write(odd - 512, 512)
    image = Image("b2-full", "table; every chunk", MIB, chunk=16 * KIB)
    yield image.write(512 * KIB, 512 * KIB).write(0, 512 * KIB)
    image = Image("b3-odd-chunk", "table; chunks of 9 sectors, a page each cut by others", 999 * 512,
                  chunk=9 * SECTOR)
    yield image.write(100 * SECTOR, 200 * SECTOR).write(3 * SECTOR, 2 * SECTOR)
    image = Image("b4-other-order", "parts in another order, with gaps", 2 * MIB, chunk=32 * KIB,
                  order=("table", "bitmap", "journal"), gap=3 * SECTOR, block=32 * KIB, base=MIB)
    yield image.write(0, 512).write(MIB + 512, 512)
    image = Image("b5-large-table", "a table with more room than entries", 2 * MIB, chunk=64 * KIB,
                  table_size=5 * PAGE)
    yield image.write(MIB, 64 * KIB)
    image = Image("b6-unsaved-bits", "entries with the highest bit set", MIB, chunk=64 * KIB)
    image.write(128 * KIB, 64 * KIB).write(0, 512)
    image.table = [entry if entry == NONE else entry | DIRTY for entry in image.table]
    yield image
    image = Image("b7-no-journal", "table and bitmap, no journal", MIB, chunk=64 * KIB, block=16 * KIB,
                  base=512 * KIB, journal=0)
    yield image.write(32 * KIB, 512).write(700 * KIB, 512)

    image = Image("c1-base", "bitmap only; parts of blocks", 2 * MIB, block=64 * KIB, base=MIB)
    yield image.write(100 * KIB, 512).write(MIB - 512, 1024).write(1500 * KIB, 4096)
    image = Image("c2-odd-blocks", "bitmap only; blocks of 15 sectors; base ends in a block", MIB,
                  block=7680, base=777 * SECTOR)
    yield image.write(16 * SECTOR, 3 * SECTOR).write(770 * SECTOR, 20 * SECTOR)
    image = Image("c3-sector-blocks", "bitmap only; blocks of a sector", MIB, block=512, base=MIB)
    yield image.write(5 * SECTOR, SECTOR).write(600 * KIB, 100 * SECTOR)
    image = Image("c4-long-base", "a base longer than the disk", MIB, block=64 * KIB, base=3 * MIB)
    yield image.write(500 * KIB, 512)

    image = Image("d1-both", "table and bitmap", 2 * MIB, **BOTH)
    yield image.write(40 * KIB, 20 * KIB).write(MIB - 512, 1024).write(1900 * KIB, 512)
    image = Image("d2-block-over-chunk", "blocks larger than chunks", 2 * MIB, block=128 * KIB,
                  chunk=16 * KIB, base=MIB)
    yield image.write(200 * KIB, 512).write(1200 * KIB, 512)
    image = Image("d3-block-across-chunk", "blocks and chunks that do not divide each other", 2 * MIB,
                  block=20 * KIB, chunk=12 * KIB, base=MIB)
    yield image.write(50 * KIB, 512).write(MIB - 20 * KIB, 30 * KIB)
    image = Image("d4-hidden-chunk", "a chunk with clear bits: the base shows", 2 * MIB, **BOTH)
    image.write(128 * KIB, 64 * KIB)
    image.bits = bytearray(len(image.bits))
    yield image.sees(image.base + bytes(MIB))
    image = Image("d5-bits-alone", "bits without an entry: zeros", 2 * MIB, **BOTH)
    image.set_bits(64 * KIB, 96 * KIB)
    yield image.sees(image.base[: 64 * KIB] + bytes(32 * KIB) + image.base[96 * KIB :] + bytes(MIB))
    image = Image("d6-reserved", "reserved and the rest of 8192 bytes full of ones", 2 * MIB, **BOTH)
    yield image.write(0, 512).patch(3316, b"\xff" * (HEADER - 3316))
    image = Image("d7-prefetched", "fully prefetched, clear bits, and a base that nobody needs", 2 * MIB,
                  **BOTH)
    image.write(0, MIB)
    image.bits = bytearray(len(image.bits))
    yield image.set(base_img_fully_prefetched=1)
    image = Image("d8-prefetched-hole", "fully prefetched: what has no chunk is zeros", 2 * MIB, **BOTH)
    image.write(0, 128 * KIB)
    image.set(base_img_fully_prefetched=1)
    yield image.sees(image.disk[: 128 * KIB] + bytes(2 * MIB - 128 * KIB))
    image = Image("d9-trailing-bits", "bits behind the last block", 2 * MIB, block=24 * KIB,
                  chunk=64 * KIB, base=MIB)
    image.write(24 * KIB, 512)
    image.bits[-1] |= 0xFF << -(-MIB // (24 * KIB)) % 8 & 0xFF
    yield image
    image = Image("d10-settings", "copy-on-read, prefetch, a command, zeros wanted", 2 * MIB, **BOTH)
    yield image.write(4096, 4096).set(
        copy_on_read=1, prefetch_start_delay=30, num_prefetch_slots=7, bytes_per_prefetch=4 * MIB,
        prefetch_min_read_throughput=11, prefetch_max_read_throughput=22,
        prefetch_min_write_throughput=33, prefetch_max_write_throughput=44, prefetch_throttle_time=55,
        prefetch_read_throughput_measure_time=66, prefetch_write_throughput_measure_time=77,
        max_outstanding_copy_on_read_data=88, add_storage_cmd=b"builtin:lvextend", need_zero_init=1,
    )

    image = Image("d11-wants-zeros", "bitmap only; bits set for zeros that nobody wrote", MIB, block=64 * KIB,
                  base=MIB)
    image.write(64 * KIB, 512).set_bits(256 * KIB, 512 * KIB)
    yield image.set(need_zero_init=1).sees(
        image.disk[: 256 * KIB] + bytes(256 * KIB) + image.disk[512 * KIB :]
    )
    image = Image("d12-long-names", "names that fill their fields to the last byte", 2 * MIB, **BOTH)
    yield image.write(0, 512).set(
        base_img=b"b" * 1024, base_img_fmt=b"f" * 16, add_storage_cmd=b"c" * 1024
    )

    image = Image("e1-data-file", "table; chunks in a file of their own", MIB, chunk=64 * KIB,
                  data_file=True)
    yield image.write(600 * KIB, 512).write(0, 100 * KIB)
    image = Image("e2-data-file-offset", "table and bitmap; chunks start behind a page of the data file",
                  2 * MIB, data_file=True, data_offset=PAGE, **BOTH)
    yield image.write(30 * KIB, 10 * KIB).write(1100 * KIB, 512)
    image = Image("e3-data-file-raw", "prefetched into a raw data file", MIB, block=64 * KIB, base=MIB,
                  data_file=True)
    yield image.write(0, MIB).set(base_img_fully_prefetched=1)
    image = Image("e4-data-file-base", "bitmap only; blocks in a file of their own", MIB, block=32 * KIB,
                  base=768 * KIB, data_file=True)
    yield image.write(100 * KIB, 512).write(900 * KIB, 512)

    image = Image("f1-closed-journal", "closed: the journal means nothing, whatever it says", 2 * MIB,
                  **BOTH)
    image.write(0, 64 * KIB)
    image.add_sector(table_record(200, 3, [0]) + bitmap_record(0, 4096))
    yield image
    image = Image("f2-table-records", "not closed; table records", 2 * MIB, chunk=32 * KIB)
    yield image.write(64 * KIB, 512).write(MIB, 300 * KIB, to="journal").write(0, 512, to="journal").unclean()
    image = Image("f3-bitmap-records", "not closed; bitmap records", 2 * MIB, block=32 * KIB, base=MIB)
    yield image.write(0, 512).write(200 * KIB, 512, to="journal").write(MIB - 512, 4096, to="journal").unclean()
    image = Image("f4-both-records", "not closed; both records in each sector", 2 * MIB, **BOTH)
    image.write(512, 512).write(100 * KIB, 200 * KIB, to="journal")
    yield image.write(MIB - 512, 1024, to="journal").write(1500 * KIB, 512, to="journal").unclean()
    image = Image("f5-many-sectors", "not closed; a request of several sectors", MIB, block=4 * KIB,
                  chunk=4 * KIB, base=MIB)
    yield image.write(16 * KIB, 900 * KIB, to="journal").unclean()
    image = Image("f6-wrapped", "not closed; a journal that came round: new sectors before old ones",
                  2 * MIB, **BOTH, journal=4 * SECTOR)
    for number in range(6):
        if number == 3:
            # The first four are in place, and what they say is old.
            for chunk, place in image.places.items():
                image.table[chunk] = place
            image.set_bits(0, 3 * 64 * KIB)
            image.set(stable_journal_epoch=image.epoch)
        image.write(number * 64 * KIB, 64 * KIB, to="journal")
    yield image.unclean()
    image = Image("f7-old-records", "not closed; a record below the stable epoch does not count", 2 * MIB,
                  chunk=64 * KIB)
    image.write(64 * KIB, 128 * KIB)
    image.add_sector(table_record(image.epoch - 1, 8, [0]))
    yield image.write(MIB, 512, to="journal").unclean()
    image = Image("f8-empty-journal", "not closed; an empty journal", 2 * MIB, **BOTH)
    yield image.write(512, 512).unclean()
    image = Image("f9-no-journal", "not closed; no journal: what is in place is all", 2 * MIB, **BOTH,
                  journal=0)
    yield image.write(512, 512).unclean()
    image = Image("f10-behind-base", "not closed; bitmap records across and behind the base", 2 * MIB,
                  **BOTH)
    image.write(MIB - 16 * KIB, 64 * KIB, to="journal").write(1800 * KIB, 512, to="journal")
    yield image.unclean()
    image = Image("f11-noise", "not closed; sectors of noise and unknown types between good ones", 2 * MIB,
                  **BOTH)
    image.add_sector(noise("noise", SECTOR))
    image.write(70 * KIB, 512, to="journal")
    image.add_sector(struct.pack("<I", 0x12345678) + table_record(300, 9, [0]))
    yield image.write(400 * KIB, 512, to="journal").unclean()
    image = Image("f12-broken-records", "not closed; records that can not be right, good ones beside them",
                  2 * MIB, **BOTH)
    image.write(300 * KIB, 512, to="journal")
    image.add_sector(struct.pack("<IQII", TABLE_RECORD, 300, 1000, 4) + b"\1" * 100)
    image.add_sector(table_record(301, 31, [7, 8]))
    image.add_sector(table_record(302, 300 // 64, [99]))
    image.add_sector(bitmap_record(-1, 4096))
    yield image.write(600 * KIB, 512, to="journal").unclean()
    image = Image("f13-torn", "not closed; a sector without its end, where the bitmap record was", 2 * MIB, **BOTH)
    image.write(64 * KIB, 1300 * KIB, to="journal")
    tail = 20 + 4 * (up(1300, 64) // 64)
    image.journal[tail : SECTOR] = bytes(SECTOR - tail)
    yield image.sees(image.base + image.disk[MIB:]).unclean()
    image = Image("f14-many-records", "not closed; three records of each kind in one sector", 2 * MIB, **BOTH)
    image.write(0, 512, to="journal").write(256 * KIB, 512, to="journal").write(512 * KIB, 512, to="journal")
    sectors = [bytes(image.journal[at : at + 40]) for at in (0, SECTOR, 2 * SECTOR)]
    image.journal = bytearray(len(image.journal))
    image.add_sector(b"".join(sector[24:] for sector in sectors) + b"".join(sector[:24] for sector in sectors))
    yield image.unclean()
    image = Image("f15-flag-2", "a flag that is neither 0 nor 1 is not \"closed\"", 2 * MIB, **BOTH)
    yield image.write(80 * KIB, 512, to="journal").set(clean_shutdown=2)
    image = Image("f16-natural-layout", "not closed; a record with its epoch at byte 8: no layout of ours",
                  2 * MIB, chunk=64 * KIB)
    image.write(0, 512)
    image.add_sector(struct.pack("<IIQIII", TABLE_RECORD, 0, 200, 1, 5, 1))
    yield image.unclean()
    image = Image("f17-data-file-journal", "not closed; chunks in a file of their own", 2 * MIB, **BOTH,
                  data_file=True)
    yield image.write(20 * KIB, 90 * KIB, to="journal").unclean()


def damaged_images():
    def image(name, note, **more):
        made = Image(name, note, 2 * MIB, **{**BOTH, **more})
        return made.write(100 * KIB, 512).write(1200 * KIB, 512)

    cut = image("m01-cut-header", "7411 bytes")
    cut.cut = 7411
    yield cut.damaged("header slot")
    cut = image("m02-cut-table", "ends in the middle of the table")
    cut.cut = cut.fields["table_offset"] + 100
    yield cut.damaged("_offset")
    cut = image("m03-cut-chunk", "ends in the middle of a chunk that is used")
    cut.cut = len(cut.files()["image.fvd"]) - 512
    yield cut.damaged("table entry")
    yield image("m04-version-3", "a version that does not exist").damaged("version", version=3)
    yield image("m05-odd-size", "a disk of odd size").damaged("virtual_disk_size", virtual_disk_size=MIB + 1)
    yield image("m06-huge-size", "a disk of 2^63 bytes").damaged("virtual_disk_size", virtual_disk_size=1 << 63)
    yield image("m07-block-0", "blocks of no bytes").damaged("block_size", block_size=0)
    yield image("m08-chunk-700", "chunks of 700 bytes").damaged("chunk_size", chunk_size=700)
    yield image("m09-small-table", "a table one entry short").damaged("table_size", table_size=31 * 4)
    yield image("m10-small-bitmap", "a bitmap one byte short").damaged("bitmap_size", bitmap_size=7)
    yield image("m11-journal-511", "a journal of 511 bytes").damaged("journal_size", journal_size=511)
    yield image("m12-journal-huge", "a journal of 2^40 bytes").damaged("journal_size", journal_size=1 << 40)
    yield image("m13-overlap", "the table over the bitmap").damaged("bitmap_offset", table_offset=HEADER)
    yield image("m14-table-in-header", "the table in the header").damaged("table_offset", table_offset=4096)
    yield image("m15-table-wraps", "a table behind 2^64").damaged("table_offset", table_offset=(1 << 64) - 512)
    yield image("m16-data-in-journal", "chunks over the journal").damaged("data start", data_offset=HEADER + 4096)
    yield image("m17-data-odd", "chunks at an odd place").damaged("data start", data_offset=1 * MIB + 7)
    made = image("m18-entry-beyond", "an entry behind the end of the file").damaged("table entry")
    made.table[9] = 1000
    yield made
    made = image("m19-two-owners", "two entries with one chunk").damaged("table entry")
    made.table[9] = 0
    yield made
    made = image("m20-torn-owners", "a record whose second half did not land says \"chunk 0\" twice")
    made.add_sector(table_record(200, 4, [2] + [0] * 20)[:24] + bytes(80))
    yield made.unclean().damaged("table entry")
    made = image("m21-replay-beyond", "a record that names a chunk behind the end of the file")
    made.add_sector(table_record(200, 4, [4000]))
    yield made.unclean().damaged("table entry")
    yield image("m22-short-base", "a base shorter than on record").damaged("the base has", base_img_size=MIB + 512)


def pack(folder, image):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(image.files().items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed = lzma.compress(raw.getvalue(), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=9)
    (folder / f"{image.name}.tar.xz").write_bytes(packed)
    text = json.dumps(image.description(), indent=1)
    (folder / f"{image.name}.json").write_text(text + "\n")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for image in [*good_images(), *damaged_images()]:
        pack(folder, image)


if __name__ == "__main__":
    main()
