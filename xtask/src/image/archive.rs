//! An image as one tar file, in OCI's layout and Docker's.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// OCI's name of the architecture that this builds for.
const ARCHITECTURE: &str = "amd64";
/// Whoever runs it says otherwise where it needs to; Kubernetes' runAsNonRoot asks for a number.
const USER: &str = "65532:65532";
/// The beginning of time, which is the same in every build.
const CREATED: &str = "1970-01-01T00:00:00Z";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name, such as `nodemesh:0.1.0`.
    pub tag: String,
    /// Programs by their name in the root.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// Writes the archive.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        super::folder(archive)?;
        // A reader never finds half of one.
        let unfinished = archive.with_extension("unfinished");
        fs::write(&unfinished, self.bytes()?).with_context(|| unfinished.display().to_string())?;
        fs::rename(&unfinished, archive).with_context(|| archive.display().to_string())
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let layer = self.layer()?;
        let config = json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": CREATED,
            "config": { "User": USER, "Entrypoint": ["/nodemesh"] },
            "rootfs": { "type": "layers", "diff_ids": [name(&layer)] },
            "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
        });
        let config = serde_json::to_vec(&config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = serde_json::to_vec(&manifest)?;
        let mut entry = descriptor(MANIFEST, &manifest);
        let version = self.tag.rsplit_once(':').map_or("latest", |(_, version)| version);
        entry["annotations"] = json!({
            // containerd's own, which names the image in full; OCI's is the tag alone.
            "io.containerd.image.name": format!("docker.io/library/{}", self.tag),
            "org.opencontainers.image.ref.name": version,
        });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let docker = json!([{
            "Config": blob(&config),
            "RepoTags": [self.tag],
            "Layers": [blob(&layer)],
        }]);
        let files = BTreeMap::from([
            (blob(&config), config),
            (blob(&layer), layer),
            (blob(&manifest), manifest),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
            ("manifest.json".to_owned(), serde_json::to_vec(&docker)?),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ]);
        let mut tar = Builder::new(Vec::new());
        for folder in ["blobs/", "blobs/sha256/"] {
            append(&mut tar, EntryType::Directory, folder, 0o755, &[])?;
        }
        for (path, bytes) in files {
            append(&mut tar, EntryType::Regular, &path, 0o644, &bytes)?;
        }
        Ok(tar.into_inner()?)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let files: BTreeMap<_, _> = self.files.iter().map(|(name, bytes)| (name, bytes)).collect();
        let mut tar = Builder::new(Vec::new());
        for (name, bytes) in files {
            append(&mut tar, EntryType::Regular, name, 0o755, bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(
    tar: &mut Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).with_context(|| path.to_owned())
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": name(bytes), "size": bytes.len() })
}

/// What bytes are called by their content.
fn name(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// Where bytes are in the archive.
fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
