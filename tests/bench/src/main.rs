//! What `cargo xtask bench` runs besides unmodified programs: a bare relay pair to compare with,
//! and a ping-pong whose percentiles it prints.

#![forbid(unsafe_code)]

mod ping;
mod relay;
mod routes;
mod verdicts;

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Writes a root and one certificate of each side of the pair.
    Certificates {
        /// Where to.
        folder: PathBuf,
    },
    /// The half of the pair on the client's node: TCP in, TLS out.
    RelayClient(Relay),
    /// The half of the pair on the server's node: TLS in, TCP out.
    RelayServer(Relay),
    /// Sends back what it receives.
    Echo {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Sends 64 bytes, waits for them, and prints p50 and p99 in microseconds as JSON.
    Ping {
        /// An echo server.
        connect: SocketAddr,
        /// Round trips.
        #[arg(long, default_value_t = 20_000)]
        count: usize,
    },
    /// Opens connections to an echo server, sends one message on each, and holds them until
    /// standard input ends.
    Hold {
        /// An echo server.
        connect: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// Judges by many policies attached to one workload, and prints p50 and p99 in microseconds as
    /// JSON.
    Verdicts {
        /// Policies.
        #[arg(long, default_value_t = 10_000)]
        policies: usize,
    },
    /// Finds the rules of requests among few and among many routes of one Service, and prints
    /// nanoseconds as JSON.
    Routes {
        /// Routes.
        #[arg(long, default_value_t = 10_000)]
        routes: usize,
    },
}

#[derive(clap::Args)]
struct Relay {
    /// Where to listen.
    listen: SocketAddr,
    /// Where to relay to.
    connect: SocketAddr,
    /// What `certificates` wrote.
    #[arg(long)]
    certificates: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Certificates { folder } => relay::write_certificates(&folder),
        Command::RelayClient(Relay { listen, connect, certificates }) => {
            relay::client_side(listen, connect, &certificates)
        }
        Command::RelayServer(Relay { listen, connect, certificates }) => {
            relay::server_side(listen, connect, &certificates)
        }
        Command::Echo { listen } => ping::echo(listen),
        Command::Ping { connect, count } => ping::ping(connect, count),
        Command::Hold { connect, count } => ping::hold(connect, count),
        Command::Verdicts { policies } => verdicts::run(policies),
        Command::Routes { routes } => {
            routes::run(routes);
            Ok(())
        }
    }
}
