//! The kernel programs: loading them, and attaching those of the node.

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    thread,
    time::Duration,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapData, MapError, PerCpuArray},
    programs::{Program, ProgramError},
};
use mesh_common::bpf::{Counter, Inbound, Pod, ProbeKey};

use super::{
    CaptureConfig,
    links::{HookState, LinkError, PinnedLink, Place, Wanted},
    pins::Pins,
    preflight, resize,
    sizes::{MapUse, SIZED_MAPS, SizedMap},
};
use crate::sys::{self, Hook, Map, Plain, Target, table::Table};

/// The programs that `cargo xtask ebpf` built before the agent was; empty if it did not.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-ebpf.o"));

/// The programs that are attached once a node.
const NODE_HOOKS: [(&str, Hook); 5] = [
    ("connect4", Hook::Connect4),
    ("connect6", Hook::Connect6),
    ("getpeername4", Hook::Getpeername4),
    ("getpeername6", Hook::Getpeername6),
    ("sock_ops", Hook::SockOps),
];

/// The maps that every instance of the programs shares.
const SHARED_MAPS: [&str; 15] = [
    "PODS",
    "ORIGINAL_DESTINATIONS",
    "ADMITTED",
    "UPSTREAMS",
    "PASSED",
    "PROBES",
    "UNSERVED",
    "DENIALS",
    "HEARTBEAT",
    "EVENTS",
    "COUNTERS",
    "ORIGIN",
    "SK_PROBE",
    "SK_PROXY",
    "AYA_LOGS",
];

/// How often the kernel programs' log is read, when it is on.
const LOG_INTERVAL: Duration = Duration::from_millis(100);
/// `AYA_LOG_LEVEL`: everything down to debug, and nothing.
static LOG_DEBUG: u8 = 4;
static LOG_NOTHING: u8 = 0;
/// The size of the log's ring when nothing is written to it: one page, the least there is.
const NO_LOG: u32 = 4096;

/// Why the kernel programs are not in place.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Nothing to load.
    #[error(
        "this agent was built without the kernel programs: run `cargo xtask ebpf` and build it again, or give --bpf-object"
    )]
    NotBuilt,
    /// The file given with --bpf-object.
    #[error("cannot read the kernel programs {}: {source}; check --bpf-object", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel or the object is not what we think.
    #[error("cannot load the kernel programs: {0}")]
    Load(#[from] EbpfError),
    /// The verifier refused.
    #[error("the kernel refuses the program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// The verifier's reason.
        source: ProgramError,
    },
    /// The object is not ours.
    #[error("the kernel programs lack `{0}`: the object is of another version of nodemesh")]
    Missing(&'static str),
    /// A hook.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A map.
    #[error("cannot use the kernel map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier agent had room for more.
    #[error(
        "{flag} leaves room for {size} in the kernel map {name}, where an earlier agent has {entries} entries that are in use: start this one with a larger {flag}"
    )]
    TooSmall {
        /// The map.
        name: &'static str,
        /// What sets its size.
        flag: &'static str,
        /// How many entries there would be room for.
        size: u32,
        /// How many there are.
        entries: usize,
    },
    /// The counters.
    #[error("cannot use the kernel map COUNTERS: {0}")]
    Counters(#[from] MapError),
    /// Pins.
    #[error("cannot make directories for pins: {0}; --bpffs must be on a bpffs")]
    Pins(io::Error),
    /// The cgroup.
    #[error("cannot look at the cgroup to attach at: {0}")]
    Cgroup(io::Error),
}

