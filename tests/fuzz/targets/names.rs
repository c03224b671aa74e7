#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| footbridge::fuzz::display_names(data));
