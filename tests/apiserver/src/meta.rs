//! What all objects have: names, times, identifiers, owners.

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{registry::Resource, store::Key};

/// Now, in whole seconds, as Kubernetes writes times.
pub fn now() -> String {
    moment(OffsetDateTime::now_utc())
}

/// A time in whole seconds.
pub fn moment(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

/// A random identifier (UUID, version 4).
pub fn uid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

/// A name from `metadata.generateName`: five characters that spell nothing rude, as upstream.
pub fn generated(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // 63 is the limit of a label; the real server cuts the prefix too.
    let prefix: String = prefix.chars().take(58).collect();
    let suffix = random::<5>().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
    format!("{prefix}{}", String::from_utf8_lossy(&suffix))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes since it booted");
    bytes
}

/// Where an object of `resource` belongs.
pub fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> Key {
    Key {
        resource: resource.storage.clone(),
        namespace: namespace.unwrap_or_default().to_owned(),
        name: name.to_owned(),
    }
}

/// A text of `metadata`, empty where it is absent.
pub fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether the object waits for its finalizers.
pub fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Names of the finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The metadata alone, as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// Removes a field of `metadata`.
pub fn remove(object: &mut Value, field: &str) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove(field);
    }
}

/// Takes a field of `metadata` over from another state of the object, absence included.
pub fn keep(object: &mut Value, from: &Value, field: &str) {
    match from["metadata"].get(field) {
        Some(value) => object["metadata"][field] = value.clone(),
        None => remove(object, field),
    }
}

/// Takes a field at the top over from another state of the object, absence included.
pub fn keep_top(object: &mut Value, from: &Value, field: &str) {
    match (from.get(field), object.as_object_mut()) {
        (Some(value), Some(object)) => {
            object.insert(field.to_owned(), value.clone());
        }
        (None, Some(object)) => {
            object.remove(field);
        }
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_uuids() {
        let (one, other) = (uid(), uid());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
    }

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generated("web-").len(), 9);
        assert_eq!(generated(&"x".repeat(100)).len(), 63);
    }
}
