//! The authority's files: `root.crt`, `root.key`, `intermediate.crt`, `intermediate.key`, PEM.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use super::{
    Certified,
    root::New,
    supplied::{SuppliedError, is_signed_by},
};
use crate::private_file::{self, PrivateFileError};

/// Why the authority cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A certificate cannot be made.
    #[error("a certificate could not be made: {0}")]
    Generate(rcgen::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers; look at /dev/urandom")]
    Random,
    /// The clock shows a time that no certificate can have.
    #[error("the system clock is out of range: {0}")]
    Clock(time::error::ComponentRange),
    /// The root is at its end.
    #[error(
        "the certificate of the authority ended at {0}; replace it, or remove the ca directory, or the Secret in a cluster, to make a new one, and give agents the new root.crt"
    )]
    RootExpired(OffsetDateTime),
    /// What was just made cannot be read.
    #[error("a certificate that was just made cannot be read: {0}")]
    Parse(String),
    /// What was supplied is of no use.
    #[error(transparent)]
    Supplied(#[from] SuppliedError),
    /// What was supplied is of another root.
    #[error(
        "the new tls.crt leads to a root that agents were not told of yet: first add that root to ca.crt, and after half the life of a certificate of a workload replace tls.crt"
    )]
    UnknownRoot,
    /// The root's key is lost.
    #[error(
        "{0} is missing though root.crt is there; restore it, or remove the ca directory to make a new root, and give agents the new root.crt"
    )]
    RootKeyMissing(PathBuf),
}

/// The directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        private_file::directory(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The root, where there is one. Keys are written before certificates: a key alone is left
    /// from a first start that was cut short, and nobody has seen its certificate.
    pub fn root(&self) -> Result<Option<Certified>, CaError> {
        let (crt, key) = self.paths("root");
        let Some(certificate) = private_file::read(&crt)? else { return Ok(None) };
        let Some(key_pem) = private_file::read(&key)? else {
            return Err(CaError::RootKeyMissing(key));
        };
        let root = certified(&crt, &certificate, &key, &key_pem)?;
        match is_signed_by(&root.certificate, &root.certificate) && root.has_its_key() {
            true => Ok(Some(root)),
            false => Err(PrivateFileError::content(&key, "it is not the key of root.crt").into()),
        }
    }

    /// The intermediate, where there is one that `root` signed and whose key is there; a renewal
    /// that was cut short leaves a pair that does not fit, and is done again.
    pub fn intermediate(
        &self,
        root: &CertificateDer<'static>,
    ) -> Result<Option<Certified>, CaError> {
        let (crt, key) = self.paths("intermediate");
        let (certificate, key_pem) = (private_file::read(&crt)?, private_file::read(&key)?);
        let (Some(certificate), Some(key_pem)) = (certificate, key_pem) else { return Ok(None) };
        let known = certified(&crt, &certificate, &key, &key_pem)?;
        Ok((is_signed_by(&known.certificate, root) && known.has_its_key()).then_some(known))
    }

    pub fn save_root(&self, new: New) -> Result<Certified, CaError> {
        self.save("root", new)
    }

    pub fn save_intermediate(&self, new: New) -> Result<Certified, CaError> {
        self.save("intermediate", new)
    }

    fn save(&self, name: &str, (certificate, key): New) -> Result<Certified, CaError> {
        let (crt_path, key_path) = self.paths(name);
        let (crt_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        private_file::write(&key_path, key_pem.as_bytes())?;
        private_file::write(&crt_path, crt_pem.as_bytes())?;
        certified(&crt_path, crt_pem.as_bytes(), &key_path, key_pem.as_bytes())
    }

    fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")))
    }
}

fn certified(
    crt_path: &Path,
    crt_pem: &[u8],
    key_path: &Path,
    key_pem: &[u8],
) -> Result<Certified, CaError> {
    let crt_error = |reason: String| PrivateFileError::content(crt_path, reason);
    let key_error = |reason: String| PrivateFileError::content(key_path, reason);
    let certificate =
        CertificateDer::from_pem_slice(crt_pem).map_err(|error| crt_error(error.to_string()))?;
    let key_pem = std::str::from_utf8(key_pem).map_err(|error| key_error(error.to_string()))?;
    let key = KeyPair::from_pem(key_pem).map_err(|error| key_error(error.to_string()))?;
    Ok(Certified::new(certificate, key).map_err(crt_error)?)
}
