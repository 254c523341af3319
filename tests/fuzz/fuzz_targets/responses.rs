//! Any bytes as a stream of the Openai driver: no panic, and one reading whatever the pieces.
#![no_main]

use kheish_daemon::providers::{Driver, StreamReader};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], piece: usize) -> Result<String, String> {
    let mut reader = StreamReader::new(Driver::Openai, "5eed");
    for piece in bytes.chunks(piece) {
        match reader.push(piece, &mut |_| {}) {
            Ok(None) => {}
            Ok(Some(outcome)) => return Ok(format!("{outcome:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    reader.end(true).map(|outcome| format!("{outcome:?}")).map_err(|error| error.to_string())
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(read(bytes, usize::MAX), read(bytes, 7));
});
