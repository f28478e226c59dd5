//! Texts that policies and certificates say who or where with: what is understood is written as it was
//! read, and is what it says.

#![no_main]

use std::{fmt::Display, net::IpAddr, str::FromStr};

use libfuzzer_sys::fuzz_target;
use mesh_common::{
    identity::{SpiffeId, TrustDomain},
    model::{IpBlock, Pattern, Principal},
};

fuzz_target!(|both: &str| {
    let (text, other) = both.split_once('\n').unwrap_or((both, ""));
    // A short error is for people; a long one would be a weapon.
    if let Err(error) = text.parse::<SpiffeId>() {
        assert!(error.to_string().len() <= 4 * text.len() + 512);
    }
    same::<TrustDomain>(text);
    let id = same::<SpiffeId>(text);
    let principal = same::<Principal>(other);
    let block = same::<IpBlock>(other);
    if let Some(id) = &id {
        let own: Principal = text.parse().expect("an identity is a principal");
        assert!(own.matches(id), "{text} is not itself");
        if let Some(principal) = principal {
            assert!(!principal.matches(id) || other.contains('*') || text == other);
        }
    }
    if let (Some(block), Ok(address)) = (block, text.parse::<IpAddr>()) {
        block.contains(address);
    }
    if text.len() <= 64
        && let Ok(pattern) = text.parse::<Pattern>()
    {
        pattern.matches(other);
    }
});

/// What `text` is, if anything; written, that is read as the same.
fn same<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    let written = read.to_string();
    let again = written.parse::<T>().ok();
    assert!(again.as_ref() == Some(&read), "{written:?} of {text:?} is something else");
    Some(read)
}
