//! Where objects come from: a folder of YAML.
//!
//! [`mod@file`] reads and watches the folder, [`yaml`] turns text into objects, and [`Merger`] decides
//! which version of each object is in use. One bad document never costs another its place.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use crate::object::{Object, ObjectKey};

pub mod file;
pub mod node;
pub mod yaml;

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, or the folder that could not be read.
    pub file: Arc<Path>,
    /// Which document of the file, counted from 1; 0 for the file as a whole.
    pub document: usize,
    /// The line in the file, counted from 1; 0 for the file as a whole.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
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

/// What one file holds, or why it cannot be read.
pub type FileDocuments = Result<Vec<Parsed>, String>;

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
        write!(f, "{}: ", self.place)?;
        match &self.object {
            Some(object) => write!(f, "{object}: {}", self.reason),
            None if self.place.document > 0 => {
                write!(f, "document {}: {}", self.place.document, self.reason)
            }
            None => f.write_str(&self.reason),
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

/// Decides which version of each object is in use, remembering the last good ones.
#[derive(Debug, Default)]
pub struct Merger {
    in_use: BTreeMap<ObjectKey, (Arc<Object>, Place)>,
}

impl Merger {
    /// The objects of `files`. An object whose new version is bad, or whose file can no longer be
    /// understood as a whole, stays in use as it was; one that is gone is gone.
    pub fn merge(&mut self, files: &BTreeMap<Arc<Path>, FileDocuments>) -> Objects {
        let mut in_use: BTreeMap<ObjectKey, (Arc<Object>, Place)> = BTreeMap::new();
        let mut refusals = Vec::new();
        for parsed in files.values().flatten().flatten() {
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
        for (file, documents) in files {
            if let Err(reason) = documents {
                let place = Place { file: file.clone(), document: 0, line: 0 };
                refusals.push(refusal(place, None, reason.clone()));
            }
        }
        for (key, held) in std::mem::take(&mut self.in_use) {
            if !in_use.contains_key(&key) && is_merely_unreadable(&key, &held.1, files) {
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

/// Whether an object that was at `place` may still be there, in something that cannot be read.
fn is_merely_unreadable(
    key: &ObjectKey,
    place: &Place,
    files: &BTreeMap<Arc<Path>, FileDocuments>,
) -> bool {
    files.iter().any(|(file, documents)| match documents {
        Err(_) => place.file.starts_with(file),
        Ok(documents) => documents.iter().filter(|it| it.object.is_err()).any(|it| match &it.key {
            Some(bad) => bad == key,
            None => place.file == *file,
        }),
    })
}

#[cfg(test)]
mod tests;
