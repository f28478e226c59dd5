//! Keys and certificates on disk, PEM, readable for their owner alone: one file an SVID, so that a
//! key and its chain are replaced together, and one for the trust bundle.

use std::{
    io,
    path::{Path, PathBuf},
};

use mesh_common::identity::SpiffeId;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::certificate::{CertificateProblem, Svid};
use crate::files;

/// Why a file of the store is not used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}; it will be replaced")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not PEM of the kind that is kept there.
    #[error("{path} is damaged: {reason}; it will be replaced")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A directory of keys and certificates.
#[derive(Clone, Debug)]
pub struct Store {
    svids: PathBuf,
    bundle: PathBuf,
}

impl Store {
    /// The store within `directory`, which is made when something is kept.
    pub fn new(directory: &Path) -> Self {
        Self { svids: directory.join("svids"), bundle: directory.join("trust-bundle.pem") }
    }

    /// The roots that were trusted last; none where nothing was kept yet.
    pub(super) fn load_bundle(&self) -> Result<Vec<CertificateDer<'static>>, StoreError> {
        match read(&self.bundle) {
            Err(StoreError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
            Ok(pem) => certificates(&self.bundle, &pem),
        }
    }

    /// Every SVID that can be read, and what is wrong with the others.
    pub(super) fn load_svids(&self) -> (Vec<Svid>, Vec<StoreError>) {
        let (mut svids, mut problems) = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(&self.svids) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (svids, problems),
            Err(error) => {
                problems.push(StoreError::Read { path: self.svids.clone(), error });
                return (svids, problems);
            }
        };
        let paths = entries.filter_map(|entry| entry.map(|entry| entry.path()).ok());
        for path in paths.filter(|path| path.extension().is_some_and(|it| it == "pem")) {
            match load_svid(&path) {
                Ok(svid) => svids.push(svid),
                Err(error) => problems.push(error),
            }
        }
        (svids, problems)
    }

    pub(super) fn save_bundle(&self, bundle: &[CertificateDer<'_>]) -> io::Result<()> {
        let text: String = bundle.iter().map(|der| encode("CERTIFICATE", der)).collect();
        if std::fs::read(&self.bundle).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(());
        }
        files::replace(&self.bundle, text.as_bytes())
    }

    /// What to keep of `svid`, and where.
    pub(super) fn svid_file(&self, svid: &Svid) -> SvidFile {
        let mut text = encode("PRIVATE KEY", svid.key().secret_pkcs8_der());
        text.extend(svid.chain().iter().map(|der| encode("CERTIFICATE", der)));
        SvidFile { path: self.path_of(svid.identity()), text }
    }

    pub(super) fn remove(&self, id: &SpiffeId) -> io::Result<()> {
        match std::fs::remove_file(self.path_of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path_of(&self, id: &SpiffeId) -> PathBuf {
        // No Kubernetes name holds an underscore, nor begins with a dot.
        self.svids.join(format!("{}_{}.pem", id.namespace(), id.service_account()))
    }
}

/// An SVID ready to be kept.
pub(super) struct SvidFile {
    path: PathBuf,
    text: String,
}

impl SvidFile {
    pub(super) fn save(&self) -> io::Result<()> {
        files::replace(&self.path, self.text.as_bytes())
    }
}

fn load_svid(path: &Path) -> Result<Svid, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let pem = read(path)?;
    let key =
        PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|error| damaged(error.to_string()))?;
    let chain = certificates(path, &pem)?;
    Svid::new(key, chain).map_err(|error: CertificateProblem| damaged(error.to_string()))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|error| StoreError::Read { path: path.to_owned(), error })
}

fn encode(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}
