//! Where objects come from: a folder of YAML, or a cluster.
//!
//! [`mod@file`] reads and watches the folder, [`cluster`] watches an API server; [`decode`] makes
//! objects of what either has, and [`Merger`] decides which version of each object is in use. One
//! bad document never costs another its place. [`manifests`] reads what is yet to be applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
};

use crate::object::{Object, ObjectKey};

pub mod cluster;
pub mod decode;
pub mod file;
pub mod manifests;
pub mod node;
pub mod yaml;

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    File {
        /// The file, or the folder that could not be read.
        file: Arc<Path>,
        /// Which document of the file, counted from 1; 0 for the file as a whole.
        document: usize,
        /// The line in the file, counted from 1; 0 for the file as a whole.
        line: u64,
    },
    /// In the cluster, where an object's name is its place.
    Cluster {
        /// `metadata.uid`: which object of that name.
        uid: Arc<str>,
        /// `metadata.generation`: which version of what its author wants.
        generation: Option<i64>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: 0, .. } => write!(f, "{}", file.display()),
            Self::File { file, line, .. } => write!(f, "{}:{line}", file.display()),
            Self::Cluster { .. } => f.write_str("the cluster"),
        }
    }
}

/// What is there or gone as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file, or a folder that cannot be read.
    File(Arc<Path>),
    /// An object of the cluster.
    Cluster(ObjectKey),
}

/// One document, or one item of a `List`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Where it starts; where it is bad, where that shows.
    pub place: Place,
    /// Which object it is, where that can be read.
    pub key: Option<ObjectKey>,
    /// The object, or what is wrong.
    pub object: Result<Arc<Object>, String>,
}

/// What an origin holds, or why it cannot be read.
pub type Documents = Result<Vec<Parsed>, String>;

/// A document that is not in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Where it is.
    pub place: Place,
    /// Which object it is, where that can be read.
    pub object: Option<ObjectKey>,
    /// Why it is refused, and what to do.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.place, Place::File { .. }) {
            write!(f, "{}: ", self.place)?;
        }
        match (&self.object, &self.place) {
            (Some(object), _) => write!(f, "{object}: {}", self.reason),
            (None, Place::File { document: document @ 1.., .. }) => {
                write!(f, "document {document}: {}", self.reason)
            }
            (None, _) => f.write_str(&self.reason),
        }
    }
}

/// Every object in use and every document that is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// The objects and where they were read.
    pub in_use: BTreeMap<ObjectKey, (Arc<Object>, Place)>,
    /// What is refused, sorted by place.
    pub refusals: Vec<Refusal>,
}

impl Objects {
    /// The uid of an object in use, where the API server gave it one.
    pub fn uid_of(&self, key: &ObjectKey) -> Option<Arc<str>> {
        match &self.in_use.get(key)?.1 {
            Place::Cluster { uid, .. } => Some(uid.clone()).filter(|uid| !uid.is_empty()),
            Place::File { .. } => None,
        }
    }
}

/// Decides which version of each object is in use, remembering the last good ones.
#[derive(Debug, Default)]
pub struct Merger {
    in_use: BTreeMap<ObjectKey, (Arc<Object>, Place)>,
}

impl Merger {
    /// Notes a good version that is replaced before it was merged: it is the last good one.
    pub fn note(&mut self, parsed: &Parsed) {
        if let Ok(object) = &parsed.object {
            self.in_use.insert(object.key(), (object.clone(), parsed.place.clone()));
        }
    }

    /// Forgets an object that is gone: another of its name owes it nothing.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.in_use.remove(key);
    }

    /// The objects of `origins`. An object whose new version is bad, or whose file can no longer be
    /// understood as a whole, stays in use as it was; one that is gone is gone.
    pub fn merge(&mut self, origins: &BTreeMap<Origin, Documents>) -> Objects {
        let mut in_use: BTreeMap<ObjectKey, (Arc<Object>, Place)> = BTreeMap::new();
        let mut refusals = Vec::new();
        for parsed in origins.values().flatten().flatten() {
            match (&parsed.object, &parsed.key) {
                (Ok(object), _) => {
                    let key = object.key();
                    if let Some((_, first)) = in_use.get(&key) {
                        let reason = format!(
                            "a second version; the first, at {first}, is in use: remove one"
                        );
                        refusals.push(refusal(parsed.place.clone(), Some(key), reason));
                    } else {
                        in_use.insert(key, (object.clone(), parsed.place.clone()));
                    }
                }
                (Err(reason), key) => {
                    refusals.push(refusal(parsed.place.clone(), key.clone(), reason.clone()));
                }
            }
        }
        for (origin, documents) in origins {
            if let (Origin::File(file), Err(reason)) = (origin, documents) {
                let place = Place::File { file: file.clone(), document: 0, line: 0 };
                refusals.push(refusal(place, None, reason.clone()));
            }
        }
        let unreadable = Unreadable::of(origins);
        for (key, held) in std::mem::take(&mut self.in_use) {
            if !in_use.contains_key(&key) && unreadable.may_hold(&key, &held.1) {
                for refusal in refusals.iter_mut().filter(|it| it.object.as_ref() == Some(&key)) {
                    refusal.reason.push_str(" (its last good version stays in use)");
                }
                in_use.insert(key, held);
            }
        }
        refusals.sort();
        self.in_use.clone_from(&in_use);
        Objects { in_use, refusals }
    }
}

fn refusal(place: Place, object: Option<ObjectKey>, reason: String) -> Refusal {
    Refusal { place, object, reason }
}

/// What cannot be read, and may hold what was there before.
#[derive(Default)]
struct Unreadable<'o> {
    objects: BTreeSet<&'o ObjectKey>,
    /// With a document that does not even say which object it is.
    files: BTreeSet<&'o Path>,
    /// Files and folders that cannot be read as a whole.
    trees: Vec<&'o Path>,
}

impl<'o> Unreadable<'o> {
    fn of(origins: &'o BTreeMap<Origin, Documents>) -> Self {
        let mut unreadable = Self::default();
        for (origin, documents) in origins {
            match (origin, documents) {
                (Origin::File(file), Err(_)) => unreadable.trees.push(file),
                (Origin::Cluster(key), Err(_)) => {
                    unreadable.objects.insert(key);
                }
                (_, Ok(documents)) => {
                    for bad in documents.iter().filter(|it| it.object.is_err()) {
                        match (&bad.key, origin) {
                            (Some(key), _) | (None, Origin::Cluster(key)) => {
                                unreadable.objects.insert(key);
                            }
                            (None, Origin::File(file)) => {
                                unreadable.files.insert(file);
                            }
                        }
                    }
                }
            }
        }
        unreadable
    }

    /// Whether the object that was at `place` may still be there.
    fn may_hold(&self, key: &ObjectKey, place: &Place) -> bool {
        self.objects.contains(key)
            || match place {
                Place::Cluster { .. } => false,
                Place::File { file, .. } => {
                    self.files.contains(&**file)
                        || self.trees.iter().any(|tree| file.starts_with(tree))
                }
            }
    }
}

#[cfg(test)]
mod tests;
