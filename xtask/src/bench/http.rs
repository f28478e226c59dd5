//! Requests: no mesh, nodemesh, Envoy, HAProxy and nginx, over one plain hop and from node to node
//! with mutual TLS, HTTP/1.1 and gRPC. One run, interleaved, medians.

use std::{fmt, path::Path, process::Command};

use anyhow::{Result, ensure};

mod config;
mod measure;
mod stage;
mod table;

use measure::Measurement;
use stage::Stage;

use super::ROUNDS;

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    NoMesh,
    Nodemesh,
    Envoy,
    Haproxy,
    Nginx,
}

impl Proxy {
    /// Every one, in the order of the table.
    const ALL: [Self; 5] = [Self::NoMesh, Self::Nodemesh, Self::Envoy, Self::Haproxy, Self::Nginx];
    /// Those that are not part of this project.
    const OTHERS: [Self; 3] = [Self::Envoy, Self::Haproxy, Self::Nginx];

    fn name(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::Nodemesh => "nodemesh",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What requests are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// wrk asks for a page of 1 KiB.
    Http1,
    /// h2load sends messages of 64 bytes, as a gRPC client would.
    Grpc,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One proxy on the client's node, and a server that speaks plaintext.
    Plain,
    /// A proxy on each node, mutual TLS between them.
    Mtls,
}

/// What is measured together, and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    pub protocol: Protocol,
    pub way: Way,
}

impl Course {
    const ALL: [Self; 4] = [
        Self { protocol: Protocol::Http1, way: Way::Plain },
        Self { protocol: Protocol::Http1, way: Way::Mtls },
        Self { protocol: Protocol::Grpc, way: Way::Plain },
        Self { protocol: Protocol::Grpc, way: Way::Mtls },
    ];

    /// What nodemesh's CPU time a request may be of Envoy's.
    fn bar(self) -> f64 {
        match self.way {
            Way::Plain => 0.6,
            Way::Mtls => 0.5,
        }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Grpc => "gRPC",
        };
        match self.way {
            Way::Plain => write!(f, "{protocol}, one plain hop"),
            Way::Mtls => write!(f, "{protocol}, two nodes with mTLS"),
        }
    }
}

/// Measures everything and prints the table.
pub fn run(peer: &Path) -> Result<()> {
    println!("Laying out the mesh, servers and other proxies.");
    let stage = Stage::set_up(peer)?;
    let mut measured: Vec<(Course, Proxy, Vec<Measurement>)> = Course::ALL
        .into_iter()
        .flat_map(|course| Proxy::ALL.map(|proxy| (course, proxy, Vec::new())))
        .collect();
    for round in 1..=ROUNDS {
        for (course, proxy, rounds) in &mut measured {
            println!("Round {round} of {ROUNDS}: {course}: {}", proxy.name());
            rounds.push(Measurement::take(&stage, *course, *proxy)?);
        }
    }
    println!("\n{}", table::render(&measured));
    // Nothing else runs any more that would take time from it.
    drop(stage);
    println!("\nFinding a request's rule among 10 routes of a Service, and among 10,000:");
    let routes = Command::new(peer).arg("routes").status()?;
    ensure!(routes.success(), "{} routes failed", peer.display());
    Ok(())
}
