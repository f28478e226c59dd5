//! Settings of a pod's network namespace that delivery with the caller's address needs.
//!
//! The proxy connects to the application over the pod's loopback from the caller's address. The
//! application's replies find the way back by their mark, and these settings give them one.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use super::netns::Netns;

/// Under /proc/sys, with the value that is wanted.
const WANTED: [(&str, &str); 3] = [
    // Accepted sockets, IPv4 and IPv6, take over the mark of the connection.
    ("net/ipv4/tcp_fwmark_accept", "1"),
    // So do packets without a socket. Otherwise the RST of a closed port goes out to the caller,
    // and the proxy waits until it times out.
    ("net/ipv4/fwmark_reflect", "1"),
    ("net/ipv6/fwmark_reflect", "1"),
];

/// What the settings were before, by path under /proc/sys.
pub type Saved = BTreeMap<String, String>;

/// Why a setting cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {} in the pod: {source}; /proc/sys must be writable for the agent", path.display())]
pub struct SysctlError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Reads the settings. One that is absent, as IPv6's may be, is left out.
///
/// # Errors
/// Where a setting that is there cannot be read.
pub fn read(netns: &Netns) -> Result<Saved, SysctlError> {
    within(netns, || {
        let mut saved = Saved::new();
        for (name, _) in WANTED {
            match fs::read_to_string(path(name)) {
                Ok(value) => {
                    saved.insert(name.to_owned(), value.trim_end().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(SysctlError { action: "read", path: path(name), source });
                }
            }
        }
        Ok(saved)
    })
}

/// Sets what delivery needs, of the settings that are in `saved`. Whether anything was not so.
///
/// # Errors
/// Where a setting cannot be written.
pub fn apply(netns: &Netns, saved: &Saved) -> Result<bool, SysctlError> {
    let wanted = WANTED.into_iter().filter(|(name, _)| saved.contains_key(*name));
    within(netns, || write(wanted))
}

/// Sets the settings back.
///
/// # Errors
/// Where a setting cannot be written.
pub fn restore(netns: &Netns, saved: &Saved) -> Result<(), SysctlError> {
    let settings = saved.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    within(netns, || write(settings)).map(drop)
}

/// Whether anything had to be written.
fn write<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> Result<bool, SysctlError> {
    let mut has_written = false;
    for (name, value) in settings {
        let path = path(name);
        // What is so already need not be written: /proc/sys may be read-only.
        if fs::read_to_string(&path).is_ok_and(|now| now.trim_end() == value) {
            continue;
        }
        fs::write(&path, value).map_err(|source| SysctlError { action: "write", path, source })?;
        has_written = true;
    }
    Ok(has_written)
}

/// /proc/sys/net shows the network namespace of the thread that looks.
fn within<T>(netns: &Netns, f: impl FnOnce() -> Result<T, SysctlError>) -> Result<T, SysctlError> {
    let enter =
        |source| SysctlError { action: "enter the namespace for", path: path("net"), source };
    netns.run(f).map_err(enter)?
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
