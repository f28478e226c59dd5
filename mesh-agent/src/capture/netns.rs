//! Network namespaces: opening them and working inside them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use rustix::{
    net::{AddressFamily, SocketType, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::processes::Number;
use crate::sys;

/// An open network namespace, which lives at least as long as this does.
#[derive(Debug)]
pub struct Netns {
    file: File,
    device: u64,
    inode: u32,
    cookie: u64,
}

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the network namespace {}: {source}; check that the pod runs on this node and that --pod-netns leads to it", path.display())]
pub struct NetnsError {
    path: PathBuf,
    source: io::Error,
}

impl Netns {
    /// Opens the namespace at `path`, such as `/run/netns/shop-web`.
    ///
    /// # Errors
    /// Where there is none at `path`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        Self::try_open(path).map_err(|source| NetnsError { path: path.to_path_buf(), source })
    }

    fn try_open(path: &Path) -> io::Result<Self> {
        Self::from_file(File::open(path)?)
    }

    /// The namespace that is open.
    ///
    /// # Errors
    /// Where it is none, or must not be entered.
    pub(super) fn from_file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // Namespace inodes are 32 bits wide in the kernel.
        let inode = u32::try_from(metadata.ino()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "this file is no network namespace")
        })?;
        let cookie = run_in(&file, own_cookie)??;
        Ok(Self { file, device: metadata.dev(), inode, cookie })
    }

    /// What tells the namespace at `path` from every other that is there now.
    pub(super) fn number_at(path: &Path) -> Option<Number> {
        fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// What tells this namespace from every other that is there now.
    pub(super) fn number(&self) -> Number {
        (self.device, self.inode.into())
    }

    /// What tells this namespace from every other one since the machine started.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The inode, which names the namespace as long as it lives.
    pub(super) fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `f` inside the namespace, on this thread; `f` must neither block nor await.
    ///
    /// Ends the process if the thread cannot go back: it would serve one pod in the name of
    /// another.
    ///
    /// # Errors
    /// Where the thread may not enter the namespace.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        run_in(&self.file, f)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What tells this thread's namespace from every other one since the machine started.
///
/// # Errors
/// Where the kernel does not say.
pub fn own_cookie() -> io::Result<u64> {
    // The cookie is only given out by a socket.
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    sys::netns_cookie(socket.as_fd())
}

/// The namespace that every thread comes from, opened once by the first that leaves it: opening
/// it for every socket would cost more than the two switches.
static HOME: LazyLock<io::Result<File>> = LazyLock::new(|| File::open("/proc/thread-self/ns/net"));

fn run_in<T>(namespace: &File, f: impl FnOnce() -> T) -> io::Result<T> {
    let home = HOME.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let _return = Return(home);
    Ok(f())
}

/// Brings the thread back, also when `f` panics.
struct Return<'a>(&'a File);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) =
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
        {
            tracing::error!(%error, "cannot leave a pod's network namespace");
            process::abort();
        }
    }
}
