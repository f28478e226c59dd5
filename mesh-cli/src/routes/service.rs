//! `nodemesh routes SERVICE`: what each of its ports speaks, and which routes are for it.

use anyhow::Context;
use mesh_common::{
    matching::{
        protocol::{self, Choice, Protocol},
        route::{Standing, standings},
    },
    model::{NamespacedName, Service, ServicePort},
};
use serde::Serialize;

use super::{
    Format, request,
    seen::{Objects, Seen},
    shown::{self, Out, Rule},
    table, words,
};

/// Which Service.
#[derive(Debug, clap::Args)]
pub struct Question {
    /// The Service: NAME, NAMESPACE/NAME or NAME.NAMESPACE
    #[arg(value_name = "SERVICE", required = true)]
    service: Option<String>,
    /// Its namespace, where the name has none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    objects: Objects,
    /// How the answer is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// A Service and its routes.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// `namespace/name`.
    pub service: String,
    /// Whose objects say so.
    pub source: String,
    /// Its cluster IPs.
    pub addresses: Vec<String>,
    /// Its TCP ports.
    pub ports: Vec<Port>,
    /// Routes that are refused here, or partly wrong.
    pub refused: Vec<Out>,
}

/// A port.
#[derive(Debug, Serialize)]
pub struct Port {
    /// The number.
    pub port: u16,
    /// Its name; empty where it has none.
    pub name: String,
    /// HTTP, HTTP/2, bytes, or not declared.
    pub protocol: &'static str,
    /// What says so.
    pub because: String,
    /// Endpoints that are ready.
    pub ready: usize,
    /// All of them.
    pub endpoints: usize,
    /// The routes that are attached.
    pub routes: Vec<Attached>,
}

/// A route that is attached to a port.
#[derive(Debug, Serialize)]
pub struct Attached {
    /// Kind, namespace and name.
    pub route: String,
    /// For whom it is.
    pub clients: String,
    /// Why it is not followed; absent where it is.
    pub ignored: Option<String>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Question {
    /// What is to be printed.
    ///
    /// # Errors
    /// Where there is no such Service, or nobody to ask.
    pub fn answer(&self) -> anyhow::Result<String> {
        let service = self.service.as_deref().context("no Service is named")?;
        let (name, port) = request::service_name(service, &self.namespace)?;
        anyhow::ensure!(port.is_none(), "{service}: all ports are shown; leave `:PORT` out");
        let seen = self.objects.look()?;
        let answer = answer(&seen, seen.service(&name)?);
        self.output.print(&answer, table::service)
    }
}

fn answer(seen: &Seen, service: &Service) -> Answer {
    Answer {
        service: service.name.to_string(),
        source: seen.source.clone(),
        addresses: service.addresses.iter().map(ToString::to_string).collect(),
        ports: service.ports.iter().map(|port| shown_port(seen, &service.name, port)).collect(),
        refused: shown::refused(seen, &service.name, None),
    }
}

fn shown_port(seen: &Seen, service: &NamespacedName, port: &ServicePort) -> Port {
    let held = |client: &str| {
        let mut standings = standings(seen.routes(), service, port.port, client).into_iter();
        standings.any(|(it, standing)| standing == Standing::Holds && it.kind.is_for_requests())
    };
    let choice = protocol::choose(port, || held(&service.namespace));
    let attached = standings(seen.routes(), service, port.port, &service.namespace);
    let stream = attached.iter().find_map(|(it, standing)| {
        let holds = *standing == Standing::Holds && !it.kind.is_for_requests();
        holds.then(|| it.kind.name())
    });
    let (mut because, spoken) = match stream {
        Some(kind) => (format!("a {kind} holds"), words::BYTES),
        None => (words::choice(choice, port), words::protocol(choice)),
    };
    if stream.is_none()
        && choice == Choice::Sniffed
        && attached.iter().any(|(it, _)| held(&it.name.namespace))
    {
        because.push_str("; HTTP for clients with routes of their own");
    }
    let routes = attached.into_iter().map(|(route, _)| {
        // Of its own clients.
        let of = standings(seen.routes(), service, port.port, &route.name.namespace);
        let ignored = of.into_iter().find_map(|(it, standing)| match standing {
            Standing::Outranked(kind) if std::sync::Arc::ptr_eq(it, route) => {
                Some(format!("a {} has the port", kind.name()))
            }
            _ => None,
        });
        let is_opaque =
            route.kind.is_for_requests() && matches!(choice, Choice::Declared(Protocol::Opaque, _));
        let opaque = is_opaque.then(|| "the port carries bytes".to_owned());
        Attached {
            route: shown::named(route),
            clients: words::clients(&route.name, service),
            ignored: ignored.or(opaque),
            rules: route.rules.iter().map(|it| shown::rule(seen, route, it)).collect(),
        }
    });
    let (ready, endpoints) = seen.endpoints(service, port.port);
    Port {
        port: port.port,
        name: port.name.to_string(),
        protocol: spoken,
        because,
        ready,
        endpoints,
        routes: routes.collect(),
    }
}
