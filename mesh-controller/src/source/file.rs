//! A folder of YAML files, read again and again.
//!
//! Polling, not inotify: a folder may be on NFS, an overlay, a ConfigMap volume or a host's folder
//! shared into a container, where notifications do not arrive or name the wrong file. For the same
//! reason contents are compared, not times: some file systems count in whole seconds, and a tool
//! that writes twice within one would be seen once. Reading a few hundred small files from the page
//! cache costs a millisecond or two.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use ring::digest::{SHA256, digest};

use super::{Documents, Merger, Objects, Origin, Parsed, yaml};

/// How long after a look the folder is looked at again.
const POLL: Duration = Duration::from_millis(300);
/// How long after something changed, to see whether it goes on changing: a file that is being
/// written is used once two looks in a row saw the same.
const SETTLE: Duration = Duration::from_millis(50);
/// After so many looks a file that never holds still is used as it is.
const PATIENCE: u32 = 40;
/// A file may have this many bytes.
const FILE_BYTES: u64 = 8 << 20;
/// A folder may hold this many files.
const FILES: usize = 20_000;
/// Folders may nest this deep.
const DEPTH: usize = 32;

type Digest = Vec<u8>;
type Content = Result<Vec<u8>, String>;

/// A folder of YAML files, or a single file.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    merger: Merger,
    files: BTreeMap<Origin, Documents>,
    used: BTreeMap<Arc<Path>, Digest>,
    /// What was seen to differ from what is used, and in how many looks; `None`: the file is gone.
    unsettled: BTreeMap<Arc<Path>, (Option<Digest>, u32)>,
}

impl Folder {
    /// Reads `root` once, as it is.
    pub fn load(root: &Path) -> (Self, Objects) {
        let mut folder = Self {
            root: root.to_owned(),
            merger: Merger::default(),
            files: BTreeMap::new(),
            used: BTreeMap::new(),
            unsettled: BTreeMap::new(),
        };
        for (file, content) in read_tree(root) {
            folder.accept(file, Some(&content));
        }
        let objects = folder.merger.merge(&folder.files);
        (folder, objects)
    }

    /// Reads the folder over and over, and calls `publish` with the objects after each change,
    /// until it answers `false`.
    pub fn watch(mut self, mut publish: impl FnMut(Objects) -> bool) {
        loop {
            thread::sleep(if self.unsettled.is_empty() { POLL } else { SETTLE });
            if let Some(objects) = self.look()
                && !publish(objects)
            {
                return;
            }
        }
    }

    /// Looks once; the objects where files changed and have settled.
    fn look(&mut self) -> Option<Objects> {
        let mut contents = read_tree(&self.root);
        let files: BTreeSet<_> = contents.keys().chain(self.used.keys()).cloned().collect();
        let mut is_changed = false;
        for file in files {
            let content = contents.remove(&file);
            let found = content.as_ref().map(content_digest);
            if found.as_ref() == self.used.get(&file) {
                self.unsettled.remove(&file);
                continue;
            }
            let looks = match self.unsettled.get(&file) {
                Some((before, _)) if *before == found => PATIENCE,
                Some((_, looks)) => looks + 1,
                None => 0,
            };
            if looks >= PATIENCE {
                self.accept(file, content.as_ref());
                is_changed = true;
            } else {
                self.unsettled.insert(file, (found, looks));
            }
        }
        self.unsettled.retain(|file, (found, _)| found.is_some() || self.used.contains_key(file));
        is_changed.then(|| self.merger.merge(&self.files))
    }

    fn accept(&mut self, file: Arc<Path>, content: Option<&Content>) {
        self.unsettled.remove(&file);
        let Some(content) = content else {
            self.used.remove(&file);
            self.files.remove(&Origin::File(file));
            return;
        };
        self.used.insert(file.clone(), content_digest(content));
        let documents = documents(content, |text| yaml::parse(&file, text));
        self.files.insert(Origin::File(file), documents);
    }
}

/// The manifests under `root`; `skipped` counts what no mesh reads.
pub(super) fn manifests(
    root: &Path,
    skipped: &mut BTreeMap<String, usize>,
) -> BTreeMap<Origin, Documents> {
    let mut files = BTreeMap::new();
    for (file, content) in read_tree(root) {
        let documents = documents(&content, |text| yaml::manifests(&file, text, skipped));
        files.insert(Origin::File(file), documents);
    }
    files
}

fn documents(content: &Content, parse: impl FnOnce(&str) -> Vec<Parsed>) -> Documents {
    let bytes = content.as_ref().map_err(Clone::clone)?;
    std::str::from_utf8(bytes).map(parse).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("line {line} is not UTF-8; save the file as UTF-8")
    })
}

fn content_digest(content: &Content) -> Digest {
    match content {
        Ok(bytes) => digest(&SHA256, bytes).as_ref().to_vec(),
        Err(reason) => reason.clone().into_bytes(),
    }
}

/// The content of every YAML file under `root`, or of `root` itself where it is a file; what could
/// not be read has its reason.
fn read_tree(root: &Path) -> BTreeMap<Arc<Path>, Content> {
    let mut tree = Tree { contents: BTreeMap::new(), folders: BTreeSet::new() };
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => tree.folder(root, &metadata, 0),
        Ok(metadata) => tree.file(root, &metadata),
        Err(error) => tree.failed(root, &error),
    }
    tree.contents
}

struct Tree {
    contents: BTreeMap<Arc<Path>, Content>,
    /// Device and inode of every folder entered: symbolic links may lead round in a circle.
    folders: BTreeSet<(u64, u64)>,
}

impl Tree {
    fn folder(&mut self, path: &Path, metadata: &fs::Metadata, depth: usize) {
        if !self.folders.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        if depth > DEPTH {
            let reason = format!("more than {DEPTH} folders deep; not read");
            self.contents.insert(path.into(), Err(reason));
            return;
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut paths: Vec<PathBuf> = match entries {
            Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
            Err(error) => return self.failed(path, &error),
        };
        paths.sort();
        for path in paths {
            // Hidden entries are editors' leftovers, and the folders behind ConfigMap volumes
            // whose files appear a second time as links beside them.
            let is_hidden =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_hidden {
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, &metadata, depth + 1),
                Ok(metadata) if is_yaml(&path) => self.file(&path, &metadata),
                Err(error) if is_yaml(&path) => self.failed(&path, &error),
                _ => {}
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &fs::Metadata) {
        if self.contents.len() >= FILES {
            let reason = format!("more than {FILES} files in the folder; not read");
            self.contents.insert(path.into(), Err(reason));
            return;
        }
        if !metadata.is_file() {
            self.contents.insert(path.into(), Err("neither a file nor a folder; not read".into()));
            return;
        }
        match read(path) {
            Ok(bytes) if bytes.len() as u64 > FILE_BYTES => {
                let limit = FILE_BYTES >> 20;
                let reason = format!("larger than {limit} MiB; split it into several files");
                self.contents.insert(path.into(), Err(reason));
            }
            Ok(bytes) => {
                self.contents.insert(path.into(), Ok(bytes));
            }
            Err(error) => self.failed(path, &error),
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        // Gone between listing and reading is gone, unless it is what we were asked to read.
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        let is_root = self.folders.is_empty();
        if error.kind() != io::ErrorKind::NotFound || is_link || is_root {
            self.contents.insert(path.into(), Err(format!("cannot be read: {error}")));
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Should a pipe have taken the file's place meanwhile, opening it must not block.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
