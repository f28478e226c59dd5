//! Where links and maps are pinned, and what is no longer wanted there.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use mesh_common::bpf::LAYOUT_VERSION;

use crate::sys;

/// The hooks of a pod in the order in which they go: what only drops first.
const POD_HOOKS: [&str; 3] = [GUARD_HOST, GUARD_POD, INBOUND];
/// The program at the node's end of a pod's link.
pub const GUARD_HOST: &str = "guard_host";
/// The program at the pod's own end of its link.
pub const GUARD_POD: &str = "guard_pod";
/// The program at a pod's network namespace.
pub const INBOUND: &str = "inbound";

/// The pins of one node.
#[derive(Clone, Debug)]
pub struct Pins {
    node: PathBuf,
    layout: PathBuf,
}

impl Pins {
    /// The pins of `node` under `bpffs`.
    pub fn new(bpffs: &Path, node: &str) -> Self {
        let node = bpffs.join(component(node));
        let layout = node.join(format!("v{LAYOUT_VERSION}"));
        Self { node, layout }
    }

    /// Makes the directories.
    pub fn create(&self) -> io::Result<()> {
        for directory in ["maps", "node", "pods"] {
            fs::create_dir_all(self.layout.join(directory))?;
        }
        Ok(())
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.layout.join("maps").join(name)
    }

    /// The pin of a link at the cgroup.
    pub fn hook(&self, name: &str) -> PathBuf {
        self.layout.join("node").join(name)
    }

    /// The pin of a pod's link of some name.
    pub fn pod(&self, cookie: u64, hook: &str) -> PathBuf {
        self.layout.join("pods").join(cookie.to_string()).join(hook)
    }

    /// The cookies of the namespaces that have links pinned.
    pub fn pods(&self) -> io::Result<Vec<u64>> {
        let mut cookies = Vec::new();
        for entry in fs::read_dir(self.layout.join("pods"))? {
            if let Some(cookie) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                cookies.push(cookie);
            }
        }
        Ok(cookies)
    }

    /// Detaches and removes the links of a pod; those that are not there are no error.
    pub fn remove_pod(&self, cookie: u64) -> io::Result<()> {
        for hook in POD_HOOKS {
            remove_link(&self.pod(cookie, hook))?;
        }
        match fs::remove_dir(self.layout.join("pods").join(cookie.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The pins of agents whose layouts were others, if there are any.
    pub fn other_layouts(&self) -> io::Result<Vec<Self>> {
        let mut layouts = Vec::new();
        for entry in fs::read_dir(&self.node)? {
            let layout = entry?.path();
            if layout != self.layout {
                layouts.push(Self { node: self.node.clone(), layout });
            }
        }
        Ok(layouts)
    }

    /// Detaches and removes everything of this layout.
    pub fn remove_layout(&self) -> io::Result<()> {
        tracing::info!(path = %self.layout.display(), "removing hooks of another layout version");
        // Guards before anything else: without the other hooks they would stop everybody.
        for cookie in self.pods().unwrap_or_default() {
            self.remove_pod(cookie)?;
        }
        remove_tree(&self.layout)
    }

    /// Detaches and removes everything of this node; whether there was anything.
    pub fn remove_all(&self) -> io::Result<bool> {
        if !self.node.exists() {
            return Ok(false);
        }
        // Guards before anything else: without the other hooks they would stop everybody.
        for cookie in self.pods().unwrap_or_default() {
            self.remove_pod(cookie)?;
        }
        remove_tree(&self.node)?;
        // The directory for all nodes, if this was the last one.
        if let Some(bpffs) = self.node.parent() {
            let _ = fs::remove_dir(bpffs);
        }
        Ok(true)
    }
}

/// Detaches a pinned link and removes the pin; whether there was one.
pub fn remove_link(path: &Path) -> io::Result<bool> {
    match sys::open_pin(path) {
        Ok(link) => detach(&link)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::remove_file(path)?;
    Ok(true)
}

/// Detaches at once, whoever else holds the link.
fn detach(link: &impl AsFd) -> io::Result<()> {
    match sys::link_detach(link.as_fd()) {
        // Detached already: its cgroup or namespace is gone.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => other,
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_tree(&path)?;
        } else {
            // Maps cannot be detached, and need not be: they go with their last user.
            if directory.file_name().is_some_and(|name| name != "maps") {
                detach(&sys::open_pin(&path)?)?;
            }
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(directory)
}

/// A node's name as bpffs takes it: it has no room for dots, and node names none for underscores.
fn component(node: &str) -> String {
    node.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_the_layout_and_no_dots() {
        let pins = Pins::new(Path::new("/sys/fs/bpf/nodemesh"), "a.example.org");
        let maps = format!("/sys/fs/bpf/nodemesh/a_example_org/v{LAYOUT_VERSION}/maps");
        assert_eq!(pins.map("PODS"), Path::new(&maps).join("PODS"));
        assert!(pins.pod(42, INBOUND).ends_with("pods/42/inbound"));
    }
}
