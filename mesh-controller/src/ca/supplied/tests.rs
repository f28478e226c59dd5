//! Authorities as people and cert-manager hand them over.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;
use crate::ca::{Authority, Request, SVID_LIFETIME};

struct Pair {
    crt: String,
    key: KeyPair,
    params: CertificateParams,
}

fn params(name: &str, constraint: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraint);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root(name: &str, algorithm: &'static SignatureAlgorithm) -> Pair {
    let params = params(name, BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(algorithm).expect("a key");
    Pair { crt: params.self_signed(&key).expect("signed").pem(), key, params }
}

fn signed_by(upper: &Pair, name: &str, constraint: BasicConstraints) -> Pair {
    let params = params(name, constraint);
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::from_params(&upper.params, &upper.key);
    Pair { crt: params.signed_by(&key, &issuer).expect("signed").pem(), key, params }
}

fn parse(crt: &str, key: &KeyPair, ca: Option<&str>) -> Result<Supplied, SuppliedError> {
    Supplied::parse(crt.as_bytes(), key.serialize_pem().as_bytes(), ca.map(str::as_bytes))
}

fn authority(supplied: Supplied) -> Authority {
    let trust_domain = TrustDomain::DEFAULT.parse().expect("a literal");
    Authority::of_supplied(supplied, trust_domain, SVID_LIFETIME).expect("opens")
}

/// The number of certificates of what `supplied` issues, which has to verify.
fn issued(authority: &Authority) -> usize {
    let id = "spiffe://cluster.local/ns/shop/sa/web";
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().expect("ASCII"))];
    let request = params.serialize_request(&KeyPair::generate().expect("a key")).expect("made");
    let request = Request::parse(request.der()).expect("good");
    let chain = authority.issue_svid(&id.parse().expect("an identity"), &request).expect("issued");
    for pair in chain.windows(2) {
        assert!(is_signed_by(&pair[0], &pair[1]));
    }
    let last = chain.last().expect("not empty");
    assert!(authority.trust_bundle().iter().any(|root| is_signed_by(last, root)));
    chain.len()
}

#[test]
fn a_root_signs_through_an_intermediate_of_each_controller() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let root = root("root", algorithm);
        let supplied = parse(&root.crt, &root.key, Some(&root.crt)).expect("good");
        assert_eq!(issued(&authority(supplied)), 2);
        assert_eq!(issued(&authority(parse(&root.crt, &root.key, None).expect("good"))), 2);
    }
    let trust_domain = TrustDomain::DEFAULT.parse().expect("a literal");
    let (crt, key) = Supplied::generate(&trust_domain).expect("made");
    let supplied = Supplied::parse(crt.as_bytes(), key.as_bytes(), Some(crt.as_bytes()));
    assert_eq!(issued(&authority(supplied.expect("good"))), 2);
}

#[test]
fn an_intermediate_brings_its_chain() {
    let root = root("root", &PKCS_ECDSA_P256_SHA256);
    let upper = signed_by(&root, "upper", BasicConstraints::Unconstrained);
    let lower = signed_by(&upper, "lower", BasicConstraints::Unconstrained);
    let chain = format!("{}{}", lower.crt, upper.crt);
    let supplied = parse(&chain, &lower.key, Some(&root.crt)).expect("good");
    assert_eq!(issued(&authority(supplied)), 4, "leaf, own, lower, upper");
    let with_root = format!("{chain}{}", root.crt);
    assert!(parse(&with_root, &lower.key, None).is_ok(), "a root in tls.crt is one");
    assert_eq!(parse(&lower.crt, &lower.key, Some(&root.crt)).err(), Some(SuppliedError::NoRoot));
    assert_eq!(parse(&chain, &lower.key, None).err(), Some(SuppliedError::NoRoot));

    let last = signed_by(&root, "last", BasicConstraints::Constrained(0));
    let supplied = parse(&last.crt, &last.key, Some(&root.crt)).expect("good");
    assert_eq!(issued(&authority(supplied)), 2, "it may not have one below it");
}

#[test]
fn keys_without_pkcs8_around_are_understood() {
    let (crt, key) = (include_str!("tests/p256.crt"), include_str!("tests/p256-sec1.key"));
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY"));
    let supplied = Supplied::parse(crt.as_bytes(), key.as_bytes(), None);
    assert_eq!(issued(&authority(supplied.expect("SEC 1"))), 2);
    let (crt, key) = (include_str!("tests/rsa.crt"), include_str!("tests/rsa-pkcs1.key"));
    assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY"));
    let supplied = Supplied::parse(crt.as_bytes(), key.as_bytes(), None);
    assert_eq!(issued(&authority(supplied.expect("PKCS #1"))), 2);
}

#[test]
fn what_cannot_be_used_says_why_and_nothing_of_the_key() {
    let (one, other) = (root("one", &PKCS_ECDSA_P256_SHA256), root("two", &PKCS_ECDSA_P256_SHA256));
    assert_eq!(parse(&one.crt, &other.key, None).err(), Some(SuppliedError::OtherKey));
    assert_eq!(
        parse("nothing", &one.key, None).err(),
        Some(SuppliedError::Pem("tls.crt", "certificates"))
    );
    assert_eq!(
        parse(&one.crt, &one.key, Some("")).err(),
        Some(SuppliedError::Pem("ca.crt", "certificates"))
    );
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "leaf");
    let crt = leaf.self_signed(&one.key).expect("signed").pem();
    assert_eq!(parse(&crt, &one.key, None).err(), Some(SuppliedError::NoAuthority));
    let mut ended = params("ended", BasicConstraints::Unconstrained);
    ended.not_after = OffsetDateTime::now_utc() - time::Duration::days(1);
    let crt = ended.self_signed(&one.key).expect("signed").pem();
    assert!(matches!(parse(&crt, &one.key, None).err(), Some(SuppliedError::Ended(_))));
    let broken = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let error = Supplied::parse(one.crt.as_bytes(), broken.as_bytes(), None).err();
    let text = error.expect("refused").to_string();
    assert!(text.starts_with("tls.key cannot be used") && !text.contains("c2VjcmV0"), "{text}");
}

#[test]
fn a_new_root_is_used_only_once_agents_were_told_of_it() {
    let (old, new) = (root("old", &PKCS_ECDSA_P256_SHA256), root("new", &PKCS_ECDSA_P256_SHA256));
    let both = format!("{}{}", old.crt, new.crt);
    let supplied = |it: &Pair, ca: &str| parse(&it.crt, &it.key, Some(ca)).expect("good");
    let authority = authority(supplied(&old, &old.crt));
    assert!(!authority.replace(supplied(&old, &old.crt)).expect("the same"));
    assert!(matches!(authority.replace(supplied(&new, &both)), Err(CaError::UnknownRoot)));
    assert!(authority.replace(supplied(&old, &both)).expect("told"));
    assert_eq!(authority.trust_bundle().len(), 2);
    assert!(authority.replace(supplied(&new, &both)).expect("used"));
    assert_eq!(issued(&authority), 2);
}
