//! What of a report is secret, and is taken out of it: pure.

use serde_json::Value;

/// What stands where something was.
pub const REMOVED: &str = "(removed)";
/// What comes after one of these is a secret: in flags, in `name=value`, as the name of a field.
const NAMES: [&str; 7] = ["token", "password", "passwd", "secret", "api-key", "api_key", "apikey"];

/// Without anything that is secret, or that people put in for machines alone.
pub fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) => {
            lines(text.split('\n').map(str::to_owned).collect()).join("\n").into()
        }
        Value::Array(list) if list.iter().all(Value::is_string) && !list.is_empty() => {
            let texts = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            lines(texts).into_iter().map(Value::from).collect()
        }
        Value::Array(list) => list.into_iter().map(redacted).collect(),
        Value::Object(map) => {
            let entries = map.into_iter().filter_map(|(key, value)| match (key.as_str(), value) {
                ("managedFields" | "annotations", _) => None,
                ("env", value) => Some((key, without_values(value))),
                (name, Value::String(_)) if is_name(name) => Some((key, REMOVED.into())),
                (_, value) => Some((key, redacted(value))),
            });
            Value::Object(entries.collect())
        }
        value => value,
    }
}

/// Names of variables, without what they are set to.
fn without_values(variables: Value) -> Value {
    let Value::Array(list) = variables else { return REMOVED.into() };
    list.into_iter()
        .map(|mut variable| {
            if let Some(value) = variable.get_mut("value") {
                *value = REMOVED.into();
            }
            variable
        })
        .collect()
}

/// Texts that belong together, such as the lines of a log or the words of a command: what is in
/// PEM, however it is cut into lines, and whatever else is secret, is taken out.
fn lines(texts: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut is_in_pem = false;
    let mut is_value = false;
    for text in texts {
        let (begins, ends) = (text.contains("-----BEGIN "), text.contains("-----END "));
        if ends && !is_in_pem && !begins {
            // A log is cut off at its beginning, a key in it too.
            while kept.last().is_some_and(|line| is_base64(line)) {
                kept.pop();
            }
        }
        let is_secret = begins || ends || is_in_pem || is_value || is_secret(&text);
        is_in_pem = (is_in_pem || begins) && !ends;
        is_value = text.strip_prefix("--").is_some_and(is_name);
        match is_secret {
            // One note is enough for what has many lines.
            true if kept.last().is_some_and(|it| it == REMOVED) => {}
            true => kept.push(REMOVED.to_owned()),
            false => kept.push(text),
        }
    }
    kept
}

/// Tokens, of which those of JSON begin with `{"` in base64; passwords; what a header or an address
/// carries of either.
fn is_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.contains("PRIVATE KEY")
        || text.contains("eyJ")
        || lower.contains("bearer ")
        || lower.match_indices("basic ").any(|(at, scheme)| {
            let rest = text.get(at + scheme.len()..).unwrap_or_default();
            let word = rest.split_whitespace().next().unwrap_or_default();
            // A word of prose has neither.
            let is_encoded = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '=';
            lower.contains("authorization") || word.chars().skip(1).any(is_encoded)
        })
        || lower.split('=').rev().skip(1).any(|name| {
            let last = name.rsplit(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).next();
            last.is_some_and(is_name)
        })
        || lower.split("://").skip(1).any(|rest| {
            let authority = rest.split(['/', ' ', '"']).next().unwrap_or_default();
            authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
        })
}

/// Whether what is called so is a secret: `token` and `--join-token` are, `--join-token-file` not.
fn is_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    NAMES.iter().any(|it| lower.ends_with(it))
}

fn is_base64(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/=".contains(&c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_secret_is_left() {
        let report = json!({
            "pods": [{
                "metadata": { "name": "a", "annotations": { "password": "hunter2" } },
                "spec": { "containers": [{
                    "env": [
                        { "name": "PASSWORD", "value": "hunter2" },
                        { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "s" } } },
                    ],
                    "args": [
                        "--token=hunter2", "--password", "hunter2", "--join-token-file=/kept/token",
                    ],
                }] },
            }],
            "log of a": [
                "-----BEGIN PRIVATE KEY-----", "hunter2BODY", "-----END PRIVATE KEY-----",
                "Authorization: Bearer hunter2", "Authorization: Basic hunter2",
                "GET https://user:hunter2@registry.example/", "password=hunter2", "starts",
            ],
            "text": "first\n-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\nlast",
            "token": "hunter2",
            "jwt": "is eyJhbGciOiJSUzI1NiJ9.e30.x",
        });
        let text = redacted(report).to_string();
        for secret in ["hunter2", "eyJ", "BEGIN", "END"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        let kept = ["PASSWORD", "secretKeyRef", "starts", "\"name\":\"a\"", "first", "last"];
        for kept in kept.into_iter().chain(["--join-token-file=/kept/token"]) {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn a_key_that_is_cut_off_leaks_neither_end() {
        let cut = |texts: &[&str]| lines(texts.iter().map(|&it| it.to_owned()).collect());
        let begun = cut(&["AAAA", "BBBB=", "-----END PRIVATE KEY-----", "then"]);
        assert_eq!(begun, [REMOVED, "then"]);
        assert_eq!(cut(&["first", "-----BEGIN PRIVATE KEY-----", "AAAA"]), ["first", REMOVED]);
        let one = r"key=-----BEGIN X-----\nAAAA\n-----END X-----";
        assert_eq!(cut(&[one, "then"]), [REMOVED, "then"]);
    }

    #[test]
    fn plain_words_stay() {
        for text in
            ["a basic check", "the token is not renewed", "secrets: 1", "a=b", "https://a.b/c@d:e"]
        {
            assert!(!is_secret(text), "{text}");
        }
    }
}
