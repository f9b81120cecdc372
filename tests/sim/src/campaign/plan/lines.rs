//! Rows that differ in few words, as tables.

/// What a row is about, its case, its steps ("" for the whole alphabet), and by how many steps it is
/// shorter than others of its kind.
pub(super) type Line = (&'static str, &'static str, &'static str, usize);

/// Disks of two chunks, cheap enough for long sequences. One crash.
pub(super) const FIVE_STEPS: &[Line] = &[
    ("one crash, no base", "g=v8;s=", "", 0),
    ("one crash, base shorter", "g=v8B4;s=", "", 0),
    ("one crash, two devices", "g=v8B4d;s=", "", 0),
    ("one crash, no table", "g=v8t0B4;s=", "", 0),
    ("one crash, eager commits", "g=v8E;s=", "", 0),
    ("one crash, growing file", "g=v8B4g;s=", "", 0),
    ("one crash, base equal", "g=v8B8;s=", "", 0),
    ("one crash, base longer", "g=v8B12;s=", "", 0),
    ("one crash, journal of four", "g=v8B4j4;s=", "", 0),
    ("one crash, device with FUA", "g=v8B4F;s=", "", 0),
    ("one crash, chunk = block", "g=v8b4B4;s=", "", 0),
    ("one crash, discard to zeros", "g=v8zx2;s=", "", 0),
];

/// Three power losses, each inside what follows the one before.
pub(super) const THREE_CRASHES: &[Line] = &[
    ("three crashes", "g=v8B4;s=/w0,f/w4,f", "", 0),
    ("three crashes, no base", "g=v8;s=/w0,f/w4,f", "", 0),
    ("three crashes, two devices", "g=v8B4d;s=/w0,f/w4,f", "", 0),
    ("three crashes, no table", "g=v8t0B4;s=/w0,f/w4,f", "", 0),
];

/// Each kind of disk, a probe after the crash, and a second crash anywhere in recovery or probe. Long
/// ones first, so that no thread is left alone with one at the end.
pub(super) const KINDS: &[Line] = &[
    (
        "used device with secrets, zeroed by writing",
        "g=u;s=/w0,f",
        "",
        1,
    ),
    ("used device, two stores", "g=du;s=/w0,f", "", 1),
    ("used device, base shorter", "g=uB8;s=/w0,f", "", 1),
    ("eager commits", "g=E;s=/w0,f", "", 0),
    ("eager commits, base shorter", "g=B8E;s=/w0,f", "", 0),
    ("eager commits, two devices", "g=B8dE;s=/w0,f", "", 0),
    ("no table, base longer", "g=t0B24;s=/w0,f", "", 0),
    ("growing file, no base", "g=g;s=/w0,f", "", 0),
    ("used device, two stores, base", "g=v8duB4;s=/w0,f", "", 1),
    ("no table, base shorter", "g=t0B8;s=/w0,f", "", 0),
    ("two devices, base shorter", "g=B8d;s=/w0,f", "", 0),
    ("growing file, base shorter", "g=B8g;s=/w0,f", "", 0),
    ("one device, base shorter", "g=B8;s=/w0,f", "", 0),
    ("base equal", "g=B16;s=/w0,f", "", 0),
    ("base longer", "g=B24;s=/w0,f", "", 0),
    ("no base", "g=-;s=/w0,f", "", 0),
    ("two devices, no table, base", "g=t0B8d;s=/w0,f", "", 0),
    ("device with FUA", "g=B8F;s=/w0,f", "", 0),
    ("write-zeroes, discard to zeros", "g=zx2;s=/w0,f", "", 0),
    ("device with vague discard", "g=B8x;s=/w0,f", "", 0),
    ("no volatile cache", "g=B8n;s=/w0,f", "", 0),
    ("chunk = block", "g=b4B8;s=/w0,f", "", 0),
    (
        "chunk = 8 blocks, base ends in one",
        "g=bc8B7;s=/w0,f",
        "",
        0,
    ),
    ("chunk = 16 blocks", "g=v32bc16B8;s=/w0,f", "", 0),
    ("4 KiB physical blocks", "g=a8j4B8;s=/w0,f", "", 0),
    (
        "4 KiB blocks of both kinds",
        "g=v64b8c16B32a8L8;s=/w0+8,f",
        "",
        0,
    ),
    ("sequence numbers pass 2^32", "g=S32B8;s=/w0,f", "", 0),
];

/// Disks that are somewhere in their life already.
pub(super) const PREPARED: &[Line] = &[
    ("journal of two units", "g=j2;s=/w0,f", "", 0),
    (
        "journal nearly full",
        "g=B8j4;p=w0,f,w4,f,w8,f;s=/w0,f",
        "",
        0,
    ),
    (
        "in the middle of a checkpoint",
        "g=B8j4;p=w0,f,w4,f,k1;s=/w0,f",
        "",
        0,
    ),
    (
        "journal come round several times",
        "g=B8;p=w0,f,o,w4,f,o,w8,f,o;s=/w0,f",
        "",
        1,
    ),
    (
        "no table, written before",
        "g=t0B8;p=w0,f,w4,f;s=/w0,f",
        "",
        1,
    ),
    ("every chunk mapped", "g=-;p=w0,w4,w8,w12,f;s=/w0,f", "", 1),
];

/// Units torn, lost, or worse.
pub(super) const TORN: &[Line] = &[
    ("cut inside a unit", "g=-;s=/w0,f;T=1", "w0,w4,f,k,o,x", 0),
    (
        "cut inside a unit, base",
        "g=B8;s=/w0,f;T=1",
        "w0,w1,f,k",
        0,
    ),
    (
        "cut inside a unit, two devices",
        "g=B8d;s=/w0,f;T=1",
        "w0,w4,f,k",
        0,
    ),
    ("unreadable unit", "g=-;s=/w0,f;T=2", "w0,w4,f,k,o,x", 0),
    (
        "unreadable unit, base",
        "g=B8;s=/w0,f;T=2",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "unreadable unit, two devices",
        "g=B8d;s=/w0,f;T=2",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "unreadable unit, no table",
        "g=t0B8;s=/w0,f;T=2",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "unreadable unit, eager commits",
        "g=B8j4E;s=/w0,f;T=2",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "random bytes in a unit",
        "g=B8;s=/w0,f;T=3",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "random bytes in a unit, no table",
        "g=t0B8;s=/w0,f;T=3",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "shorn block of eight sectors",
        "g=v32b8c16a8j4;s=/w1,f;T=4",
        "w0,w17,f,k",
        0,
    ),
    (
        "shorn block, base",
        "g=v32b8c16a8j4B20;s=/w1,f;T=4",
        "w0,w17,f,k",
        0,
    ),
    (
        "shorn block, two devices",
        "g=v32b8c16a8j4B20d;s=/w1,f;T=4",
        "w0,w17,f,k,x",
        0,
    ),
    ("old or new at each read", "g=-;s=/w0,f;T=5", "w0,f,k", 1),
    (
        "old or new at each read, base",
        "g=B8;s=/w0,f;T=5",
        "w0,f,k,x",
        1,
    ),
    (
        "old or new at each read, two devices",
        "g=B8d;s=/;T=5",
        "w0,w4,f,k,x",
        1,
    ),
    (
        "old or new at each read, no table",
        "g=t0B8;s=/w1;T=5",
        "w0,w4,f,x",
        1,
    ),
    (
        "old or new, block of eight sectors",
        "g=v32b8c16a8j4B20;s=/w1;T=5",
        "w0,w17,f,k",
        0,
    ),
];

/// Images of the dialects of 2011, new and as another writer left them unclean: recovery runs in the
/// first session, and power is lost in it.
pub(super) const OF_2011: &[Line] = &[
    ("2011, base shorter", "g=DB8;s=/w0,f", "", 0),
    ("2011, reference", "g=v32c8D2B16;s=/w0,f", "", 1),
    ("2011, reference, no table", "g=D2t0B8;s=/w0,f", "", 0),
    ("2011, two devices", "g=DB8d;s=/w0,f", "", 0),
    ("2011 unclean, base shorter", "g=DB8U;s=/w0,f", "", 0),
    ("2011 unclean, no base", "g=DU;s=/w0,f", "", 0),
    ("2011 unclean, two devices", "g=DB8dU;s=/w0,f", "", 0),
    ("2011 unclean, used device", "g=DuU;s=/w0,f", "", 1),
    ("2011 unclean, reference", "g=v32c8D2B16U;s=/w0,f", "", 1),
    (
        "2011 unclean, reference, no table",
        "g=D2t0B8U;s=/w0,f",
        "",
        0,
    ),
    ("2011 unclean, a bad record", "g=DB8U2;s=/w0,f", "", 0),
    (
        "2011 unclean, reference, a bad record",
        "g=v32c8D2B16U2;s=/w0,f",
        "",
        1,
    ),
    ("2011 unclean, three crashes", "g=DB8U2;s=/w0,f/w4,f", "", 1),
    (
        "2011 unclean, cut inside a unit",
        "g=DB8U2;s=/w0,f;T=1",
        "w0,w4,f,k,o,x",
        0,
    ),
    (
        "2011 unclean, reference, unreadable unit",
        "g=v32c8D2B16U2;s=/w0,f;T=2",
        "w0,w8,f,k,o,x",
        1,
    ),
    (
        "2011 unclean, shorn block of eight sectors",
        "g=v32b8c16a8D2B20U;s=/w1,f;T=4",
        "w0,w17,f,k",
        0,
    ),
    // Only recovery, and what it found: pages of later commits are written once.
    (
        "2011 unclean, old or new at each read",
        "g=DB8U2;s=/w0,f;T=5",
        "w0,w1,f,k,o,x",
        1,
    ),
];
