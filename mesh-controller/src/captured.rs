//! Which pods agents said they captured, kept on disk.
//!
//! Callers speak HBONE only to captured pods. Were this forgotten over a restart of the
//! controller, every connection of the mesh would fall back to plaintext until the last agent had
//! reported again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::private_file::{self, PrivateFileError};

/// The uids of captured pods by the node that said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    by_node: BTreeMap<String, BTreeSet<String>>,
}

impl Captures {
    /// Whether the agent of `node` said that it captured the pod `uid`.
    pub fn holds(&self, node: &str, uid: &str) -> bool {
        self.by_node.get(node).is_some_and(|uids| uids.contains(uid))
    }

    /// Replaces what the agent of `node` said; whether that changed anything.
    pub fn report(&mut self, node: &str, uids: impl IntoIterator<Item = String>) -> bool {
        let uids: BTreeSet<String> = uids.into_iter().collect();
        match uids.is_empty() {
            true => self.by_node.remove(node).is_some(),
            false if self.by_node.get(node) == Some(&uids) => false,
            false => {
                self.by_node.insert(node.to_owned(), uids);
                true
            }
        }
    }
}

/// [`Captures`] in a file.
#[derive(Clone, Debug)]
pub struct CapturesFile {
    path: PathBuf,
}

impl CapturesFile {
    /// The file in the state directory `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("captures.json") }
    }

    /// What was saved last; nothing where there is no file.
    ///
    /// # Errors
    /// Where the file cannot be read or makes no sense.
    pub fn load(&self) -> Result<Captures, PrivateFileError> {
        let Some(bytes) = private_file::read(&self.path)? else { return Ok(Captures::default()) };
        let by_node = serde_json::from_slice(&bytes)
            .map_err(|error| PrivateFileError::content(&self.path, error))?;
        Ok(Captures { by_node })
    }

    /// Saves, so that either the old content or the new is there, whatever happens.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, captures: &Captures) -> Result<(), PrivateFileError> {
        let bytes = serde_json::to_vec(&captures.by_node)
            .map_err(|error| PrivateFileError::content(&self.path, error))?;
        private_file::write(&self.path, &bytes)
    }
}

#[cfg(test)]
mod tests;
