//! One attached program: its link, its pin, and whether both are still there.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::pins;
use crate::sys::{self, Hook, Target};

/// A hook as it was found, after which it has been repaired if it had to be.
#[derive(Clone, Debug)]
pub struct HookState {
    /// `connect4`, or `inbound shop/web` for a hook of one pod.
    pub name: String,
    /// Whether it was attached, with our program, and pinned.
    pub attached: bool,
    /// How often it has been repaired since the agent started.
    pub repairs: u64,
    /// Why it could not be repaired.
    pub error: Option<String>,
}

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the kernel program {name} ({}): {source}", path.display())]
pub struct LinkError {
    name: String,
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What shall be attached, and where.
#[derive(Debug)]
pub struct Wanted {
    /// What people call the hook.
    pub name: String,
    /// Where the link is pinned.
    pub path: PathBuf,
    /// The loaded program and its id.
    pub program: OwnedFd,
    /// The id that the kernel gave the program.
    pub program_id: u32,
    /// The cgroup or the network namespace, open.
    pub place: OwnedFd,
    /// The same, as the kernel names it.
    pub target: Target,
    /// The kind of hook.
    pub hook: Hook,
}

/// An attached and pinned program.
#[derive(Debug)]
pub struct PinnedLink {
    wanted: Wanted,
    link: OwnedFd,
    repairs: u64,
}

impl PinnedLink {
    /// Puts the program in place: into the link that is pinned there, without a gap, or into a
    /// new one.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn establish(wanted: Wanted) -> Result<Self, LinkError> {
        let adopted = sys::open_pin(&wanted.path).ok().filter(|link| {
            sys::link_info(link.as_fd()).is_ok_and(|info| info.target == wanted.target)
                && sys::link_update(link.as_fd(), wanted.program.as_fd()).is_ok()
        });
        let link = match adopted {
            Some(link) => link,
            None => attach(&wanted)?,
        };
        Ok(Self { wanted, link, repairs: 0 })
    }

    /// Looks whether link and pin are as they should be, and puts back what is not.
    pub fn verify_and_repair(&mut self) -> HookState {
        let result = match self.fault() {
            None => None,
            Some(fault) => {
                self.repairs += 1;
                tracing::warn!(hook = self.wanted.name, fault, "a hook was removed; repairing it");
                Some(self.repair())
            }
        };
        HookState {
            name: self.wanted.name.clone(),
            attached: result.is_none(),
            repairs: self.repairs,
            error: result.and_then(Result::err).map(|error| error.to_string()),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        match sys::link_info(self.link.as_fd()) {
            Err(_) => return Some("the link cannot be read"),
            Ok(info) if info.target != self.wanted.target => return Some("the link is detached"),
            Ok(info) if info.program != self.wanted.program_id => {
                return Some("the link runs another program");
            }
            Ok(_) => {}
        }
        (!self.wanted.path.exists()).then_some("the pin is gone")
    }

    fn repair(&mut self) -> Result<(), LinkError> {
        let info = sys::link_info(self.link.as_fd());
        if !info.is_ok_and(|info| info.target == self.wanted.target) {
            self.link = attach(&self.wanted)?;
            return Ok(());
        }
        sys::link_update(self.link.as_fd(), self.wanted.program.as_fd())
            .map_err(|e| error(&self.wanted, "update", e))?;
        if !self.wanted.path.exists() {
            make_directory(&self.wanted)?;
            sys::pin(self.link.as_fd(), &self.wanted.path)
                .map_err(|e| error(&self.wanted, "pin", e))?;
        }
        Ok(())
    }
}

/// Attaches with a new link, and pins it in the place of an old one.
fn attach(wanted: &Wanted) -> Result<OwnedFd, LinkError> {
    let link = sys::link_create(wanted.program.as_fd(), wanted.place.as_fd(), wanted.hook)
        .map_err(|e| error(wanted, "attach", e))?;
    pins::remove_link(&wanted.path).map_err(|e| error(wanted, "replace", e))?;
    make_directory(wanted)?;
    sys::pin(link.as_fd(), &wanted.path).map_err(|e| error(wanted, "pin", e))?;
    Ok(link)
}

/// Whether a link is pinned at `path` and still attached to anything.
pub fn is_attached(path: &Path) -> bool {
    sys::open_pin(path)
        .and_then(|link| sys::link_info(link.as_fd()))
        .is_ok_and(|info| info.target.is_attached())
}

fn make_directory(wanted: &Wanted) -> Result<(), LinkError> {
    match wanted.path.parent() {
        Some(directory) => fs::create_dir_all(directory).map_err(|e| error(wanted, "pin", e)),
        None => Ok(()),
    }
}

fn error(wanted: &Wanted, action: &'static str, source: io::Error) -> LinkError {
    LinkError { name: wanted.name.clone(), action, path: wanted.path.clone(), source }
}
