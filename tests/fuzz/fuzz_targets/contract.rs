//! Any bytes as a JSON Schema and, behind the first line end, a text that is held to it: no panic, and what was accepted
//! is accepted again, unchanged.
#![no_main]

use kheish_daemon::contract::{accept, canonical, contract_issues};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((schema, text)) = text.split_once('\n') else { return };
    let Ok(schema) = serde_json::from_str(schema) else { return };
    contract_issues(&schema);
    if let Ok(value) = accept(&schema, text) {
        let again = accept(&schema, &canonical(&value)).expect("accepted before");
        assert_eq!(canonical(&again), canonical(&value));
    }
});
