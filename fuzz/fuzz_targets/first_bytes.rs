//! A client's first bytes: which protocol, and which server a ClientHello names. What was decided once
//! is not decided otherwise when more arrives, since how much arrives at once is chance.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_agent::proxy::fuzzing::{LOOKED_AT, server_name, spoken};

fuzz_target!(|bytes: &[u8]| {
    let looked_at = &bytes[..bytes.len().min(LOOKED_AT)];
    let all = spoken(looked_at);
    assert!(all.is_some() || looked_at.len() < LOOKED_AT, "more is never looked at");
    for end in 0..looked_at.len() {
        if let Some(early) = spoken(&looked_at[..end]) {
            assert_eq!(Some(&early), all.as_ref(), "{end} bytes said otherwise");
        }
    }

    let name = server_name(bytes);
    for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
        // A beginning may look good and what follows be none: then no server is named at all.
        if let Some(Some(early)) = server_name(&bytes[..end]) {
            assert_eq!(name, Some(Some(early)), "{end} bytes said otherwise");
        }
    }
});
