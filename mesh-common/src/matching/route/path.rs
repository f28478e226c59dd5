//! Paths: prefixes of whole elements, what rewriting makes of them, and gRPC's two parts.

use std::borrow::Cow;

use crate::model::{PathMatch, PathModifier};

/// What is left of `path` behind `prefix`: empty, or with a slash in front. `None` where `path`
/// does not begin with these elements. `prefix` is without a slash at its end.
pub fn after_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The service and the method that a gRPC path names.
pub fn grpc(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!method.contains('/')).then_some((service, method))
}

/// The path that `modifier` makes of `path`, which `by` has matched.
///
/// Slashes are neither lost nor doubled where the parts meet: `/foo` to `/` makes `/bar` of
/// `/foo/bar`, and `/` of `/foo`. A prefix can only be replaced where a prefix was matched; what
/// matched otherwise stays as it is.
pub fn modified<'p>(path: &'p str, modifier: &'p PathModifier, by: &PathMatch) -> Cow<'p, str> {
    let (prefix, replacement) = match (modifier, by) {
        (PathModifier::Full(full), _) => return Cow::Borrowed(full),
        (PathModifier::Prefix(replacement), PathMatch::Prefix(prefix)) => (prefix, replacement),
        (PathModifier::Prefix(_), _) => return Cow::Borrowed(path),
    };
    let Some(rest) = after_prefix(path, prefix) else { return Cow::Borrowed(path) };
    let replacement = match rest {
        "" => &**replacement,
        _ => replacement.trim_end_matches('/'),
    };
    match (replacement, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (replacement, "") => Cow::Borrowed(replacement),
        (replacement, rest) => Cow::Owned([replacement, rest].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_of_whole_elements() {
        assert_eq!(after_prefix("/foo", "/foo"), Some(""));
        assert_eq!(after_prefix("/foo/", "/foo"), Some("/"));
        assert_eq!(after_prefix("/foo/bar", "/foo"), Some("/bar"));
        assert_eq!(after_prefix("/foobar", "/foo"), None);
        assert_eq!(after_prefix("/Foo", "/foo"), None);
        assert_eq!(after_prefix("/any", ""), Some("/any"));
    }

    #[test]
    fn grpc_paths_have_two_parts() {
        assert_eq!(grpc("/pkg.Service/Method"), Some(("pkg.Service", "Method")));
        assert_eq!(grpc("/pkg.Service"), None);
        assert_eq!(grpc("/pkg.Service/Method/more"), None);
    }

    /// The table of HTTPPathModifier.replacePrefixMatch in the Gateway API's reference, and more.
    #[test]
    fn a_replaced_prefix_keeps_its_slashes() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo", "/xyz/", "/xyz/"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz/"),
        ] {
            let by = PathMatch::Prefix(prefix.into());
            let modifier = PathModifier::Prefix(replacement.into());
            assert_eq!(modified(path, &modifier, &by), expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn a_full_path_replaces_any() {
        let modifier = PathModifier::Full("/new".into());
        assert_eq!(modified("/old/x", &modifier, &PathMatch::Exact("/old/x".into())), "/new");
    }
}
