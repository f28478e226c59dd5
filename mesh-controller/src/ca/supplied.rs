//! An authority that somebody hands over as PEM: as a Secret of type `kubernetes.io/tls` has it,
//! with `ca.crt` beside, which is what cert-manager writes too.

use std::sync::Arc;

use mesh_common::identity::TrustDomain;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{
    extensions::KeyUsage,
    prelude::{FromDer, X509Certificate},
};

use super::{CaError, Certified, key, root};

/// What is wrong with what was supplied. No message holds anything of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuppliedError {
    /// A part is no PEM of its kind.
    #[error("{0} is no PEM of {1}")]
    Pem(&'static str, &'static str),
    /// The key is of no use.
    #[error("tls.key cannot be used ({0}); ECDSA P-256, P-384, Ed25519 and RSA keys can")]
    Key(String),
    /// The certificate may not sign.
    #[error("tls.crt is no certificate of an authority: it has to have CA:TRUE and keyCertSign")]
    NoAuthority,
    /// The key is another one's.
    #[error("tls.key is not the key of the first certificate of tls.crt")]
    OtherKey,
    /// The certificate is at its end.
    #[error("tls.crt ended at {0}; renew it")]
    Ended(OffsetDateTime),
    /// Nobody would believe it.
    #[error(
        "tls.crt leads to no root: write the certificate that signed it into ca.crt, and those \
         between into tls.crt after it"
    )]
    NoRoot,
}

/// A certificate that signs, what stands between it and the roots, and the roots.
pub struct Supplied {
    pub(super) issuer: Arc<Certified>,
    pub(super) above: Vec<CertificateDer<'static>>,
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// Whether it may sign an authority of its own.
    pub(super) may_delegate: bool,
}

impl Supplied {
    /// Parses and checks what a Secret holds.
    ///
    /// # Errors
    /// Where the parts are no PEM, do not belong together, or may not sign.
    pub fn parse(crt: &[u8], key: &[u8], ca: Option<&[u8]>) -> Result<Self, SuppliedError> {
        let mut chain = certificates("tls.crt", crt)?.into_iter();
        let first = chain.next().ok_or(SuppliedError::Pem("tls.crt", "certificates"))?;
        let mut above: Vec<_> = chain.collect();
        let mut roots = match ca {
            Some(ca) => certificates("ca.crt", ca)?,
            None => Vec::new(),
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| SuppliedError::Pem("tls.key", "a private key"))?;
        let parsed = |der| parse("tls.crt", der);
        let (may_sign, may_delegate, curve) = {
            let certificate = parsed(&first)?;
            let constraints = certificate.basic_constraints().ok().flatten().map(|it| it.value);
            let usage = certificate.key_usage().ok().flatten().map(|it| it.value);
            let parameters = certificate.public_key().algorithm.parameters.as_ref();
            let curve = parameters.and_then(|it| it.as_oid().ok()).map(|oid| oid.to_id_string());
            (
                constraints.is_some_and(|it| it.ca) && usage.is_none_or(KeyUsage::key_cert_sign),
                constraints.is_none_or(|it| it.path_len_constraint != Some(0)),
                curve,
            )
        };
        if !may_sign {
            return Err(SuppliedError::NoAuthority);
        }
        let key = key::pair(&key, curve.as_deref()).map_err(SuppliedError::Key)?;
        let issuer = Certified::new(first, key)
            .map_err(|_| SuppliedError::Pem("tls.crt", "certificates"))?;
        if !issuer.has_its_key() {
            return Err(SuppliedError::OtherKey);
        }
        if issuer.not_after <= OffsetDateTime::now_utc() {
            return Err(SuppliedError::Ended(issuer.not_after));
        }
        // A self-signed certificate is a root wherever it stands.
        let mut certificates = vec![issuer.certificate.clone()];
        certificates.append(&mut above);
        for certificate in certificates {
            if is_signed_by(&certificate, &certificate) {
                if !roots.contains(&certificate) {
                    roots.push(certificate);
                }
            } else if certificate != issuer.certificate && !roots.contains(&certificate) {
                above.push(certificate);
            }
        }
        let supplied = Self { issuer: issuer.into(), above, roots, may_delegate };
        if supplied.leads_to_one_of(&supplied.roots) {
            Ok(supplied)
        } else {
            Err(SuppliedError::NoRoot)
        }
    }

    /// A new root as PEM, certificate and key.
    ///
    /// # Errors
    /// Where there are no random numbers, or no time.
    pub fn generate(trust_domain: &TrustDomain) -> Result<(String, String), CaError> {
        let (certificate, key) = root::root(trust_domain)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Whether one of `roots` vouches for it.
    pub(super) fn leads_to_one_of(&self, roots: &[CertificateDer<'_>]) -> bool {
        let last = self.above.iter().try_fold(&self.issuer.certificate, |lower, upper| {
            is_signed_by(lower, upper).then_some(upper)
        });
        last.is_some_and(|last| roots.iter().any(|root| is_signed_by(last, root)))
    }
}

fn certificates(
    part: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SuppliedError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    let certificates = certificates.ok_or(SuppliedError::Pem(part, "certificates"))?;
    for certificate in &certificates {
        parse(part, certificate)?;
    }
    Ok(certificates)
}

fn parse<'c>(
    part: &'static str,
    certificate: &'c CertificateDer<'_>,
) -> Result<X509Certificate<'c>, SuppliedError> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, certificate)| certificate).map_err(|_| SuppliedError::Pem(part, "certificates"))
}

/// Whether `signer` signed `certificate`.
pub(super) fn is_signed_by(certificate: &CertificateDer<'_>, signer: &CertificateDer<'_>) -> bool {
    let verify = || {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let (_, signer) = X509Certificate::from_der(signer).ok()?;
        certificate.verify_signature(Some(signer.public_key())).ok()
    };
    verify().is_some()
}

#[cfg(test)]
mod tests;
