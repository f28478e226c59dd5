//! The `mesh-controller` command.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use mesh_common::{
    identity::TrustDomain,
    listen::{self, Sharing, any},
    ports,
};
use mesh_controller::{
    ca::{Authority, SVID_LIFETIME},
    mesh::Mesh,
    private_file, run,
    serve::{Controller, Verifier},
    source::file::Folder,
    token::JoinSecret,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Turns Kubernetes objects into what nodemesh agents need, and signs their certificates.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a cluster, or a folder of Kubernetes YAML, to agents.
    Serve(Serve),
    /// Print the join token of a node.
    Token(Token),
}

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true))]
struct Serve {
    /// Folder of Kubernetes YAML, watched.
    #[arg(long, value_name = "DIR", group = "from", requires = "state_dir")]
    source: Option<PathBuf>,
    /// Follow a Kubernetes cluster, which also keeps the certificate authority and the captures.
    #[arg(long, group = "from")]
    kubernetes: bool,
    /// With --source: where the certificate authority, the join secret and the captures are kept.
    #[arg(long, value_name = "DIR", conflicts_with = "kubernetes")]
    state_dir: Option<PathBuf>,
    /// With --kubernetes: where the API server is [default: KUBECONFIG, ~/.kube/config, or the
    /// service account of the pod that this runs in]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// With --kubernetes: address for /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value_t = any(ports::READINESS))]
    health_listen: SocketAddr,
    /// Address to serve agents at.
    #[arg(long, value_name = "ADDRESS", default_value_t = any(ports::CONTROLLER))]
    listen: SocketAddr,
    /// Trust domain of every identity.
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT)]
    trust_domain: TrustDomain,
    /// How long certificates of workloads live, such as 24h, 30m or 90s; at most 365 days.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    svid_lifetime: Duration,
}

#[derive(clap::Args)]
struct Token {
    /// The node, as its Node object is called.
    node: String,
    /// The controller's state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(arguments) => serve(arguments),
        Command::Token(arguments) => token(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn token(arguments: &Token) -> anyhow::Result<()> {
    make_state_dir(&arguments.state_dir)?;
    let secret = JoinSecret::open(&arguments.state_dir)?;
    println!("{}", secret.token(&arguments.node)?);
    Ok(())
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("NODEMESH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
        };
        match (&arguments.source, &arguments.state_dir) {
            (Some(source), Some(state_dir)) => {
                serve_folder(source, state_dir, &arguments, shutdown).await
            }
            _ => Ok(run::run(settings(arguments), shutdown).await?),
        }
    })
}

fn settings(arguments: Serve) -> run::Settings {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    run::Settings {
        kubeconfig: arguments.kubeconfig,
        listen: arguments.listen,
        health_listen: arguments.health_listen,
        trust_domain: arguments.trust_domain,
        svid_lifetime: arguments.svid_lifetime,
        // A pod is called as its host is, unless it uses the host's network.
        name: std::env::var("POD_NAME").unwrap_or(name),
        capture_patience: run::CAPTURE_PATIENCE,
    }
}

async fn serve_folder(
    source: &Path,
    state_dir: &Path,
    arguments: &Serve,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let Serve { listen, trust_domain, svid_lifetime, .. } = arguments;
    make_state_dir(state_dir)?;
    let secret = JoinSecret::open(state_dir)?;
    let ca = state_dir.join("ca");
    let authority = Authority::open(&ca, trust_domain.clone(), *svid_lifetime)?;
    let mesh = Arc::new(Mesh::open(state_dir, trust_domain.clone())?);
    std::fs::read_dir(source)
        .with_context(|| format!("--source {} is no folder that can be read", source.display()))?;
    let listener = listen::listen(*listen, Sharing::Alone)
        .with_context(|| format!("cannot listen at {listen}; is another controller running?"))?;

    let (folder, objects) = Folder::load(source);
    tracing::info!(source = %source.display(), objects = objects.in_use.len(), "source read");
    mesh.set_objects(objects);
    watch(folder, &mesh)?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let controller = Controller::new(mesh, authority.into(), Verifier::Join(secret), None);
    Ok(controller.serve(listener, shutdown).await?)
}

/// Watches on a thread of its own, since reading files blocks. It ends with the process.
fn watch(folder: Folder, mesh: &Arc<Mesh>) -> anyhow::Result<()> {
    let mesh = Arc::downgrade(mesh);
    std::thread::Builder::new()
        .name("source".into())
        .spawn(move || {
            folder.watch(|objects| {
                mesh.upgrade().is_some_and(|mesh| {
                    tracing::info!(objects = objects.in_use.len(), "source changed");
                    mesh.set_objects(objects);
                    true
                })
            });
        })
        .context("cannot start the thread that watches the source")?;
    Ok(())
}

fn make_state_dir(dir: &Path) -> anyhow::Result<()> {
    private_file::make_directory(dir)
        .with_context(|| format!("--state-dir {} cannot be used", dir.display()))
}

/// A number and one of the units s, m, h, d.
fn lifetime(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration such as 24h, 30m or 90s");
    let (number, unit) = text.split_at(text.len() - usize::from(!text.is_empty()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let lifetime = Duration::from_secs(number.checked_mul(seconds).ok_or_else(expected)?);
    let most = 365 * SVID_LIFETIME;
    match lifetime {
        Duration::ZERO => Err("certificates that never are good are of no use".into()),
        _ if lifetime > most => Err("at most 365 days".into()),
        _ => Ok(lifetime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_knows_these_flags() {
        let manifest = include_str!("../../deploy/base/controller.yaml");
        let flags = manifest.lines().map(str::trim).filter_map(|line| line.strip_prefix("- "));
        let flags = flags.filter(|it| *it == "serve" || it.starts_with("--"));
        let cli = Cli::try_parse_from(std::iter::once("mesh-controller").chain(flags));
        match cli.expect("flags that exist").command {
            Command::Serve(serve) => assert!(serve.kubernetes),
            Command::Token(_) => panic!("the manifest serves"),
        }
    }
}
