//! Query parameters.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The value of the first parameter called `name`, decoded.
pub(super) fn first<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    query?.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// As HTML forms encode it: `+` is a space. What is no UTF-8 becomes U+FFFD, which nobody writes.
fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_counts() {
        let first = |query: &'static str, name| first(Some(query), name).map(Cow::into_owned);
        assert_eq!(first("a=1&b=2&a=3", "a").as_deref(), Some("1"));
        assert_eq!(first("a=1&b=2", "b").as_deref(), Some("2"));
        assert_eq!(first("a&b", "b").as_deref(), Some(""));
        assert_eq!(first("a=b=c", "a").as_deref(), Some("b=c"));
        assert_eq!(first("%61=x%20y+z%2B", "a").as_deref(), Some("x y z+"));
        assert_eq!(first("A=1", "a"), None);
        assert_eq!(super::first(None, "a"), None);
    }
}
