//! Private keys in the three forms that PEM files have.

use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// DER of OBJECT IDENTIFIERs, from RFC 8017 appendix A.1 and RFC 5480 section 2.1.1.
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
const NULL: &[u8] = &[0x05, 0];

/// The pair of `key`; `curve` is what the certificate says of its public key. OpenSSL and
/// cert-manager write keys without the PKCS #8 around that ring wants (RFC 5208 section 5).
pub(super) fn pair(key: &PrivateKeyDer<'_>, curve: Option<&str>) -> Result<KeyPair, String> {
    let pkcs8 = match key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Pkcs1(key) => wrapped(&[RSA, NULL].concat(), key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => {
            let curve = match curve {
                Some("1.2.840.10045.3.1.7") => P256,
                Some("1.3.132.0.34") => P384,
                _ => return Err("it is of a curve that is not supported".into()),
            };
            wrapped(&[EC, curve].concat(), key.secret_sec1_der())
        }
        _ => return Err("it is of an unknown form".into()),
    };
    // What a parser says of a key may hold some of it.
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(|_| "it is of no known kind".into())
}

/// PrivateKeyInfo: version 0, the algorithm, the key.
fn wrapped(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let content = [&[0x02, 1, 0], &*tlv(0x30, algorithm), &*tlv(0x04, key)].concat();
    tlv(0x30, &content)
}

/// Tag, length, value, as DER has them.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(value.len()) {
        Ok(length @ ..0x80) => bytes.push(length),
        _ => {
            let length = value.len().to_be_bytes();
            let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | significant.len() as u8);
            bytes.extend(significant);
        }
    }
    bytes.extend(value);
    bytes
}
