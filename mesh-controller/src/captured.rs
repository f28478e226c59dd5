//! Which pods agents said they captured, kept where a restart finds it.
//!
//! Callers speak HBONE only to captured pods. Were this forgotten over a restart of the
//! controller, every connection of the mesh would fall back to plaintext until the last agent had
//! reported again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use mesh_common::api::v1::{CaptureReport, UncapturedPod, uncaptured_pod::State};
use serde::{Deserialize, Serialize};

use crate::private_file::{self, PrivateFileError};

/// So many bytes of a reason are kept: an Event has a thousand.
const REASON_BYTES: usize = 700;
/// So many pods of a node are kept with a reason, twice as many as a kubelet runs by itself: a
/// ConfigMap has a megabyte.
const MOST_REASONS: usize = 256;

/// When an agent said something: the start of its stream, and how many reports came before on it.
/// An agent has one stream at a time, so of two reports, whoever heard them, the later is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since the Unix epoch.
    stream: u64,
    report: u64,
}

impl Stamp {
    /// The first report of a stream that starts now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { stream: u64::try_from(since.as_millis()).unwrap_or(u64::MAX), report: 0 }
    }

    /// The next report of the same stream.
    pub fn next(self) -> Self {
        Self { report: self.report + 1, ..self }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream, self.report)
    }
}

impl FromStr for Stamp {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stream, report) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { stream: stream.parse()?, report: report.parse()? })
    }
}

/// What the agent of a node said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub stamp: Stamp,
    /// The uids of the pods that it captured.
    pub uids: BTreeSet<String>,
    /// Why others are not captured, by uid; unknown where an older agent says nothing.
    pub missed: BTreeMap<String, Missed>,
    /// Its version; empty where it was not kept.
    pub agent_version: String,
}

/// Why a pod that labels put in the mesh is not captured, as its agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// It was not tried yet, or waits for something.
    Waiting(String),
    /// It cannot be captured now.
    Failed(String),
    /// Somebody lets it around the mesh until then, seconds since the Unix epoch.
    Bypassed(u64),
}

impl Report {
    /// A report of these pods.
    pub fn new(stamp: Stamp, uids: impl IntoIterator<Item = String>) -> Self {
        Self { stamp, uids: uids.into_iter().collect(), ..Self::default() }
    }

    /// What an agent of this version said. Texts of its own are cut and counted: they are kept.
    pub fn from_wire(stamp: Stamp, agent_version: &str, wire: CaptureReport) -> Self {
        let missed = |pod: UncapturedPod| {
            let mut reason = pod.reason.clone();
            reason.truncate(reason.floor_char_boundary(REASON_BYTES));
            let missed = match pod.state() {
                State::Waiting => Missed::Waiting(reason),
                State::Failed => Missed::Failed(reason),
                State::Bypassed => Missed::Bypassed(pod.until),
                // A newer agent's.
                State::Unspecified => return None,
            };
            Some((pod.workload_uid, missed))
        };
        Self {
            missed: wire.uncaptured.into_iter().take(MOST_REASONS).filter_map(missed).collect(),
            agent_version: agent_version.chars().take(64).collect(),
            ..Self::new(stamp, wire.workload_uids)
        }
    }
}

/// The uids of captured pods by the node that said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    by_node: BTreeMap<String, Report>,
}

impl Captures {
    /// Whether the agent of `node` said that it captured the pod `uid`.
    pub fn holds(&self, node: &str, uid: &str) -> bool {
        self.by_node.get(node).is_some_and(|report| report.uids.contains(uid))
    }

    /// Why the pod `uid` is not captured, if the agent of `node` said so, and that agent's version.
    pub fn missed(&self, node: &str, uid: &str) -> Option<(&Missed, &str)> {
        let report = self.by_node.get(node)?;
        Some((report.missed.get(uid)?, &report.agent_version))
    }

    /// Replaces what the agent of `node` said, unless it is known to have said something since;
    /// whether that changed anything.
    pub fn report(&mut self, node: &str, report: Report) -> bool {
        let Some(known) = self.by_node.get_mut(node) else {
            let is_news = !report.uids.is_empty() || !report.missed.is_empty();
            self.by_node.insert(node.to_owned(), report);
            return is_news;
        };
        if report.stamp < known.stamp {
            return false;
        }
        let is_news = known.uids != report.uids || known.missed != report.missed;
        *known = report;
        is_news
    }
}

/// [`Captures`] in a file.
#[derive(Clone, Debug)]
pub struct CapturesFile {
    path: PathBuf,
}

impl CapturesFile {
    /// The file in the state directory `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("captures.json") }
    }

    /// What was saved last; nothing where there is no file.
    ///
    /// # Errors
    /// Where the file cannot be read or makes no sense.
    pub fn load(&self) -> Result<Captures, PrivateFileError> {
        let Some(bytes) = private_file::read(&self.path)? else { return Ok(Captures::default()) };
        let by_node: BTreeMap<String, BTreeSet<String>> = serde_json::from_slice(&bytes)
            .map_err(|error| PrivateFileError::content(&self.path, error))?;
        let report = |uids| Report { uids, ..Report::default() };
        Ok(Captures {
            by_node: by_node.into_iter().map(|(node, uids)| (node, report(uids))).collect(),
        })
    }

    /// Saves, so that either the old content or the new is there, whatever happens.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, captures: &Captures) -> Result<(), PrivateFileError> {
        let by_node = captures.by_node.iter().filter(|(_, report)| !report.uids.is_empty());
        let by_node: BTreeMap<_, _> = by_node.map(|(node, report)| (node, &report.uids)).collect();
        let bytes = serde_json::to_vec(&by_node)
            .map_err(|error| PrivateFileError::content(&self.path, error))?;
        private_file::write(&self.path, &bytes)
    }
}

#[cfg(test)]
mod tests;
