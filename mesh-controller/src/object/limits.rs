//! How long and how many the fields of our own kinds may be, and what their texts look like: the
//! one place for what the schemas of the CRDs say and what reading an object refuses.
//!
//! A schema needs a limit wherever a rule of its own goes through a list, so that an API server can
//! tell beforehand what the rule costs; and an object of etcd's 1.5 MiB is the largest there is.

/// Rules of a policy.
pub const RULES: usize = 256;
/// Bytes of a rule's name, which flows carry.
pub const RULE_NAME: usize = 63;
/// Entries of `from` or of `to` of a rule.
pub const ENTRIES: usize = 64;
/// Values of a field of such an entry.
pub const VALUES: usize = 256;
/// Ports of their own mode in a PeerPolicy.
pub const PORTS: usize = 256;
/// Labels of a selector.
pub const LABELS: usize = 64;
/// Bytes of the value of a label (Kubernetes: "Labels and Selectors").
pub const LABEL_VALUE: usize = 63;
/// Bytes of a namespace: it is a DNS label (RFC 1123).
pub const NAMESPACE: usize = 63;
/// Bytes of the name of most other objects (RFC 1123 subdomain).
pub const NAME: usize = 253;
/// Bytes of `namespace/name`.
pub const NAMESPACED_NAME: usize = NAMESPACE + 1 + NAME;
/// Bytes of a SPIFFE ID of ours: `spiffe://`, `/ns/` and `/sa/` around a trust domain of 255 bytes
/// and two names of 253.
pub const PRINCIPAL: usize = 9 + 255 + 4 + 253 + 4 + 253;
/// Bytes of a block of addresses: the longest IPv6 address and its prefix.
pub const IP_BLOCK: usize = 39 + 4;

/// The value of a label: empty, or letters, digits, dashes, dots and underscores between two
/// letters or digits.
pub const LABEL_VALUE_PATTERN: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A namespace.
pub const NAMESPACE_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A name.
pub const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `namespace/name`.
pub const NAMESPACED_NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// What can be an address, with or without a prefix; the rest takes arithmetic.
pub const IP_BLOCK_PATTERN: &str = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$";

/// A SPIFFE ID, or a pattern of identities: what `Principal` of mesh-common reads, with or without
/// the scheme where there is a trust domain.
pub fn principal_pattern() -> String {
    let name = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?";
    let domain = "[-a-z0-9._]{1,255}";
    format!(
        r"^(\*|\*/sa/{name}|\*/ns/{name}/sa/{name}|(spiffe://)?{domain}/(\*|ns/\*|ns/{name}/(\*|sa/\*|sa/{name})))$"
    )
}
