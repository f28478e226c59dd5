//! A network namespace with a name, as `ip netns` makes them.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::link::ip;

/// Where `ip netns` keeps its names.
pub const DIRECTORY: &str = "/run/netns";

/// A named network namespace; the one who made it takes it away, see [`crate::cleanup`].
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose loopback is up.
    pub fn create(name: &str) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))?;
        Ok(Self { name: name.to_owned() })
    }

    /// The name that `ip -n` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `f` on a thread of its own inside the namespace.
    ///
    /// Sockets that `f` opens stay in the namespace. They belong to this process' cgroup, so no
    /// agent ever captures them: right for verifying from outside the mesh.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("namespace {}", self.name))?;
        let inside = move || -> io::Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .with_context(|| format!("entering namespace {}", self.name))
    }

    /// Writes a setting below `/proc/sys/net`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value))?.with_context(|| format!("writing {path}"))
    }

    /// Whether a TCP socket listens on `port`, without connecting to it.
    pub fn listens_on(&self, port: u16) -> Result<bool> {
        // The tables of /proc/net, one socket a line: number, local address:port in hex, remote
        // address, state; 0A is TCP_LISTEN.
        let tables = self.run(|| {
            ["tcp", "tcp6"].map(|table| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
                    .unwrap_or_default()
            })
        })?;
        let wanted = format!(":{port:04X}");
        Ok(tables.iter().flat_map(|table| table.lines()).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            let state = fields.nth(1).unwrap_or_default();
            local.ends_with(&wanted) && state == "0A"
        }))
    }
}
