//! Which resources are served: the built-in ones and those of CustomResourceDefinitions.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::{builtin, table::Columns};

/// A resource of one group and version, as discovery tells it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// Whether `/status` is a subresource.
    pub status: bool,
    /// Where the replicas are, if `/scale` is a subresource.
    pub scale: Option<Scale>,
    pub generation: Generation,
    /// What can be selected by, beside name and namespace.
    pub fields: Vec<String>,
    pub columns: Columns,
    /// Of custom resources.
    pub schema: Option<Arc<Value>>,
    /// Under which name the store has it: versions and groups can share objects.
    pub storage: String,
    pub origin: Origin,
}

/// What `/scale` reads and writes, as paths with dots.
#[derive(Clone, Debug)]
pub struct Scale {
    pub replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// What makes `metadata.generation` grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Generation {
    /// Nothing: the kind has none.
    Never,
    /// A change of `spec`.
    Spec,
    /// A change of anything but `metadata` and, where that is a subresource, `status`.
    Everything,
}

/// Where a resource comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    Builtin,
    /// Asked, not stored: created, answered, forgotten.
    Review,
    Custom,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// What can be done with it, in the order of the real server.
    pub fn verbs(&self) -> &'static [&'static str] {
        match self.origin {
            Origin::Review => &["create"],
            _ => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
        }
    }

    /// Whether it is the one of this group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// All resources of now.
#[derive(Debug)]
pub struct Registry {
    builtin: Vec<Arc<Resource>>,
    custom: RwLock<Vec<Arc<Resource>>>,
}

impl Registry {
    pub fn new() -> Self {
        let builtin = builtin::resources().into_iter().map(Arc::new).collect();
        Self { builtin, custom: RwLock::default() }
    }

    /// Replaces those that come from CustomResourceDefinitions.
    pub fn set_custom(&self, resources: Vec<Resource>) {
        let resources = resources.into_iter().map(Arc::new).collect();
        *self.custom.write().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    /// Built-in ones first, custom ones in the order of their definitions.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        self.builtin.iter().chain(custom.iter()).cloned().collect()
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.all()
            .into_iter()
            .find(|resource| resource.is(group, plural) && resource.version == version)
    }

    /// The resource of a kind, for objects that come from files.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.all()
            .into_iter()
            .find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// Groups and their versions, in the order of discovery; the core group is `""`.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in self.all() {
            let (group, version) = (resource.group.clone(), resource.version.clone());
            match groups.iter_mut().find(|(known, _)| *known == group) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((group, vec![version])),
            }
        }
        groups
    }
}
