//! The snapshot on disk, so that an agent serves on across its own restart without a controller.
//!
//! One file, readable for its owner alone: a line that names the format, the SHA-256 of what
//! follows, then a `mesh.v1.StoredSnapshot` with everything that is held.

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
pub fn load(path: &Path) -> Result<v1::StoredSnapshot, SnapshotError> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(error.into()),
    };
    let rest = content.strip_prefix(FORMAT).ok_or(SnapshotError::Format)?;
    let (stored, message) = rest.split_at_checked(DIGEST_BYTES).ok_or(SnapshotError::Damaged)?;
    if digest(&SHA256, message).as_ref() != stored {
        return Err(SnapshotError::Damaged);
    }
    v1::StoredSnapshot::decode(message).map_err(|_| SnapshotError::Damaged)
}

/// Replaces what is at `path`, all or nothing.
///
/// # Errors
/// Those of the file system; the old file is then still in place.
pub fn save(path: &Path, snapshot: &v1::StoredSnapshot) -> io::Result<()> {
    let message = snapshot.encode_to_vec();
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

    fn snapshot() -> v1::StoredSnapshot {
        let name = Some(v1::NamespacedName { namespace: "shop".into(), name: "web".into() });
        let service = v1::Service { name, ..Default::default() };
        let resource = Some(v1::resource::Resource::Service(service));
        let resources = vec![v1::Resource { version: 7, resource }];
        v1::StoredSnapshot { resources, interest: vec![vec![10, 96, 0, 1].into()] }
    }

    #[test]
    fn gives_back_what_was_saved_to_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node-1/snapshot.pb");
        assert_eq!(load(&path).expect("no file is no error"), v1::StoredSnapshot::default());
        save(&path, &snapshot()).expect("save");
        save(&path, &snapshot()).expect("save again");
        assert_eq!(load(&path).expect("load"), snapshot());
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let entries = std::fs::read_dir(path.parent().expect("a parent")).expect("list").count();
        assert_eq!(entries, 1, "no temporary file is left");
    }

    #[test]
    fn reads_what_was_stored_before_there_was_interest() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("snapshot.pb");
        let resources = snapshot().resources;
        let updated = resources.clone();
        let whole = v1::SubscribeResponse { updated, synced: true, ..Default::default() };
        let message = whole.encode_to_vec();
        let content = [FORMAT, digest(&SHA256, &message).as_ref(), &message].concat();
        std::fs::write(&path, content).expect("write");
        let read = load(&path).expect("load");
        assert_eq!(read, v1::StoredSnapshot { resources, interest: Vec::new() });
    }

    #[test]
    fn every_damage_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("snapshot.pb");
        save(&path, &snapshot()).expect("save");
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
