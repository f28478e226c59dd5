//! Identities as policies name them: one, or all that share whole parts.
//!
//! A `*` stands for whole parts at the beginning or at the end, never for a piece of a name:
//! `spiffe://cluster.local/ns/shop*` would also mean the namespace `shop-test`, whoever may create
//! it, and is refused.

use std::{fmt, str::FromStr, sync::Arc};

use crate::identity::{InvalidIdentity, SpiffeId, TrustDomain};

/// Identities that agree in every part that is given.
///
/// Written as a SPIFFE ID, or with a `*` for what is not given:
/// `*` (any identity), `spiffe://td/*`, `spiffe://td/ns/shop/*`, `*/ns/shop/sa/web`, `*/sa/web`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principal {
    trust_domain: Option<TrustDomain>,
    namespace: Option<Arc<str>>,
    service_account: Option<Arc<str>>,
}

/// Why a text names no identities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrincipal {
    /// Without a `*`, and no identity.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// A `*` where it is not understood.
    #[error(
        "`{0}`: a `*` stands for whole parts at one end; understood are `*`, \
         `spiffe://<trust-domain>/*`, `spiffe://<trust-domain>/ns/<namespace>/*`, \
         `*/ns/<namespace>/sa/<account>` and `*/sa/<account>`"
    )]
    Wildcard(String),
}

impl Principal {
    /// The trust domain, where it matters.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// The namespace, where it matters.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The service account, where it matters.
    pub fn service_account(&self) -> Option<&str> {
        self.service_account.as_deref()
    }

    /// Whether it names one identity alone.
    pub fn is_exact(&self) -> bool {
        self.trust_domain.is_some() && self.namespace.is_some() && self.service_account.is_some()
    }

    /// Whether `identity` is one of those named.
    pub fn matches(&self, identity: &SpiffeId) -> bool {
        let same =
            |part: &Option<Arc<str>>, other: &str| part.as_deref().is_none_or(|it| it == other);
        self.trust_domain.as_ref().is_none_or(|domain| domain == identity.trust_domain())
            && same(&self.namespace, identity.namespace())
            && same(&self.service_account, identity.service_account())
    }
}

impl From<SpiffeId> for Principal {
    fn from(identity: SpiffeId) -> Self {
        Self {
            trust_domain: Some(identity.trust_domain().clone()),
            namespace: Some(identity.namespace().into()),
            service_account: Some(identity.service_account().into()),
        }
    }
}

/// Stands in for a name that a text leaves open while the others are checked.
const OPEN: &str = "open";

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains('*') {
            return Ok(text.parse::<SpiffeId>()?.into());
        }
        let wildcard = || InvalidPrincipal::Wildcard(text.chars().take(256).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let (domain, namespace, account) = match parts[..] {
            ["*"] => (None, None, None),
            ["*", "sa", account] => (None, None, Some(account)),
            ["*", "ns", namespace, "sa", account] => (None, Some(namespace), Some(account)),
            ["spiffe:", "", domain, "*"] | ["spiffe:", "", domain, "ns", "*"] => {
                (Some(domain), None, None)
            }
            ["spiffe:", "", domain, "ns", namespace, "*"]
            | ["spiffe:", "", domain, "ns", namespace, "sa", "*"] => {
                (Some(domain), Some(namespace), None)
            }
            _ => return Err(wildcard()),
        };
        let trust_domain: TrustDomain = domain.unwrap_or(OPEN).parse().map_err(|_| wildcard())?;
        let names = (namespace.unwrap_or(OPEN), account.unwrap_or(OPEN));
        SpiffeId::new(trust_domain.clone(), names.0, names.1).map_err(|_| wildcard())?;
        Ok(Self {
            trust_domain: domain.map(|_| trust_domain),
            namespace: namespace.map(Into::into),
            service_account: account.map(Into::into),
        })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.trust_domain, &self.namespace, &self.service_account) {
            (Some(domain), Some(ns), Some(account)) => {
                write!(f, "spiffe://{domain}/ns/{ns}/sa/{account}")
            }
            (Some(domain), Some(ns), None) => write!(f, "spiffe://{domain}/ns/{ns}/*"),
            (Some(domain), None, _) => write!(f, "spiffe://{domain}/*"),
            (None, Some(ns), Some(account)) => write!(f, "*/ns/{ns}/sa/{account}"),
            (None, None, Some(account)) => write!(f, "*/sa/{account}"),
            (None, _, None) => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_parts_at_one_end() {
        let web: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("identity");
        for (text, printed, matches) in [
            ("spiffe://cluster.local/ns/shop/sa/web", None, true),
            ("spiffe://cluster.local/ns/shop/sa/*", Some("spiffe://cluster.local/ns/shop/*"), true),
            ("spiffe://cluster.local/ns/shop/*", None, true),
            ("spiffe://cluster.local/ns/any/*", None, false),
            ("spiffe://cluster.local/*", None, true),
            ("spiffe://cluster.local/ns/*", Some("spiffe://cluster.local/*"), true),
            ("spiffe://elsewhere/*", None, false),
            ("*/ns/shop/sa/web", None, true),
            ("*/ns/shop/sa/we", None, false),
            ("*/sa/web", None, true),
            ("*/sa/b", None, false),
            ("*", None, true),
        ] {
            let principal: Principal = text.parse().expect(text);
            assert_eq!(principal.to_string(), printed.unwrap_or(text));
            assert_eq!(principal.matches(&web), matches, "{text}");
            assert_eq!(principal.to_string().parse(), Ok(principal), "{text}");
        }
    }

    #[test]
    fn what_could_mean_more_than_it_seems_is_refused() {
        for text in [
            "",
            "spiffe://cluster.local/ns/shop*",
            "spiffe://cluster.local/ns/shop/sa/web*",
            "spiffe://*/ns/shop/sa/web",
            "spiffe://cluster.local/ns/*/sa/web",
            "spiffe://cluster*",
            "spiffe://*",
            "*web",
            "*-shop/sa/web",
            "*/ns/shop/*",
            "*/ns/shop",
            "*/web",
            "**",
            "*/sa/a/b",
            "spiffe:///*",
            "/*",
        ] {
            text.parse::<Principal>().expect_err(text);
        }
    }
}
