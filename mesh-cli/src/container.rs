//! What a container of a workload was told on its command line: pure.

use serde_json::Value;

use crate::value::list;

/// The flags of `container` and their values, in order, written either way: `--flag=value`, or
/// `--flag value`. A switch has what follows it for a value, if anything does.
pub fn flags(container: &Value) -> Vec<(&str, &str)> {
    let words = ["command", "args"].into_iter().flat_map(|field| list(&container[field]));
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let mut flags = Vec::new();
    for (at, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with("--")) {
        let separate = || words.get(at + 1).map(|value| (*word, *value));
        flags.extend(word.split_once('=').or_else(separate));
    }
    flags
}

/// The value of a flag; the last one, where it is there more than once.
pub fn flag<'c>(container: &'c Value, name: &str) -> Option<&'c str> {
    flags(container).into_iter().rfind(|(flag, _)| *flag == name).map(|(_, value)| value)
}
