#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| footbridge::fuzz::silo_json(data));
