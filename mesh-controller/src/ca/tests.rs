//! What is issued verifies, and says what it should; what is asked for wrongly is refused.

use std::{fs, os::unix::fs::PermissionsExt};

use mesh_common::identity::SpiffeId;
use rcgen::{CertificateParams, CertificateSigningRequest, SanType};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn authority(dir: &TempDir) -> Authority {
    open(dir).expect("opens")
}

fn open(dir: &TempDir) -> Result<Authority, CaError> {
    let trust_domain = "cluster.local".parse().expect("a literal");
    Authority::open(&dir.path().join("ca"), trust_domain, SVID_LIFETIME)
}

fn signing_request(names: &[&str], key: &KeyPair) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    let uri = |name: &&str| SanType::URI((*name).try_into().expect("ASCII"));
    params.subject_alt_names = names.iter().map(uri).collect();
    params.serialize_request(key).expect("made")
}

fn request(names: &[&str]) -> Result<Request, InvalidRequest> {
    let key = KeyPair::generate().expect("a key");
    Request::parse(signing_request(names, &key).der())
}

fn issued(authority: &Authority) -> Vec<CertificateDer<'static>> {
    let request = request(&[ID]).expect("a good request");
    assert_eq!(request.identity().to_string(), ID);
    authority.issue_svid(&ID.parse::<SpiffeId>().expect("an identity"), &request).expect("issued")
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> X509Certificate<'c> {
    X509Certificate::from_der(certificate).expect("a certificate").1
}

/// Whether `chain` leads to `root`.
fn verifies(chain: &[CertificateDer<'_>], root: &CertificateDer<'_>) -> bool {
    let signers = chain[1..].iter().chain([root]);
    chain.iter().zip(signers).all(|(certificate, signer)| {
        let signer = parse(signer);
        parse(certificate).verify_signature(Some(signer.public_key())).is_ok()
            && parse(certificate).issuer() == signer.subject()
            && signer.is_ca()
    })
}

#[test]
fn an_svid_is_what_the_standard_wants() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = authority(&dir);
    let chain = issued(&authority);
    assert_eq!(chain.len(), 2);
    assert!(verifies(&chain, &authority.trust_bundle()[0]));

    let leaf = parse(&chain[0]);
    let names = leaf.subject_alternative_name().expect("well formed").expect("has names");
    assert_eq!(names.value.general_names, [GeneralName::URI(ID)]);
    assert!(names.critical, "the subject is empty");
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().expect("well formed").expect("has one");
    assert!(usage.critical && usage.value.digital_signature());
    assert!(!usage.value.key_cert_sign() && !usage.value.crl_sign());
    let extended = leaf.extended_key_usage().expect("well formed").expect("has one");
    assert!(extended.value.server_auth && extended.value.client_auth && !extended.value.any);
    assert!(leaf.validity().is_valid());
    let life = leaf.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
    assert!((24 * 3600 - 60..=24 * 3600).contains(&life), "{life} s");
    assert!(
        leaf.validity().not_before.timestamp() < OffsetDateTime::now_utc().unix_timestamp() - 60
    );

    let intermediate = parse(&chain[1]);
    let constraints = intermediate.basic_constraints().expect("well formed").expect("has them");
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    assert_ne!(leaf.raw_serial(), parse(&issued(&authority)[0]).raw_serial());
}

#[test]
fn wrong_requests_are_refused() {
    for (names, expected) in [
        (&[] as &[&str], "asks for 0 names"),
        (&[ID, ID], "asks for 2 names"),
        (&["https://example.com"], "no SPIFFE identity"),
        (&["spiffe://cluster.local/ns/shop"], "no SPIFFE identity"),
    ] {
        let error = request(names).expect_err("refused").to_string();
        assert!(error.contains(expected), "{names:?}: {error}");
    }
    let large = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let error = Request::parse(signing_request(&[ID], &large).der()).expect_err("refused");
    assert!(matches!(error, InvalidRequest::Key), "{error}");

    let mut forged = signing_request(&[ID], &KeyPair::generate().expect("a key")).der().to_vec();
    let at = forged.windows(3).position(|bytes| bytes == b"web").expect("the name");
    forged[at] = b'x';
    for der in [forged.as_slice(), b"", b"nonsense", &[0x30; 20_000]] {
        let error = Request::parse(der).expect_err("refused");
        assert!(matches!(error, InvalidRequest::Unverified(_)), "{error}");
    }
}

#[test]
fn a_restart_keeps_the_authority() {
    let dir = tempfile::tempdir().expect("a directory");
    let (before, after) = (authority(&dir), authority(&dir));
    assert_eq!(before.trust_bundle(), after.trust_bundle());
    assert_eq!(issued(&before)[1], issued(&after)[1]);
    for (name, mode) in [("ca", 0o700), ("ca/root.key", 0o600), ("ca/intermediate.key", 0o600)] {
        let metadata = fs::metadata(dir.path().join(name)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn keys_that_others_may_read_or_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    authority(&dir);
    let key = dir.path().join("ca/root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
    let error = open(&dir).err().expect("refused").to_string();
    assert!(error.contains(&format!("chmod 0600 {}", key.display())), "{error}");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
    let other = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(&key, other).expect("written");
    let error = open(&dir).err().expect("refused").to_string();
    assert!(error.contains("not the key of root.crt"), "{error}");

    fs::remove_file(&key).expect("removed");
    let error = open(&dir).err().expect("refused").to_string();
    assert!(error.contains("root.key is missing"), "{error}");
}

#[test]
fn an_intermediate_that_is_old_or_does_not_fit_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = authority(&dir);
    let intermediate = issued(&first)[1].clone();
    let day = time::Duration::days(1);
    let signer = first.signer().expect("there");
    assert!(!signer.certified.needs_renewal(OffsetDateTime::now_utc() + 243 * day));
    assert!(signer.certified.needs_renewal(OffsetDateTime::now_utc() + 244 * day));

    let other = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(dir.path().join("ca/intermediate.key"), other).expect("written");
    let second = authority(&dir);
    let chain = issued(&second);
    assert_ne!(chain[1], intermediate);
    assert!(verifies(&chain, &first.trust_bundle()[0]));
}

#[test]
fn the_servers_certificate_is_for_its_name_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = authority(&dir).issue_server_certificate().expect("issued");
    let (_, pem) = x509_parser::pem::parse_x509_pem(server.chain_pem.as_bytes()).expect("PEM");
    let leaf = pem.parse_x509().expect("a certificate");
    let names = leaf.subject_alternative_name().expect("well formed").expect("has names");
    assert_eq!(names.value.general_names, [GeneralName::DNSName(SERVER_NAME)]);
    let extended = leaf.extended_key_usage().expect("well formed").expect("has one");
    assert!(extended.value.server_auth && !extended.value.client_auth);
    assert!(server.renew_after > Duration::from_secs(50 * 24 * 3600));
}
