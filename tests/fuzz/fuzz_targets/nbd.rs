#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fvd_fuzz::nbd(input));
