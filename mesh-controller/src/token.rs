//! Join tokens: `<node>.<hex of HMAC-SHA256(join secret, node)>`.
//!
//! The token alone says which node calls, and only the holder of the secret can make one, so an
//! agent that was given the token of its own node cannot pose as another.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use crate::{
    object::is_name,
    private_file::{self, PrivateFileError},
};

/// As long as the output of the hash, which RFC 2104 section 3 asks for at least.
const SECRET_BYTES: usize = 32;

/// Why there is no secret to make or verify tokens with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers; look at /dev/urandom")]
    Random,
    /// Its file is too short to be one.
    #[error(
        "{0} holds less than {SECRET_BYTES} bytes; remove it and make new tokens for every node"
    )]
    Short(PathBuf),
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not of the form.
    #[error("no join token: expected <node>.<64 hexadecimal digits>")]
    Malformed,
    /// Not made with this secret.
    #[error(
        "the join token was not made with this controller's secret; make one with \
         `mesh-controller token NODE --state-dir DIR`"
    )]
    Forged,
    /// For something that cannot be a node.
    #[error("the node of a join token is no Kubernetes name")]
    NodeName,
}

/// What tokens are made with.
pub struct JoinSecret {
    key: hmac::Key,
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret")
    }
}

impl JoinSecret {
    /// The secret of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }

    /// The secret in the state directory `dir`, made where there is none.
    ///
    /// # Errors
    /// Where it cannot be read or made, or others may have read it.
    pub fn open(dir: &Path) -> Result<Self, SecretError> {
        let path = dir.join("join.secret");
        if private_file::read(&path)?.is_none() {
            let mut bytes = [0; SECRET_BYTES];
            SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::Random)?;
            private_file::create(&path, &bytes)?;
        }
        match private_file::read(&path)? {
            Some(bytes) if bytes.len() >= SECRET_BYTES => Ok(Self::new(&bytes)),
            _ => Err(SecretError::Short(path)),
        }
    }

    /// The token of `node`.
    ///
    /// # Errors
    /// Where `node` cannot be the name of a Node.
    pub fn token(&self, node: &str) -> Result<String, InvalidToken> {
        if !is_name(node) {
            return Err(InvalidToken::NodeName);
        }
        let tag = hmac::sign(&self.key, node.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{node}.{hex}"))
    }

    /// The node that `token` was made for. Takes as long for a wrong token as for a right one.
    ///
    /// # Errors
    /// Where it is no token of this secret.
    pub fn verify<'t>(&self, token: &'t str) -> Result<&'t str, InvalidToken> {
        let (node, hex) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let tag = bytes_of_hex(hex).ok_or(InvalidToken::Malformed)?;
        hmac::verify(&self.key, node.as_bytes(), &tag).map_err(|_| InvalidToken::Forged)?;
        if is_name(node) { Ok(node) } else { Err(InvalidToken::NodeName) }
    }
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let is_hex = hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    is_hex.then(|| (0..64).step_by(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_names_its_node_and_no_other() {
        let secret = JoinSecret::new(&[7; SECRET_BYTES]);
        let token = secret.token("node-1.example").expect("a name");
        assert_eq!(secret.verify(&token), Ok("node-1.example"));

        let other = token.replacen("node-1", "node-2", 1);
        assert_eq!(secret.verify(&other), Err(InvalidToken::Forged));
        let elsewhere = JoinSecret::new(&[8; SECRET_BYTES]);
        assert_eq!(elsewhere.verify(&token), Err(InvalidToken::Forged));
        assert_eq!(secret.token("no/name"), Err(InvalidToken::NodeName));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let secret = JoinSecret::new(&[7; SECRET_BYTES]);
        for text in ["", ".", "node-1", "node-1.", "node-1.zz", "node-1.0011"] {
            assert_eq!(secret.verify(text), Err(InvalidToken::Malformed), "{text}");
        }
    }

    #[test]
    fn the_secret_is_made_once_and_kept_private() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let dir = tempfile::tempdir().expect("a directory");
        let token = JoinSecret::open(dir.path()).expect("made").token("a").expect("a name");
        let again = JoinSecret::open(dir.path()).expect("read").token("a").expect("a name");
        assert_eq!(token, again);

        let path = dir.path().join("join.secret");
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = JoinSecret::open(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("chmod 0600"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,80}") {
            let _ = JoinSecret::new(&[7; SECRET_BYTES]).verify(&text);
        }
    }
}
