//! The certificates that sign.

use mesh_common::identity::TrustDomain;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::{Duration, OffsetDateTime};

use super::{CaError, Certified};

const ROOT_LIFETIME: Duration = Duration::days(3652);
const INTERMEDIATE_LIFETIME: Duration = Duration::days(365);
/// Certificates count from so long ago: clocks of nodes differ.
pub(super) const CLOCK_SKEW: Duration = Duration::minutes(5);

/// A new certificate and its key.
pub(super) type New = (Certificate, KeyPair);

/// A new root.
pub(super) fn root(trust_domain: &TrustDomain) -> Result<New, CaError> {
    let params = signing(&format!("nodemesh root of {trust_domain}"), ROOT_LIFETIME, None)?;
    let key = KeyPair::generate().map_err(CaError::Generate)?;
    let certificate = params.self_signed(&key).map_err(CaError::Generate)?;
    Ok((certificate, key))
}

/// A new intermediate, signed by `root`, that can sign leaves only.
pub(super) fn intermediate(trust_domain: &TrustDomain, root: &Certified) -> Result<New, CaError> {
    let name = format!("nodemesh intermediate of {trust_domain}");
    let mut params = signing(&name, INTERMEDIATE_LIFETIME, Some(0))?;
    params.not_after = params.not_after.min(root.not_after);
    if root.not_after <= OffsetDateTime::now_utc() {
        return Err(CaError::RootExpired(root.not_after));
    }
    let key = KeyPair::generate().map_err(CaError::Generate)?;
    let certificate = params.signed_by(&key, &root.issuer).map_err(CaError::Generate)?;
    Ok((certificate, key))
}

fn signing(
    name: &str,
    lifetime: Duration,
    path_length: Option<u8>,
) -> Result<CertificateParams, CaError> {
    let mut params = lasting(lifetime)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(
        path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained),
    );
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate without a subject that lasts from now for `lifetime`.
pub(super) fn lasting(lifetime: Duration) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    // Certificates count in whole seconds.
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(CaError::Clock)?;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + lifetime;
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits: RFC 5280 section 4.1.2.2 wants serials positive and unique.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
