//! What a hostile guest sends: frames cut anywhere, and messages in them.
#![no_main]

use goldsmith_agent::frame::Decoder;
use goldsmith_agent::message::{self, ToHost};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::default();
    for part in bytes.chunks(97) {
        decoder.extend(part);
        while let Some(payload) = decoder.next_frame() {
            let _message = message::decode::<ToHost>(&payload);
        }
    }
});
