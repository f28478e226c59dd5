//! SPIFFE identities: `spiffe://<trust-domain>/ns/<namespace>/sa/<account>`.
//!
//! Rules: the SPIFFE-ID standard, section 2 (<https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/>),
//! and the path that Istio and Linkerd users know.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a trust domain, such as `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// The SPIFFE standard allows a trust domain name at most this many bytes.
const TRUST_DOMAIN_BYTES: usize = 255;
/// The SPIFFE standard asks implementations to support, and not to exceed, this many bytes.
const SPIFFE_ID_BYTES: usize = 2048;

/// Why a text is not an identity that nodemesh understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no SPIFFE identity of the form spiffe://<trust-domain>/ns/<namespace>/sa/<account>: {reason}"
)]
pub struct InvalidIdentity {
    text: String,
    reason: &'static str,
}

impl InvalidIdentity {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(SPIFFE_ID_BYTES).collect(), reason }
    }
}

impl TrustDomain {
    /// What nodemesh uses where nothing else is configured.
    pub const DEFAULT: &'static str = "cluster.local";

    /// The name, without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES {
            return Err(InvalidIdentity::new(text, "the trust domain has 1 to 255 characters"));
        }
        if !text.bytes().all(allowed) {
            return Err(InvalidIdentity::new(
                text,
                "a trust domain holds lower-case letters, digits, dots, dashes and underscores",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a workload: a service account in a namespace of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// The identity of `service_account` in `namespace`.
    ///
    /// # Errors
    /// Where a part is empty or holds a character that a Kubernetes name cannot hold.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidIdentity> {
        for part in [namespace, service_account] {
            if !is_name(part) {
                return Err(InvalidIdentity::new(
                    part,
                    "namespace and account are Kubernetes names: 1 to 253 lower-case letters, digits, dots and dashes",
                ));
            }
        }
        Ok(Self {
            trust_domain,
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain that vouches for this identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > SPIFFE_ID_BYTES {
            return Err(InvalidIdentity::new(text, "it is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| InvalidIdentity::new(text, "the scheme is not spiffe://"))?;
        let mut parts = rest.split('/');
        let trust_domain = parts.next().unwrap_or_default().parse()?;
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Self::new(trust_domain, namespace, account)
            }
            _ => Err(InvalidIdentity::new(text, "the path is not /ns/<namespace>/sa/<account>")),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

/// Whether `text` can be the name of a namespace or of a service account.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 253
        && text.bytes().all(inner)
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_identity_and_says_why() {
        for (text, reason) in [
            ("http://cluster.local/ns/a/sa/b", "scheme"),
            ("spiffe://cluster.local", "path"),
            ("spiffe://cluster.local/ns/a/sa/b/c", "path"),
            ("spiffe://cluster.local/ns//sa/b", "Kubernetes names"),
            ("spiffe://cluster.local/ns/a/sa/..", "Kubernetes names"),
            ("spiffe:///ns/a/sa/b", "trust domain"),
            ("spiffe://Cluster.Local/ns/a/sa/b", "lower-case"),
            ("spiffe://user@cluster.local/ns/a/sa/b", "lower-case"),
        ] {
            let error = text.parse::<SpiffeId>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(
            domain in "[a-z0-9][a-z0-9._-]{0,30}",
            namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            account in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?",
        ) {
            let text = format!("spiffe://{domain}/ns/{namespace}/sa/{account}");
            prop_assert_eq!(text.parse::<SpiffeId>().expect("well formed").to_string(), text);
        }

        #[test]
        fn never_panics(text in "\\PC{0,64}") {
            let _ = text.parse::<SpiffeId>();
        }
    }
}
