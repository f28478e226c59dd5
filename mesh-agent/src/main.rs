//! The daemon: puts the rooms of the agent together and waits for the signal to end.

use std::{
    os::unix::process::CommandExt,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use mesh_agent::{
    admin::{Admin, http, socket::AdminSocket},
    bypass::Bypasses,
    capture::{self, Capture, CaptureConfig, PodNetns},
    config::{Cli, Command, Config, Paths},
    control::{
        connection::{Address, Connection},
        denials,
        enrolment::EnrolmentThread,
        kernel::{Kernel, Told},
        persist,
        plaintext::Plaintext,
        unserved,
    },
    denials::Denials,
    departure::{ApiServer, Departure},
    identity::{Certificates, Store, renewal},
    liveness::{Liveness, Pulse},
    observe::{Observer, kernel::KernelFlows, metrics::Metrics, unmeshed::UnmeshedTable},
    proxy::{Dependencies, Proxy, ProxyConfig},
    snapshot::Snapshot,
    status::{Status, StatusCollector},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The environment variable that says what is logged.
const LOG_FILTER: &str = "NODEMESH_LOG";

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let result = match (cli.command, cli.run) {
        (Some(Command::Cleanup(paths)), _) => clean_up(&paths),
        (None, Some(config)) => run(config),
        (None, None) => {
            let kind = clap::error::ErrorKind::MissingRequiredArgument;
            Cli::command().error(kind, "tell which node this is: --node NAME").exit()
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let wanted = std::env::var(LOG_FILTER).unwrap_or_default();
    let (filter, invalid) = match EnvFilter::try_new(&wanted) {
        Ok(filter) if !wanted.is_empty() => (filter, None),
        Ok(_) => (EnvFilter::new("info"), None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    if let Some(error) = invalid {
        tracing::warn!("{LOG_FILTER}={wanted} is no filter, using `info`: {error}");
    }
}

fn clean_up(paths: &Paths) -> anyhow::Result<()> {
    let pod_netns = paths.pod_netns();
    let cleaned = capture::cleanup(&paths.node, &paths.bpffs, &paths.state_dir, &pod_netns)?;
    // With the certificates' keys and the snapshot.
    let state = paths.node_state();
    gone(std::fs::remove_dir_all(&state))
        .with_context(|| format!("cannot remove {}", state.display()))?;
    gone(std::fs::remove_file(paths.admin_socket())).context("cannot remove the admin socket")?;
    let hooks = if cleaned.hooks { "hooks removed" } else { "no hooks were there" };
    println!("{}: {hooks}, {} pods set back", paths.node, cleaned.pods);
    Ok(())
}

/// What was not there is gone as well.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    // Connections are carried by the proxy's own threads; everything else is little work.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = config.paths.clone();
    if runtime.block_on(serve(config))? {
        tracing::info!("ends for good: pods are let out of the mesh, nothing stays on this node");
        return Err(become_cleanup(&paths)).context("cannot start the cleanup");
    }
    tracing::info!("ends; what is captured stays captured, and refuses until an agent is back");
    Ok(())
}

/// Cleans up in this process's place: whatever holds on to hooks and pods ends with what runs now.
fn become_cleanup(paths: &Paths) -> std::io::Error {
    let mut cleanup = std::process::Command::new("/proc/self/exe");
    cleanup.args(["cleanup", "--node", &paths.node]);
    cleanup.arg("--bpffs").arg(&paths.bpffs).arg("--state-dir").arg(&paths.state_dir);
    match paths.pod_netns() {
        PodNetns::Path(template) => cleanup.arg("--pod-netns").arg(template),
        PodNetns::Processes(procfs) => cleanup.arg("--procfs").arg(procfs),
    };
    cleanup.arg("--admin-socket").arg(paths.admin_socket());
    cleanup.exec()
}

/// Every connection takes two descriptors at most, and the usual soft limit is 1,024: it is for
/// programs that call select(), which we do not.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit of open files");
    }
}

/// Serves until it is told to end; whether that is for good.
async fn serve(config: Config) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node: Arc<str> = config.paths.node.as_str().into();
    let state = config.paths.node_state();
    tracing::info!(%node, version = env!("CARGO_PKG_VERSION"), "starts");

    let status = Arc::new(Status::default());
    let snapshot = Arc::new(Snapshot::new());
    let stored = state.join("snapshot.pb");
    if persist::load(&snapshot, &stored) {
        status.controller(|controller| controller.synced = true);
    }
    let certificates = Arc::new(Certificates::new(Some(Store::new(&state))));
    for problem in certificates.reload() {
        tracing::warn!("{problem}");
    }
    let metrics = Arc::new(Metrics::new());
    metrics.register(StatusCollector {
        status: Arc::clone(&status),
        certificates: Arc::clone(&certificates),
    });
    let observer = Arc::new(Observer::new(config.remembered_flows, Arc::clone(&metrics)));
    let unmeshed = Arc::new(UnmeshedTable::load(state.join("unmeshed.json")));

    let bypasses = Arc::new(Bypasses::load(state.join("bypass.json")));
    let shown = Arc::new(OnceLock::new());
    let admin = Admin {
        node: Arc::clone(&node),
        status: Arc::clone(&status),
        snapshot: Arc::clone(&snapshot),
        certificates: Arc::clone(&certificates),
        observer: Arc::clone(&observer),
        bypasses: Arc::clone(&bypasses),
        unmeshed: Arc::clone(&unmeshed),
        plaintext: Arc::clone(&shown),
    };
    let socket = config.paths.admin_socket();
    let _socket = AdminSocket::serve(&socket, admin)
        .with_context(|| format!("cannot serve {}; see --admin-socket", socket.display()))?;
    let at = config.metrics_address;
    http::serve(at, vec![http::Page::metrics(metrics)])
        .with_context(|| format!("cannot serve metrics at {at}; see --metrics-address"))?;
    let at = config.readiness_address;
    let liveness = Arc::new(Liveness::default());
    let pages = vec![
        http::Page::readiness(Arc::clone(&status)),
        http::Page::liveness(Arc::clone(&liveness)),
    ];
    http::serve(at, pages)
        .with_context(|| format!("cannot serve readiness at {at}; see --readiness-address"))?;

    let capture = Capture::start(capture_config(&config))?;
    liveness.watch("the sign of life for the kernel programs", capture.pulse());
    unmeshed.keep_only(&capture.adopted());
    let denials = Arc::new(Denials::new(capture.sockets()));
    tokio::spawn(denials::follow(snapshot.changed(), Arc::clone(&denials)));
    let dependencies = Dependencies {
        sockets: capture.sockets(),
        snapshot: Arc::clone(&snapshot),
        certificates: Arc::clone(&certificates),
        observer: Arc::clone(&observer),
        denials: Arc::clone(&denials),
    };
    let flows = KernelFlows {
        node: Arc::clone(&node),
        observer: Arc::clone(&observer),
        snapshot: Arc::clone(&snapshot),
        denials: Arc::clone(&denials),
    };
    tokio::spawn(unserved::follow(Arc::clone(&snapshot), Arc::clone(&status), capture.sockets()));
    flows.start(capture.events()?).context("cannot read what the kernel programs tell")?;
    let plaintext = Arc::new(Plaintext {
        node: Arc::clone(&node),
        sockets: capture.sockets(),
        snapshot: Arc::clone(&snapshot),
        observer: Arc::clone(&observer),
        status: Arc::clone(&status),
        pods: Default::default(),
    });
    shown.get_or_init(|| Arc::clone(&plaintext));
    tokio::spawn(Arc::clone(&plaintext).follow());
    let told = Told {
        node: Arc::clone(&node),
        observer,
        unmeshed,
        plaintext,
        snapshot: Arc::clone(&snapshot),
        denials,
    };
    let proxy = ProxyConfig { node, workers: config.workers(), http: config.http };
    let proxy = Arc::new(Proxy::start(proxy, dependencies).context("cannot start the proxy")?);

    let pulse = Arc::<Pulse>::default();
    let enrolment = EnrolmentThread {
        node: config.paths.node.clone(),
        snapshot: Arc::clone(&snapshot),
        certificates: Arc::clone(&certificates),
        bypasses,
        status: Arc::clone(&status),
        pulse: Arc::clone(&pulse),
    };
    let kernel = Kernel::new(capture, proxy, told);
    let reports = enrolment.start(kernel).context("cannot start a thread")?;
    liveness.watch("capturing pods", pulse);
    tokio::spawn(persist::keep(Arc::clone(&snapshot), Arc::clone(&status), stored));
    let connection = Connection {
        address: Address {
            url: config.controller,
            ca: config.controller_ca,
            token: config.join_token_file,
        },
        snapshot,
        status,
        captured: reports.captured.clone(),
    };
    let handles = connection.start();
    let renewal =
        renewal::keep(certificates, handles.authority, reports.wanted.clone(), handles.reconnected);
    tokio::spawn(renewal);

    let departure = match config.daemon_set {
        Some(set) => Some(Departure::begin(ApiServer::of_pod(config.service_account)?, set)),
        None => None,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let is_for_good = match departure {
        Some(departure) => departure.is_for_good().await,
        None => false,
    };
    if is_for_good {
        reports.let_everybody_go().await;
    }
    Ok(is_for_good)
}

fn capture_config(config: &Config) -> CaptureConfig {
    CaptureConfig {
        node: config.paths.node.clone(),
        cgroup: config.cgroup.clone(),
        bpffs: config.paths.bpffs.clone(),
        pod_netns: config.paths.pod_netns(),
        state_dir: config.paths.state_dir.clone(),
        workers: config.workers(),
        max_pods: config.max_pods,
        max_connections: config.max_connections,
        max_unserved: config.max_unserved,
        object: config.bpf_object.clone(),
        kernel_log: config.kernel_log,
    }
}
