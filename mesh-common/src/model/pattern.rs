//! Regular expressions as routes write them.

use std::{fmt, str::FromStr, sync::Arc};

use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may get, in bytes: room for alternatives of some hundred words, and
/// none for counted repetitions that were written to fill memory.
const SIZE: usize = 64 * 1024;

/// A regular expression, in the syntax of the `regex` crate, that has to match a whole text.
///
/// Matching takes time in proportion to the text, whatever the pattern: there is no backtracking.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no regular expression: {reason}")]
pub struct InvalidPattern {
    text: String,
    reason: String,
}

impl Pattern {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        // Alone first: within the group, a pattern with a closing bracket too many would be one.
        let regex = Regex::new(text)
            .and_then(|_| RegexBuilder::new(&format!("^(?:{text})$")).size_limit(SIZE).build());
        match regex {
            Ok(regex) => Ok(Self { text: text.into(), regex }),
            Err(error) => {
                // The crate draws the place over several lines; what is wrong is the last.
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ").to_owned();
                Err(InvalidPattern { text: text.into(), reason })
            }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a literal pattern")
    }

    #[test]
    fn the_whole_text_has_to_match() {
        assert!(pattern("/v[0-9]+").matches("/v12"));
        assert!(!pattern("/v[0-9]+").matches("/v12/users"));
        assert!(!pattern("a|b").matches("ab"));
        assert!(!pattern("a").matches("a\n"));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let reason = |text: &str| text.parse::<Pattern>().expect_err("refused").to_string();
        assert_eq!(reason("("), "`(` is no regular expression: unclosed group");
        assert!(reason("a)|(b").contains("unopened group"));
        assert!(reason("(?:.{1000}){1000}").contains("size"), "{}", reason("(?:.{1000}){1000}"));
    }
}
