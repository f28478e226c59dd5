//! Whether the API server is new enough: pure.

use serde_json::Value;

use crate::checklist::Checklist;

/// The first with `securityContext.appArmorProfile`, which the agents' manifest has: an older one
/// refuses to apply a field that it does not know.
const NEEDED: (u32, u32) = (1, 30);

/// Judges what `/version` says.
pub(super) fn check(version: &Value, list: &mut Checklist) {
    let shown = version["gitVersion"].as_str().unwrap_or("of an unknown version");
    let (major, minor) = NEEDED;
    match release(version) {
        Some(release) if release >= NEEDED => list.good(format!("is new enough: {shown}")),
        Some(_) => list.bad(
            format!("is too old: {shown}"),
            format!(
                "Kubernetes {major}.{minor} is needed: an older one does not know the agents' \
                 appArmorProfile and refuses their DaemonSet"
            ),
        ),
        None => list.warning(
            format!("is {shown}"),
            format!("Kubernetes {major}.{minor} is needed; look whether it is"),
        ),
    }
}

/// Some providers write a `+` after the minor version.
fn release(version: &Value) -> Option<(u32, u32)> {
    let number = |field: &str| version[field].as_str()?.trim_end_matches('+').parse().ok();
    Some((number("major")?, number("minor")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checklist::Outcome;

    #[test]
    fn old_servers_are_named() {
        for (major, minor, outcome) in [
            ("1", "30", None),
            ("1", "36+", None),
            ("1", "29", Some(Outcome::Bad)),
            ("1", "29+", Some(Outcome::Bad)),
            ("1", "", Some(Outcome::Warning)),
        ] {
            let mut list = Checklist::default();
            let version = json!({ "major": major, "minor": minor, "gitVersion": "v" });
            check(&version, &mut list);
            assert_eq!(list.complaints().first().map(|it| it.0), outcome, "{major}.{minor}");
        }
    }
}
