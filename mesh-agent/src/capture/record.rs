//! What is remembered of each captured pod across a crash: who it is, and what its network
//! namespace was like before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{finder::Finder, netns::Netns, sysctl::Saved};
use crate::files;

/// One captured pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The boot of the machine that `cookie` belongs to: cookies start again with each.
    boot: String,
    /// The cookie of the pod's network namespace.
    pub cookie: u64,
    /// The pod's uid.
    pub uid: String,
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Where the network namespace was opened.
    pub netns: PathBuf,
    /// The settings as they were before.
    pub sysctls: Saved,
    /// Whether new connections are no longer captured.
    pub released: bool,
}

/// Why a record cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}; check --state-dir", path.display())]
pub struct RecordError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Record {
    /// A record of a pod that is about to be captured.
    pub fn new(
        cookie: u64,
        uid: &str,
        (namespace, name): (&str, &str),
        netns: PathBuf,
        sysctls: Saved,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            boot: boot()?,
            cookie,
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            netns,
            sysctls,
            released: false,
        })
    }

    /// The pod's network namespace, if it still is the one that was captured.
    pub fn open_netns(&self, finder: &Finder) -> Option<Netns> {
        finder.find_again(self.cookie, &self.netns, &self.uid)
    }
}

/// The records of one node.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// The records of `node` under `state_dir`.
    pub fn new(state_dir: &Path, node: &str) -> Self {
        Self { directory: state_dir.join(node).join("capture") }
    }

    /// Writes a record, whole or not at all.
    pub fn put(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(record.cookie);
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|content| files::replace(&path, &content))
            .map_err(|source| RecordError { action: "write", path, source })
    }

    /// Removes a record; one that is not there is no error.
    pub fn remove(&self, cookie: u64) -> Result<(), RecordError> {
        let path = self.path(cookie);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RecordError { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Every record of this boot. Others, and files that cannot be read, are removed: the
    /// namespaces that they were about are gone.
    pub fn load(&self) -> Result<Vec<Record>, RecordError> {
        let error = |source| RecordError { action: "read", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(error)?,
        };
        let boot = boot()?;
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(error)?.path();
            let content = fs::read(&path).map_err(error)?;
            match serde_json::from_slice::<Record>(&content) {
                Ok(record) if record.boot == boot => records.push(record),
                Ok(_) => fs::remove_file(&path).map_err(error)?,
                Err(reason) => {
                    tracing::warn!(path = %path.display(), %reason, "removing a damaged record");
                    fs::remove_file(&path).map_err(error)?;
                }
            }
        }
        Ok(records)
    }

    fn path(&self, cookie: u64) -> PathBuf {
        self.directory.join(format!("{cookie}.json"))
    }
}

/// What tells this boot of the machine from every other.
fn boot() -> Result<String, RecordError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(PATH).map(|id| id.trim_end().to_owned()).map_err(|source| RecordError {
        action: "read",
        path: PATH.into(),
        source,
    })
}
