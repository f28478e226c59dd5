//! The snapshot on disk, so that an agent serves on across its own restart without a controller.
//!
//! One file, readable for its owner alone: a line that names the format, the SHA-256 of what
//! follows, then a `mesh.v1.SubscribeResponse` with everything that is held.

use std::{io, path::Path};

use mesh_common::api::v1;
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::files;

/// Raised with the format; another one is not read.
const FORMAT: &[u8] = b"nodemesh snapshot 1\n";
/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Why a stored snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read.
    #[error("cannot read the stored snapshot: {0}")]
    Read(#[from] io::Error),
    /// Another version's file, or none of ours.
    #[error("the stored snapshot has another format; it is replaced once the controller answers")]
    Format,
    /// The content is not what was written.
    #[error("the stored snapshot is damaged; it is replaced once the controller answers")]
    Damaged,
}

/// What was saved at `path`; nothing where there is no file.
///
/// # Errors
/// Where the file is there but cannot be used.
pub fn load(path: &Path) -> Result<Vec<v1::Resource>, SnapshotError> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let rest = content.strip_prefix(FORMAT).ok_or(SnapshotError::Format)?;
    let (stored, message) = rest.split_at_checked(DIGEST_BYTES).ok_or(SnapshotError::Damaged)?;
    if digest(&SHA256, message).as_ref() != stored {
        return Err(SnapshotError::Damaged);
    }
    let response = v1::SubscribeResponse::decode(message).map_err(|_| SnapshotError::Damaged)?;
    Ok(response.updated)
}

/// Replaces what is at `path`, all or nothing.
///
/// # Errors
/// Those of the file system; the old file is then still in place.
pub fn save(path: &Path, resources: Vec<v1::Resource>) -> io::Result<()> {
    let response = v1::SubscribeResponse { updated: resources, synced: true, ..Default::default() };
    let message = response.encode_to_vec();
    let mut content = Vec::with_capacity(FORMAT.len() + DIGEST_BYTES + message.len());
    content.extend_from_slice(FORMAT);
    content.extend_from_slice(digest(&SHA256, &message).as_ref());
    content.extend_from_slice(&message);
    files::replace(path, &content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn resource() -> v1::Resource {
        let name = Some(v1::NamespacedName { namespace: "shop".into(), name: "web".into() });
        let service = v1::Service { name, ..Default::default() };
        v1::Resource { version: 7, resource: Some(v1::resource::Resource::Service(service)) }
    }

    #[test]
    fn gives_back_what_was_saved_to_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node-1/snapshot.pb");
        assert!(load(&path).expect("no file is no error").is_empty());
        save(&path, vec![resource()]).expect("save");
        save(&path, vec![resource()]).expect("save again");
        assert_eq!(load(&path).expect("load"), [resource()]);
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let entries = std::fs::read_dir(path.parent().expect("a parent")).expect("list").count();
        assert_eq!(entries, 1, "no temporary file is left");
    }

    #[test]
    fn every_damage_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("snapshot.pb");
        save(&path, vec![resource()]).expect("save");
        let good = std::fs::read(&path).expect("read");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("write");
            load(&path).expect_err("a flipped bit");
            std::fs::write(&path, &good[..at]).expect("write");
            load(&path).expect_err("a short file");
        }
    }
}
