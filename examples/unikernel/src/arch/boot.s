# From the loader to Rust.
#
# The loader (QEMU's -kernel, Firecracker, Cloud Hypervisor) reads the PVH note and jumps to
# pvh_start in 32-bit protected mode: paging off, interrupts off, flat segments, EBX = address of
# the start information. No memory needs clearing: it loads the ELF segments, which includes zeroing
# .bss.

.section .note.pvh, "a", @note
    .balign 4
    .long 4                     # name size
    .long 8                     # descriptor size
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

.section .text.boot, "ax", @progbits
.code32
.global pvh_start
pvh_start:
    cli
    cld

    mov $page_map, %eax
    mov %eax, %cr3

    # CR4: PAE is required for long mode. OSFXSR and OSXMMEXCPT allow SSE, which compiled code uses
    # to move memory.
    mov %cr4, %eax
    or $((1 << 5) | (1 << 9) | (1 << 10)), %eax
    mov %eax, %cr4

    # EFER.LME: the switch to paging below shall enter long mode.
    mov $0xc0000080, %ecx
    rdmsr
    or $(1 << 8), %eax
    wrmsr

    # CR0: paging on (PG, needs PE); EM off and MP on for SSE; NE, report floating point errors as
    # exceptions. Cache disable and not-write-through off.
    mov %cr0, %eax
    and $~((1 << 2) | (1 << 29) | (1 << 30)), %eax
    or $((1 << 0) | (1 << 1) | (1 << 5) | (1 << 31)), %eax
    mov %eax, %cr0

    lgdt gdt_pointer
    ljmp $0x08, $long_mode

.code64
long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    lea stack_top(%rip), %rsp
    xor %ebp, %ebp              # ends a debugger's backtrace
    mov %ebx, %edi              # first argument; also clears the upper half
    call kernel_main
    ud2                         # kernel_main does not return

# CPU exceptions. Vectors that push no error code get a zero, so that one frame layout serves all
# (see exceptions.rs).
.global exception_stubs
.balign 16
exception_stubs:
.set vector, 0
.rept 32
    .balign 16
    # Bit n: vector n pushes an error code (8, 10-14, 17, 21, 29, 30).
    .if !((0x60227d00 >> vector) & 1)
        push $0
    .endif
    push $vector
    jmp exception_common
    .set vector, vector + 1
.endr

exception_common:
    mov %rsp, %rdi
    and $-16, %rsp              # calls want an aligned stack; what this skips is not needed again
    call exception_handler
    ud2

.section .data.boot, "aw", @progbits
.balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 0x08: 64-bit code
    .quad 0x00cf92000000ffff    # 0x10: data
gdt_pointer:
    .word . - gdt - 1
    .long gdt

# Identity map of 1 TiB, which is all the physical memory that TCG has and where firmware may put
# 64-bit PCI BARs. The first 4 GiB in 2 MiB pages, which every 64-bit CPU has; the rest in 1 GiB
# pages: touching it on a CPU without them is a page fault, but a CPU without them has no device
# there. Caching follows the MTRRs, as on any emulated machine.
#
# Flags: 1 present, 2 writable, 0x80 large page.
.balign 4096
page_map:                       # level 4, 512 GiB an entry
    .quad page_map_low + 3
    .quad page_map_high + 3
    .fill 510, 8, 0
page_map_low:                   # level 3, 1 GiB an entry
    .set gib, 0
    .rept 4
        .quad page_map_2m + (gib << 12) + 3
        .set gib, gib + 1
    .endr
    .rept 508
        .quad (gib << 30) | 0x83
        .set gib, gib + 1
    .endr
page_map_high:
    .rept 512
        .quad (gib << 30) | 0x83
        .set gib, gib + 1
    .endr
page_map_2m:                    # level 2, 2 MiB an entry, four tables
    .set page, 0
    .rept 2048
        .quad (page << 21) | 0x83
        .set page, page + 1
    .endr

.section .bss.stack, "aw", @nobits
.balign 16
.global stack_bottom, stack_top
stack_bottom:
    .skip 1024 * 1024           # unoptimised Rust code is not thrifty with its stack
stack_top:
