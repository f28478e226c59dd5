//! Values of headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

/// The value of `name`; that of a header that is there more than once is joined with commas, as RFC
/// 9110, section 5.3 has it. `None` where it is missing or no text.
pub(super) fn value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter().map(|value| str::from_utf8(value.as_bytes()));
    let first = values.next()?.ok()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = first.to_owned();
    for value in [second].into_iter().chain(values) {
        joined.push(',');
        joined.push_str(value.ok()?);
    }
    Some(Cow::Owned(joined))
}
