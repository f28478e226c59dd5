//! One attached program: its link, its pin, and whether both are still there.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{netns::Netns, pins};
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
    /// Why it could not be repaired, or what it cannot do here.
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
    /// Where to attach it.
    pub place: Place,
    /// The same, as the kernel names it.
    pub target: Target,
    /// The kind of hook.
    pub hook: Hook,
}

/// Where a program is attached.
#[derive(Debug)]
pub enum Place {
    /// A cgroup or a network namespace, open.
    Open(OwnedFd),
    /// An interface, by index, in this network namespace or, without one, in the agent's own.
    Interface(Option<Arc<Netns>>, u32),
}

impl Place {
    /// Does something where the interface is.
    fn inside<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Interface(Some(netns), _) => netns.run(f)?,
            Self::Interface(None, _) | Self::Open(_) => f(),
        }
    }
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
                tracing::debug!(hook = self.wanted.name, fault, "puts a hook back");
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

    /// Whether the interface is gone that the program was attached to.
    pub fn has_lost_its_interface(&self) -> bool {
        sys::link_info(self.link.as_fd()).is_ok_and(|info| info.target == Target::Interface(0))
    }

    /// Says that the program belongs at another interface from now on; the next look puts it
    /// there.
    pub fn belongs_at(&mut self, netns: Option<Arc<Netns>>, interface: u32) {
        self.wanted.place = Place::Interface(netns, interface);
        self.wanted.target = Target::Interface(interface);
    }

    fn fault(&self) -> Option<&'static str> {
        match sys::link_info(self.link.as_fd()) {
            Err(_) => return Some("the link cannot be read"),
            Ok(info) if info.target != self.wanted.target => return Some("the link is detached"),
            Ok(info) if info.program != self.wanted.program_id => {
                return Some("the link runs another program");
            }
            Ok(_) if !self.is_first() => return Some("another program runs before ours"),
            Ok(_) => {}
        }
        (!self.wanted.path.exists()).then_some("the pin is gone")
    }

    /// Whether no other program may let something pass that ours would not.
    fn is_first(&self) -> bool {
        let Place::Interface(_, interface) = self.wanted.place else { return true };
        let first = || sys::first_program(interface, self.wanted.hook);
        // What cannot be asked is no reason to attach it anew every time.
        let first = self.wanted.place.inside(first);
        first.map_or(true, |first| first.is_none_or(|first| first == self.wanted.program_id))
    }

    fn repair(&mut self) -> Result<(), LinkError> {
        if !self.is_first() {
            // A link cannot be moved, and a program is at an interface at most once.
            sys::link_detach(self.link.as_fd()).map_err(|e| error(&self.wanted, "detach", e))?;
        }
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
    let place = match &wanted.place {
        Place::Open(descriptor) => sys::Place::Open(descriptor.as_fd()),
        Place::Interface(_, index) => sys::Place::Interface(*index),
    };
    let create = || sys::link_create(wanted.program.as_fd(), place, wanted.hook);
    let link = wanted.place.inside(create).map_err(|e| error(wanted, "attach", e))?;
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
