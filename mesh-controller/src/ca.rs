//! The certificate authority: a root, an intermediate that signs, and what it issues.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_common::identity::{SpiffeId, TrustDomain};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

mod issue;
mod root;
mod store;

pub use issue::{InvalidRequest, Request};
pub use store::CaError;

/// How long a certificate of a workload lives, unless told otherwise.
pub const SVID_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The name that the controller's own certificate is for.
pub const SERVER_NAME: &str = "mesh-controller";

/// Issues certificates.
pub struct Authority {
    store: store::Store,
    root: Certified,
    intermediate: Mutex<Arc<Certified>>,
    trust_domain: TrustDomain,
    svid_lifetime: Duration,
}

/// A certificate that signs, and its key.
struct Certified {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// The controller's own certificate, in PEM.
pub struct ServerCertificate {
    /// The chain, leaf first, without the root.
    pub chain_pem: String,
    /// The key.
    pub key_pem: String,
    /// When it has to be replaced.
    pub renew_after: Duration,
}

impl Authority {
    /// The authority in the directory `dir`, made where there is none.
    ///
    /// # Errors
    /// Where its files cannot be read or written, do not belong together, or are not private.
    pub fn open(
        dir: &Path,
        trust_domain: TrustDomain,
        svid_lifetime: Duration,
    ) -> Result<Self, CaError> {
        let store = store::Store::open(dir)?;
        let root = match store.root()? {
            Some(root) => root,
            None => store.save_root(root::root(&trust_domain)?)?,
        };
        let intermediate = match store.intermediate(&root.certificate)? {
            Some(known) if !known.needs_renewal(OffsetDateTime::now_utc()) => known,
            _ => store.save_intermediate(root::intermediate(&trust_domain, &root)?)?,
        };
        let intermediate = Mutex::new(Arc::new(intermediate));
        Ok(Self { store, root, intermediate, trust_domain, svid_lifetime })
    }

    /// The trust domain that it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots to trust, DER.
    pub fn trust_bundle(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.certificate.clone()]
    }

    /// A certificate for `identity` and the key of `request`: the chain, leaf first, without the
    /// root. Whether the caller may have it is not asked here.
    ///
    /// # Errors
    /// Where the intermediate has to be renewed and cannot be.
    pub fn issue_svid(
        &self,
        identity: &SpiffeId,
        request: &Request,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let signer = self.signer()?;
        let leaf = issue::svid(identity, request, &signer, self.svid_lifetime)?;
        Ok(vec![leaf, signer.certificate.clone()])
    }

    /// A new certificate for the controller's own server.
    ///
    /// # Errors
    /// Where the intermediate has to be renewed and cannot be.
    pub fn issue_server_certificate(&self) -> Result<ServerCertificate, CaError> {
        let signer = self.signer()?;
        issue::server(&signer)
    }

    /// The intermediate, renewed where too little of its life is left.
    fn signer(&self) -> Result<Arc<Certified>, CaError> {
        let mut current = self.intermediate.lock().unwrap_or_else(PoisonError::into_inner);
        if current.needs_renewal(OffsetDateTime::now_utc()) {
            let new = root::intermediate(&self.trust_domain, &self.root)?;
            *current = Arc::new(self.store.save_intermediate(new)?);
            tracing::info!(not_after = %current.not_after, "intermediate certificate renewed");
        }
        Ok(current.clone())
    }
}

impl Certified {
    /// Whether less than a third of its life is left.
    fn needs_renewal(&self, now: OffsetDateTime) -> bool {
        self.not_after - now < (self.not_after - self.not_before) / 3
    }
}

#[cfg(test)]
mod tests;
