//! The kernel maps that have room for so many entries and no more, which flag of the agent says how
//! many, and what comes of it when one is full.

use mesh_common::bpf::DENIALS;

use super::CaptureConfig;

/// Addresses times ports of one pod that its probes and hooks may name: 32 ports in each family,
/// and a container rarely has three.
const PROBES_PER_POD: u32 = 64;
/// From how many percent on a map counts as almost full.
const ALMOST: u64 = 90;

/// A kernel map with a limit. Whoever adds one adds it here.
#[derive(Debug)]
pub struct SizedMap {
    /// Its name.
    pub name: &'static str,
    /// The flag of the agent that sets its size; `None` where it is fixed, because the proxy does the
    /// work of what finds no room.
    pub flag: Option<&'static str>,
    /// Its size.
    pub size: fn(&CaptureConfig) -> u32,
    /// What an agent does with what the one before it left there.
    pub content: Content,
}

/// What becomes of a map's content when an agent follows another with another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It stays: only agents write it.
    Kept,
    /// It stays, but for what the kernel programs take out meanwhile.
    Followed,
    /// It was of connections that ended with the earlier agent.
    Forgotten,
}

/// Every map with a limit that is shared by all instances of the programs on a node.
pub static SIZED_MAPS: &[SizedMap] = &[
    SizedMap {
        name: "PODS",
        flag: Some(MAX_PODS),
        size: |config| config.max_pods,
        content: Content::Kept,
    },
    SizedMap {
        name: "PROBES",
        flag: Some(MAX_PODS),
        size: |config| config.max_pods.saturating_mul(PROBES_PER_POD),
        content: Content::Kept,
    },
    of_connections("ORIGINAL_DESTINATIONS", Content::Forgotten),
    of_connections("ADMITTED", Content::Followed),
    of_connections("UPSTREAMS", Content::Followed),
    of_connections("PASSED", Content::Followed),
    SizedMap {
        name: "UNSERVED",
        flag: Some("--max-unserved"),
        size: |config| config.max_unserved,
        content: Content::Kept,
    },
    SizedMap { name: "DENIALS", flag: None, size: |_| DENIALS, content: Content::Forgotten },
];

const MAX_PODS: &str = "--max-pods";
const MAX_CONNECTIONS: &str = "--max-connections";

const fn of_connections(name: &'static str, content: Content) -> SizedMap {
    SizedMap { name, flag: Some(MAX_CONNECTIONS), size: |config| config.max_connections, content }
}

/// Something that the kernel programs could not write down.
#[derive(Debug)]
pub struct Overflow {
    /// The kernel's counter of it.
    pub counter: &'static str,
    /// Where there was no room.
    pub map: &'static str,
    /// What became of the connection.
    pub effect: &'static str,
}

/// Every counter that means "there was no room".
pub static OVERFLOWS: &[Overflow] = &[
    Overflow {
        counter: "capture_failed",
        map: "ORIGIN",
        effect: "connect() of captured pods failed with ENOMEM",
    },
    Overflow {
        counter: "publish_failed",
        map: "ORIGINAL_DESTINATIONS",
        effect: "new connections of captured pods were reset",
    },
    Overflow {
        counter: "admit_failed",
        map: "ADMITTED",
        effect: "connections of the proxy or of probes to pods of this node were taken for a \
            stranger's",
    },
    Overflow {
        counter: "upstream_failed",
        map: "UPSTREAMS",
        effect: "new connections of the proxy to other nodes and places time out",
    },
    Overflow {
        counter: "pass_unlisted",
        map: "PASSED",
        effect: "plaintext connections into pods are open that no policy can end",
    },
];

/// How full a map was when it was last counted.
#[derive(Clone, Copy, Debug)]
pub struct MapUse {
    /// The map.
    pub map: &'static SizedMap,
    /// How many entries it had.
    pub entries: u64,
    /// How many it has room for.
    pub capacity: u64,
}

impl MapUse {
    /// Whether at least `percent` of the room is taken.
    pub fn has_reached(&self, percent: u64) -> bool {
        self.entries * 100 >= self.capacity * percent
    }

    /// What is wrong where it is almost full, with what to do.
    pub fn problem(&self) -> Option<String> {
        let Self { map, entries, capacity } = self;
        let (name, advice) = (map.name, advice(map.name));
        map.flag?;
        self.has_reached(ALMOST).then(|| {
            format!(
                "kernel map {name} is almost full, {entries} entries of {capacity}: {advice}, or \
                 what finds no room in it is refused"
            )
        })
    }
}

impl Overflow {
    /// What happened, with what to do.
    pub fn problem(&self) -> String {
        let Self { map, effect, .. } = self;
        format!("there was no room in kernel map {map}: {effect}; {}", advice(map))
    }
}

/// What to do about a map that has no room.
pub fn advice(map: &str) -> String {
    match SIZED_MAPS.iter().find(|sized| sized.name == map).and_then(|sized| sized.flag) {
        Some(flag) => format!("start the agent with a larger {flag}"),
        // What is kept with sockets ends where the kernel's memory does.
        None => "see whether this node has memory left".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_common::bpf::Counter;

    use super::*;

    #[test]
    fn every_overflow_is_of_a_counter_and_says_what_to_do() {
        for overflow in OVERFLOWS {
            let counters = Counter::ALL.map(|(_, name)| name);
            assert!(counters.contains(&overflow.counter), "{overflow:?}");
            let problem = overflow.problem();
            assert!(problem.contains("--max-connections") || problem.contains("memory"));
        }
    }

    #[test]
    fn a_map_is_a_problem_from_nine_tenths_on() {
        let map = &SIZED_MAPS[0];
        let used = |entries| MapUse { map, entries, capacity: 16 }.problem();
        assert_eq!(used(14), None);
        let problem = used(15).expect("15 of 16 is more than 90 %");
        for part in ["PODS", "15 entries of 16", "--max-pods"] {
            assert!(problem.contains(part), "{problem}");
        }
    }
}
