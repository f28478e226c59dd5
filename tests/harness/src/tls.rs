//! Reading a recorded stream as TLS: which records, and which version was chosen.

use crate::capture::half;

/// What a stream is as TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Records of application data, content type 23.
    pub application_records: usize,
    /// Records of any type.
    pub records: usize,
    /// Whether a ServerHello chose TLS 1.3.
    pub chose_1_3: bool,
    /// Bytes at the end that are no whole record.
    pub rest: usize,
}

/// Reads a stream as TLS records (RFC 8446, section 5.1); `None` where it is anything else.
pub fn tls(stream: &[u8]) -> Option<Tls> {
    let mut seen = Tls::default();
    let mut rest = stream;
    while let Some([kind, major, minor, high, low]) = rest.get(..5) {
        // Change cipher spec, alert, handshake, application data; legacy versions 0x0301, 0x0303.
        if !(20..=23).contains(kind) || *major != 3 || ![1, 3].contains(minor) {
            return None;
        }
        let Some(body) = rest.get(5..5 + usize::from(u16::from_be_bytes([*high, *low]))) else {
            break;
        };
        seen.records += 1;
        seen.application_records += usize::from(*kind == 23 && *minor == 3);
        seen.chose_1_3 |= *kind == 22 && server_hello_chose_1_3(body);
        rest = &rest[5 + body.len()..];
    }
    seen.rest = rest.len();
    (seen.records > 0).then_some(seen)
}

/// Whether a handshake record starts with a ServerHello whose supported_versions says 0x0304.
fn server_hello_chose_1_3(body: &[u8]) -> bool {
    let version = || -> Option<u16> {
        // RFC 8446, section 4.1.3: type 2, length 3, version 2, random 32, session id, suite 2,
        // compression 1, then extensions of type 2, length 2, data.
        (*body.first()? == 2).then_some(())?;
        let session = usize::from(*body.get(38)?);
        let mut extensions = body.get(39 + session + 3 + 2..)?;
        loop {
            let length = usize::from(half(extensions, 2)?);
            if half(extensions, 0)? == 43 {
                return half(extensions, 4);
            }
            extensions = extensions.get(4 + length..)?;
        }
    };
    version() == Some(0x0304)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_text() {
        assert_eq!(tls(b"GET / HTTP/1.1\r\n"), None);
        let seen = tls(&[23, 3, 3, 0, 2, 1, 2, 23, 3, 3, 0, 9, 1]).expect("records");
        assert_eq!((seen.application_records, seen.rest), (1, 6));
    }

    #[test]
    fn a_server_hello_of_1_3_is_recognised() {
        let mut hello = vec![2, 0, 0, 46, 3, 3];
        hello.extend([7; 32]);
        // No session id; a suite, no compression; 6 bytes of extensions: supported_versions.
        hello.extend([0, 0x13, 0x01, 0, 0, 6, 0, 43, 0, 2, 3, 4]);
        assert!(server_hello_chose_1_3(&hello));
        let last = hello.len() - 1;
        hello[last] = 3;
        assert!(!server_hello_chose_1_3(&hello));
    }
}
