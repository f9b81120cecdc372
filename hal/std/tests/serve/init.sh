#!/bin/busybox sh
# First process of the guest. `job` is on the kernel's command line, `/noise` is what files are made of,
# `/steps` says which. The test reads standard output; the rest is in the log of the first serial port.
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
exec </dev/null >/dev/ttyS1 2>/dev/ttyS0
trap 'poweroff -f' EXIT
set -e

slice() { dd if=/noise bs=64k iflag=skip_bytes,count_bytes skip=$1 count=$2 2>/dev/null; }

# What /steps consists of: NAME, first byte and length in /noise.
put() { slice $2 $3 >$1; }
append() { slice $2 $3 >>$1; }
keep() {
    slice $2 $3 | dd of=$1 bs=64k conv=fsync 2>/dev/null
    echo "kept $1"
}
fill() { while cat /noise 2>/dev/null >>$1; do :; done; }
has() { slice $2 $3 | cmp - $1; }

use() {
    mount -t ext4 -o discard /dev/vda /mnt
    cd /mnt
}
leave() {
    cd /
    umount /mnt
}

# In any order: each of them is tried until those it needs are there.
for round in 1 2 3 4 5 6; do
    for module in /modules/*; do insmod $module 2>/dev/null || :; done
done
[ "$(cat /sys/block/vda/queue/write_cache)" = "write back" ]
[ "$(cat /sys/block/vda/queue/discard_max_bytes)" -gt 0 ]

case $job in
make)
    # Not the one of busybox, which makes no ext4.
    /sbin/mke2fs -q -t ext4 -m 0 /dev/vda
    use
    . /steps
    fstrim /mnt
    leave
    # Once more from the disk.
    echo 3 >/proc/sys/vm/drop_caches
    use
    . /wanted
    leave
    ;;
recover)
    use
    dmesg | grep -q 'vda): recovery complete'
    keep after 0 100000
    leave
    ;;
esac
if dmesg | grep 'I/O error\|EXT4-fs error' >&2; then
    exit 1
fi
echo DONE
