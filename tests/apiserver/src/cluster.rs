//! What all requests share: the objects, what is served, faults, settings.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{fault::Faults, registry::Registry, store::Store, token::Tokens};

/// The state of a server. It survives when the server stops to listen.
pub struct Cluster {
    pub store: Store,
    pub registry: Registry,
    pub faults: Faults,
    pub tokens: Tokens,
    pub settings: Settings,
    /// `host:port` as clients reach it.
    pub address: String,
    /// The authority's certificate, PEM.
    pub certificate: String,
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether Roles and bindings decide; otherwise everybody with credentials may do everything.
    pub rbac: bool,
    /// How many events are remembered for watches and pages.
    pub history: usize,
    /// How often watches that ask for them get bookmarks.
    pub bookmarks: Duration,
    /// Whether deleted pods vanish as if a kubelet had ended them; otherwise they wait for one.
    pub kubelets: bool,
    /// What `exec` finds in every pod: a path in its image, and the file here that is run.
    pub programs: BTreeMap<String, PathBuf>,
    /// Whether every request is written to standard error.
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        // The real server sends a bookmark about once a minute.
        let bookmarks = Duration::from_secs(60);
        let programs = BTreeMap::new();
        Self { rbac: false, history: 20_000, bookmarks, kubelets: true, programs, log: false }
    }
}
