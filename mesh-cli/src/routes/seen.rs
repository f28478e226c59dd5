//! Where the answer is from: a cluster's objects or files, compiled as the controller compiles them.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow};
use mesh_common::{
    identity::TrustDomain,
    model::{NamespacedName, Resource, Route, Service, ServicePort},
};
use mesh_controller::{
    captured::Captures,
    compile::{Compiled, compile},
    source::manifests::Manifests,
};

use crate::{agents, cluster::ClusterArgs, picture};

/// Whose objects are asked.
#[derive(Debug, clap::Args)]
pub struct Objects {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Ask a file instead, or a folder of *.yaml and *.yml files, read with its subfolders
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR",
          conflicts_with_all = ["kubeconfig", "context"])]
    filename: Option<PathBuf>,
}

/// What the controller makes of the objects.
#[derive(Debug)]
pub struct Seen {
    pub compiled: Compiled,
    /// Where they are from.
    pub source: String,
    /// Whether what is there now is all there is: files before they are applied name no endpoints.
    is_live: bool,
    routes: Vec<Arc<Route>>,
}

impl Objects {
    /// Reads and compiles them.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn look(&self) -> anyhow::Result<Seen> {
        let (compiled, source) = match &self.filename {
            Some(filename) => {
                std::fs::metadata(filename).with_context(|| filename.display().to_string())?;
                let objects = Manifests::load(filename).objects;
                for refusal in &objects.refusals {
                    eprintln!("nodemesh: not in use: {refusal}");
                }
                let index = objects.in_use.values().map(|(object, _)| object).collect();
                let domain: TrustDomain = TrustDomain::DEFAULT.parse()?;
                (compile(&index, &Captures::default(), &domain), filename.display().to_string())
            }
            None => {
                let compiled = agents::runtime()?
                    .block_on(async { picture::compiled(&self.cluster.connect().await?).await })?;
                (compiled, "the API server".to_owned())
            }
        };
        Ok(Seen::new(compiled, source, self.filename.is_none()))
    }
}

impl Seen {
    fn new(compiled: Compiled, source: String, is_live: bool) -> Self {
        let routes = compiled.resources.values().filter_map(|resource| match resource {
            Resource::Route(route) => Some(Arc::new(route.clone())),
            _ => None,
        });
        Self { routes: routes.collect(), compiled, source, is_live }
    }

    /// Every route that is attached to anything.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The Service of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn service(&self, name: &NamespacedName) -> anyhow::Result<&Service> {
        self.compiled.service(name).ok_or_else(|| {
            let others = self.compiled.resources.values().filter_map(|resource| match resource {
                Resource::Service(it) if it.name.name == name.name => Some(it.name.to_string()),
                _ => None,
            });
            let others: Vec<_> = others.collect();
            let hint = match others.is_empty() {
                true => "is the name right, and the namespace (-n)?".to_owned(),
                false => format!("there is {}: name its namespace with -n", others.join(", ")),
            };
            anyhow!("{} has no Service {name}: {hint}", self.source)
        })
    }

    /// How many endpoints a port of a Service has: those that are ready, and all.
    pub fn endpoints(&self, service: &NamespacedName, port: u16) -> (usize, usize) {
        let memberships = self.compiled.workloads().filter_map(|workload| {
            let mut of = workload.memberships.iter().filter(|it| it.service == *service);
            of.find(|it| it.ports.iter().any(|it| it.service_port == port))
        });
        memberships.fold((0, 0), |(ready, all), it| (ready + usize::from(it.ready), all + 1))
    }

    /// Whether so many `endpoints` are what there is, and not what nobody has written yet.
    pub fn knows(&self, endpoints: usize) -> bool {
        self.is_live || endpoints > 0
    }
}

/// A port with its name.
pub fn port_name(port: &ServicePort) -> String {
    match port.name.is_empty() {
        true => port.port.to_string(),
        false => format!("{} ({})", port.port, port.name),
    }
}
