//! Text on the first serial port (COM1, an 8250-compatible UART), and the `print!` and `println!`
//! macros.
//!
//! There is no lock: one CPU, no interrupts, and a panic or an exception in the middle of a line
//! must still be able to print.

use super::port;
use core::fmt::{self, Write};

const COM1: u16 = 0x3f8;
const DATA: u16 = COM1;
const DIVISOR_LOW: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const DIVISOR_HIGH: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;

/// Line control: the first two registers are the baud rate divisor.
const DIVISOR_ACCESS: u8 = 0x80;
/// Line control: eight data bits, no parity, one stop bit.
const EIGHT_N_ONE: u8 = 0x03;
/// Line status: the transmitter takes another byte.
const TRANSMIT_EMPTY: u8 = 0x20;

/// Sets COM1 to 115,200 baud, 8N1, FIFOs on, no interrupts.
pub(crate) fn init() {
    let setup = [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_ACCESS),
        (DIVISOR_LOW, 1),
        (DIVISOR_HIGH, 0),
        (LINE_CONTROL, EIGHT_N_ONE),
        (FIFO_CONTROL, 0x07),
    ];
    for (register, value) in setup {
        // SAFETY: a UART does no DMA, and these ports have belonged to COM1 since the first PC.
        unsafe { port::write_u8(register, value) };
    }
}

fn write_byte(byte: u8) {
    loop {
        // SAFETY: reading the line status clears error flags that nothing here looks at.
        let status = unsafe { port::read_u8(LINE_STATUS) };
        if status & TRANSMIT_EMPTY != 0 {
            break;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the byte goes out on the line; no memory is involved.
    unsafe { port::write_u8(DATA, byte) };
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // Terminals want a carriage return too, or the next line starts below the end of this
            // one.
            if byte == b'\n' {
                write_byte(b'\r');
            }
            write_byte(byte);
        }
        Ok(())
    }
}

/// Prints the text of the `print!` macros.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    // `Serial` never fails; an error can only come from a `Display` implementation, and there is
    // nobody to tell.
    let _ = Serial.write_fmt(text);
}

macro_rules! print {
    ($($text:tt)*) => { $crate::arch::serial::print(format_args!($($text)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => { print!("{}\n", format_args!($($text)*)) };
}
