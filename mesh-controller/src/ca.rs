//! The certificate authority: a root, an intermediate that signs, and what it issues.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_common::identity::{SpiffeId, TrustDomain};
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

mod issue;
mod key;
mod root;
mod store;
mod supplied;

pub use issue::{InvalidRequest, Request};
pub use store::CaError;
pub use supplied::{Supplied, SuppliedError};

/// How long a certificate of a workload lives, unless told otherwise.
pub const SVID_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The name that the controller's own certificate is for.
pub const SERVER_NAME: &str = "mesh-controller";

/// Issues certificates.
pub struct Authority {
    /// Where what it makes is kept; with a Secret nothing is, and every controller has an
    /// intermediate of its own.
    store: Option<store::Store>,
    signing: Mutex<Signing>,
    trust_domain: TrustDomain,
    svid_lifetime: Duration,
}

struct Signing {
    supplied: Supplied,
    intermediate: Option<Arc<Certified>>,
}

/// What signs a leaf, and the certificates above it without the root.
struct Signer {
    certified: Arc<Certified>,
    above: Vec<CertificateDer<'static>>,
}

/// A certificate that signs, and its key.
struct Certified {
    certificate: CertificateDer<'static>,
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
        let roots = vec![root.certificate.clone()];
        let supplied =
            Supplied { issuer: root.into(), above: Vec::new(), roots, may_delegate: true };
        let signing = Mutex::new(Signing { supplied, intermediate: Some(intermediate.into()) });
        Ok(Self { store: Some(store), signing, trust_domain, svid_lifetime })
    }

    /// An authority that signs with what was supplied, and keeps nothing.
    ///
    /// # Errors
    /// Where no intermediate can be made of it.
    pub fn of_supplied(
        supplied: Supplied,
        trust_domain: TrustDomain,
        svid_lifetime: Duration,
    ) -> Result<Self, CaError> {
        let signing = Mutex::new(Signing { supplied, intermediate: None });
        let authority = Self { store: None, signing, trust_domain, svid_lifetime };
        authority.signer()?;
        Ok(authority)
    }

    /// Takes what was supplied anew; whether it differs.
    ///
    /// # Errors
    /// Where it leads to a root that nobody was told of: what it issues would be believed by none.
    pub fn replace(&self, new: Supplied) -> Result<bool, CaError> {
        let mut signing = self.lock();
        let known = &signing.supplied;
        let is_same_issuer = known.issuer.certificate == new.issuer.certificate;
        if is_same_issuer && known.roots == new.roots && known.above == new.above {
            return Ok(false);
        }
        if !new.leads_to_one_of(&known.roots) {
            return Err(CaError::UnknownRoot);
        }
        if !is_same_issuer {
            signing.intermediate = None;
        }
        signing.supplied = new;
        Ok(true)
    }

    /// The trust domain that it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots to trust, DER.
    pub fn trust_bundle(&self) -> Vec<CertificateDer<'static>> {
        self.lock().supplied.roots.clone()
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
        let leaf = issue::svid(identity, request, &signer.certified, self.svid_lifetime)?;
        Ok([leaf].into_iter().chain(signer.above).collect())
    }

    /// A new certificate for the controller's own server.
    ///
    /// # Errors
    /// Where the intermediate has to be renewed and cannot be.
    pub fn issue_server_certificate(&self) -> Result<ServerCertificate, CaError> {
        issue::server(&self.signer()?)
    }

    /// What signs now, the intermediate renewed where too little of its life is left.
    fn signer(&self) -> Result<Signer, CaError> {
        let mut signing = self.lock();
        let Signing { supplied, intermediate } = &mut *signing;
        let is_root = supplied.roots.contains(&supplied.issuer.certificate);
        let mut above: Vec<_> = match is_root {
            true => Vec::new(),
            false => vec![supplied.issuer.certificate.clone()],
        };
        above.extend(supplied.above.iter().cloned());
        if !supplied.may_delegate {
            return Ok(Signer { certified: supplied.issuer.clone(), above });
        }
        let is_due = |known: &&Arc<Certified>| known.needs_renewal(OffsetDateTime::now_utc());
        let certified = match intermediate.as_ref().filter(|known| !is_due(known)) {
            Some(known) => known.clone(),
            None => {
                let new = root::intermediate(&self.trust_domain, &supplied.issuer)?;
                let new = match &self.store {
                    Some(store) => store.save_intermediate(new)?,
                    None => Certified::new(new.0.der().clone(), new.1).map_err(CaError::Parse)?,
                };
                tracing::info!(not_after = %new.not_after, "intermediate certificate made");
                intermediate.insert(new.into()).clone()
            }
        };
        above.insert(0, certified.certificate.clone());
        Ok(Signer { certified, above })
    }

    fn lock(&self) -> MutexGuard<'_, Signing> {
        self.signing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Certified {
    /// A certificate and its key, which are not compared.
    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|it| it.to_string())?;
        Ok(Self { certificate, issuer, not_before, not_after })
    }

    /// Whether less than a third of its life is left.
    fn needs_renewal(&self, now: OffsetDateTime) -> bool {
        self.not_after - now < (self.not_after - self.not_before) / 3
    }

    fn has_its_key(&self) -> bool {
        X509Certificate::from_der(&self.certificate).is_ok_and(|(_, certificate)| {
            *certificate.public_key().subject_public_key.data == *self.issuer.key().der_bytes()
        })
    }
}

#[cfg(test)]
mod tests;