/// The loaded programs of the node.
pub struct Kernel {
    loader: EbpfLoader<'static>,
    object: Cow<'static, [u8]>,
    hooks: Vec<PinnedLink>,
    maps: Vec<PinnedMap>,
    sized: Vec<(&'static SizedMap, Table)>,
    counters: PerCpuArray<MapData, u64>,
    /// The enrolled pods, by network namespace cookie.
    pub pods: Map<u64, Pod>,
    /// Ports that the node's probes call, with the cookie of their pod.
    pub probes: Map<ProbeKey, u64>,
}

/// A map that every instance of the programs must find at its pin.
struct PinnedMap {
    name: &'static str,
    path: PathBuf,
    map: OwnedFd,
    repairs: u64,
}

/// The programs that guard a pod's link.
pub struct GuardPrograms {
    /// At the pod's own end.
    pub pod: LoadedProgram,
    /// At the node's end.
    pub host: LoadedProgram,
}

/// The programs of one pod, with maps of their own.
pub struct PodPrograms {
    /// At the pod's network namespace.
    pub inbound: LoadedProgram,
    /// For the two ends of the pod's link; `None` where the kernel cannot attach them.
    pub guards: Option<GuardPrograms>,
    /// Entry 0 is the configuration of all of them.
    pub config: Map<u32, Inbound>,
    /// The inbound modes of single ports.
    pub port_modes: Map<u32, u32>,
    /// The proxy's listeners, by descriptor.
    pub listeners: Map<u32, u32>,
}

/// A program that is not attached yet.
pub struct LoadedProgram {
    /// The program.
    pub program: OwnedFd,
    /// The id that the kernel gave it.
    pub id: u32,
}

impl Kernel {
    /// Loads the programs, adopting maps and links that are pinned, and attaches them.
    ///
    /// # Errors
    /// Where the kernel refuses; what was attached before then still is.
    pub fn start(config: &CaptureConfig, cgroup: File, pins: &Pins) -> Result<Self, KernelError> {
        let object = object(config)?;
        pins.create().map_err(KernelError::Pins)?;
        let resized = resize::resize(config, pins)?;
        let mut loader = loader(config, pins);
        let mut programs = loader.load(&object)?;

        let id = cgroup.metadata().map_err(KernelError::Cgroup)?.ino();
        let mut hooks = Vec::new();
        for (name, hook) in NODE_HOOKS {
            let LoadedProgram { program, id: program_id } = load(&mut programs, name)?;
            hooks.push(PinnedLink::establish(Wanted {
                name: name.to_owned(),
                path: pins.hook(name),
                program,
                program_id,
                place: Place::Open(cgroup.as_fd().try_clone_to_owned().map_err(KernelError::Pins)?),
                target: Target::Cgroup(id),
                hook,
            })?);
        }
        resized.finish()?;
        if config.kernel_log {
            read_log(&mut programs);
        }
        let maps = SHARED_MAPS.into_iter().map(|name| PinnedMap::open(name, pins));
        let maps = maps.collect::<Result<_, _>>()?;
        let sized = SIZED_MAPS.iter().map(|map| {
            let error = |source| KernelError::Map { name: map.name, source };
            Ok((map, Table::open(&pins.map(map.name)).map_err(error)?))
        });
        let sized = sized.collect::<Result<_, KernelError>>()?;
        let counters = programs.take_map("COUNTERS").ok_or(KernelError::Missing("COUNTERS"))?;
        Ok(Self {
            loader,
            object,
            hooks,
            maps,
            sized,
            counters: PerCpuArray::try_from(counters)?,
            pods: Map::open(&pins.map("PODS"))
                .map_err(|source| KernelError::Map { name: "PODS", source })?,
            probes: Map::open(&pins.map("PROBES"))
                .map_err(|source| KernelError::Map { name: "PROBES", source })?,
        })
    }

    /// Loads the programs of a pod, to be attached by the caller.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn pod_programs(&mut self) -> Result<PodPrograms, KernelError> {
        let mut programs = self.loader.load(&self.object)?;
        let guards = if preflight::has_tcx() {
            let (pod, host) =
                (load(&mut programs, "guard_pod")?, load(&mut programs, "guard_host")?);
            Some(GuardPrograms { pod, host })
        } else {
            None
        };
        Ok(PodPrograms {
            inbound: load(&mut programs, "inbound")?,
            guards,
            config: private_map(&mut programs, "INBOUND")?,
            port_modes: private_map(&mut programs, "PORT_MODES")?,
            listeners: private_map(&mut programs, "LISTENERS")?,
        })
    }

    /// Looks whether the node's hooks and maps are in place, and puts back what is not.
    pub fn verify_and_repair(&mut self) -> impl Iterator<Item = HookState> {
        let hooks = self.hooks.iter_mut().map(PinnedLink::verify_and_repair);
        hooks.chain(self.maps.iter_mut().map(PinnedMap::verify_and_repair))
    }

