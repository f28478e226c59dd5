//! What is there before and after: links, rules, settings of a namespace, and whatever carries
//! the id of a mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Result;

use crate::{cleanup, layout::Layout, link::ip, netns::Netns};

/// A list of facts, each with its value; two of them can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<String, String>);

impl Ledger {
    /// The facts of one network namespace: links, addresses, rules, routes, settings.
    pub fn of_namespace(netns: &Netns) -> Result<Self> {
        let mut ledger = Self::default();
        ledger.add_network(&format!("-n {} ", netns.name()), netns.name())?;
        ledger.0.extend(netns.run(sysctls)?);
        Ok(ledger)
    }

    /// The facts of the namespace that this process is in, and what of the mesh exists outside
    /// of namespaces.
    pub fn of_host(layout: &Layout) -> Result<Self> {
        let mut ledger = Self::default();
        ledger.add_network("", "host")?;
        ledger.0.extend(sysctls());
        for name in cleanup::namespaces(layout)? {
            ledger.0.insert(format!("namespace {name}"), String::new());
        }
        for directory in [layout.bpffs(), layout.cgroup(), layout.run_dir()] {
            if directory.exists() {
                ledger.0.insert(format!("directory {}", directory.display()), String::new());
            }
        }
        Ok(ledger)
    }

    /// What differs, a line a fact; empty where nothing does.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let keys: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        keys.into_iter()
            .filter_map(|key| match (self.0.get(key), after.0.get(key)) {
                (Some(was), Some(is)) if was == is => None,
                (Some(was), Some(is)) => Some(format!("{key}: was {was:?}, is {is:?}")),
                (Some(_), None) => Some(format!("{key} is gone")),
                (None, _) => Some(format!("{key} is left behind")),
            })
            .collect()
    }

    fn add_network(&mut self, inside: &str, name: &str) -> Result<()> {
        for (kind, command) in [
            ("link", "-brief link show"),
            ("address", "-brief address show"),
            ("rule", "-4 rule show"),
            ("rule6", "-6 rule show"),
            ("route", "-4 route show table all"),
            ("route6", "-6 route show table all"),
        ] {
            for line in ip(&format!("{inside}{command}"))?.lines() {
                // How long a route from a router's advertisement has left is no fact about it.
                let line = line.split_once(" expires ").map_or(line, |(fact, _)| fact);
                self.0.insert(format!("{name}: {kind} {}", line.trim()), String::new());
            }
        }
        Ok(())
    }
}

/// Every setting below `/proc/sys/net` of this thread's network namespace.
fn sysctls() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for family in ["ipv4", "ipv6"] {
        read_settings(Path::new("/proc/sys/net").join(family).as_path(), &mut found);
    }
    found
}

fn read_settings(directory: &Path, found: &mut BTreeMap<String, String>) {
    // A directory goes with its interface, a few files are write-only: neither is a setting.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            read_settings(&path, found);
        } else if let Ok(value) = fs::read_to_string(&path) {
            found.insert(path.display().to_string(), value.trim().to_owned());
        }
    }
}
