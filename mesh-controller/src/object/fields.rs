//! Checks of single fields that several kinds share.

use std::{fmt, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::NamespacedName;

use super::limits;

/// A field whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `spec.clusterIPs[1]`.
    pub path: String,
    /// Why, and what to do.
    pub reason: String,
}

impl FieldError {
    /// That `path` cannot be used because of `reason`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for FieldError {}

/// The name and the namespace, which is `default` where none is written.
///
/// # Errors
/// Where the name is missing, or either is no Kubernetes name.
pub fn named(metadata: &ObjectMeta) -> Result<NamespacedName, FieldError> {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    if !is_namespace(namespace) {
        return Err(FieldError::new(
            "metadata.namespace",
            format!("`{namespace}` is no namespace: 1 to 63 lower-case letters, digits and dashes"),
        ));
    }
    Ok(NamespacedName::new(namespace, name(metadata)?))
}

/// The name.
pub fn name(metadata: &ObjectMeta) -> Result<&str, FieldError> {
    match metadata.name.as_deref() {
        None | Some("") => {
            Err(FieldError::new("metadata.name", "missing; every object has a name"))
        }
        Some(name) if is_name(name) => Ok(name),
        Some(name) => Err(FieldError::new(
            "metadata.name",
            format!("`{name}` is no name: 1 to 253 lower-case letters, digits, dots and dashes"),
        )),
    }
}

/// An address that a connection can go to.
pub fn address(field: &str, text: &str) -> Result<IpAddr, FieldError> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| FieldError::new(field, format!("`{text}` is neither IPv4 nor IPv6")))?;
    // An IPv4 address in IPv6 clothes would be a second name of the same endpoint.
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(FieldError::new(
            field,
            format!("`{text}` is an unspecified, loopback or multicast address"),
        ));
    }
    Ok(address)
}

/// A port.
pub fn port(field: &str, number: i32) -> Result<u16, FieldError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| FieldError::new(field, format!("{number} is not within 1 to 65535")))
}

/// That a list has no more than `most` entries.
pub fn at_most(field: &str, count: usize, most: usize) -> Result<(), FieldError> {
    if count <= most {
        return Ok(());
    }
    Err(FieldError::new(field, format!("{count} entries, more than {most}; write several objects")))
}

/// Whether a port with this `protocol` is TCP, the default.
pub fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// Whether `text` can be the name of a namespace.
pub fn is_namespace(text: &str) -> bool {
    text.len() <= limits::NAMESPACE && !text.contains('.') && is_name(text)
}

/// Whether `text` is an RFC 1123 subdomain, as names of objects are.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= limits::NAME && text.split('.').all(label)
}