    /// How full the maps are that have a limit. Reads all of them: some milliseconds.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn map_use(&self) -> io::Result<Vec<MapUse>> {
        let count = |(map, table): &(&'static SizedMap, Table)| {
            let capacity = table.shape().max_entries.into();
            Ok(MapUse { map, entries: table.count()? as u64, capacity })
        };
        self.sized.iter().map(count).collect()
    }

    /// What the programs counted, over all CPUs.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL
            .into_iter()
            .filter_map(|(counter, name)| {
                let values = self.counters.get(&(counter as u32), 0).ok()?;
                Some((name, values.iter().sum()))
            })
            .collect()
    }
}

impl PinnedMap {
    fn open(name: &'static str, pins: &Pins) -> Result<Self, KernelError> {
        let path = pins.map(name);
        let map = sys::open_pin(&path).map_err(|source| KernelError::Map { name, source })?;
        Ok(Self { name, path, map, repairs: 0 })
    }

    /// Without its pin the next pod's program would get a map of its own, that nobody reads.
    fn verify_and_repair(&mut self) -> HookState {
        let attached = self.path.exists();
        let mut error = None;
        if !attached {
            self.repairs += 1;
            let directory = self.path.parent().map_or(Ok(()), fs::create_dir_all);
            let pinned = directory.and_then(|()| sys::pin(self.map.as_fd(), &self.path));
            error = pinned.err().map(|error| error.to_string());
        }
        HookState { name: format!("map {}", self.name), attached, repairs: self.repairs, error }
    }
}

fn object(config: &CaptureConfig) -> Result<Cow<'static, [u8]>, KernelError> {
    match &config.object {
        Some(path) => fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| KernelError::Object { path: path.clone(), source }),
        None if EMBEDDED.is_empty() => Err(KernelError::NotBuilt),
        None => Ok(Cow::Borrowed(EMBEDDED)),
    }
}

/// A loader for the node's programs and for each pod's instance: all share the pinned maps.
fn loader(config: &CaptureConfig, pins: &Pins) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    // Nothing of ours is relocated to the running kernel's types, whose description would take
    // 12 MiB for as long as there are pods to load a program for.
    loader.btf(None);
    for name in SHARED_MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    for map in SIZED_MAPS {
        loader.map_max_entries(map.name, (map.size)(config));
    }
    let level = if config.kernel_log { &LOG_DEBUG } else { &LOG_NOTHING };
    if !config.kernel_log {
        loader.map_max_entries("AYA_LOGS", NO_LOG);
    }
    loader.override_global(aya_log::LEVEL, level, true);
    loader
}

/// Loads one program of an object.
fn load(programs: &mut Ebpf, name: &'static str) -> Result<LoadedProgram, KernelError> {
    let program = programs.program_mut(name).ok_or(KernelError::Missing(name))?;
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => return Err(KernelError::Missing(name)),
    }
    .and_then(|()| {
        let id = program.info()?.id();
        Ok(LoadedProgram { program: program.fd()?.as_fd().try_clone_to_owned()?, id })
    })
    .map_err(|source| KernelError::Program { name, source })
}

/// A map that only this instance has.
fn private_map<K: Plain, V: Plain>(
    programs: &mut Ebpf,
    name: &'static str,
) -> Result<Map<K, V>, KernelError> {
    use aya::maps::Map::{Array, HashMap, SockMap};
    let data = match programs.take_map(name) {
        Some(Array(data) | HashMap(data) | SockMap(data)) => data,
        _ => return Err(KernelError::Missing(name)),
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .and_then(Map::new)
        .map_err(|source| KernelError::Map { name, source })
}

/// Copies the programs' log to ours for as long as the process lives.
fn read_log(programs: &mut Ebpf) {
    let started =
        aya_log::EbpfLogger::init(programs).map_err(io::Error::other).and_then(|mut log| {
            thread::Builder::new().name("kernel-log".to_owned()).spawn(move || {
                loop {
                    log.flush();
                    thread::sleep(LOG_INTERVAL);
                }
            })
        });
    if let Err(error) = started {
        tracing::warn!(%error, "the kernel programs' log cannot be read");
    }
}
