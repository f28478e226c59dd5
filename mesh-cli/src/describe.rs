//! `nodemesh describe` and `nodemesh config`: what the mesh makes of one pod or Service, and where
//! each value comes from.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use mesh_common::model::{NamespacedName, Workload};
use mesh_controller::{
    compile::Compiled,
    object::{Kind, Object},
};

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    output,
    picture::Picture,
};

mod effective;
mod enrolment;
mod pod;
mod service;

/// Shows what the mesh makes of a pod or a Service.
///
/// Exit status: 0 where it is known, 1 where it is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A pod: identity, Services, policies, modes
    ///
    /// Also what the agent of its node says of it, such as interfaces that are not in the mesh.
    Pod(Named),
    /// A Service: its pods, what of them is in the mesh, and its routes
    Service(Named),
}

/// Shows the values that are in effect for a pod, and where each comes from.
///
/// Exit status: 0 where the pod is known, 1 where it is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    pod: Named,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Its name, or namespace/name
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A cluster, and what the mesh makes of it.
struct Seen {
    cluster: Cluster,
    picture: Picture,
    compiled: Compiled,
}

/// Runs `describe`.
///
/// # Errors
/// Where the cluster does not know what is asked for, refuses, or is not reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = agents::runtime()?.block_on(async {
        match &args.what {
            What::Pod(named) => {
                let seen = named.look().await?;
                match seen.compiled.workload(&named.name()) {
                    Some(workload) => {
                        let mut shown = pod::shown(&seen, workload);
                        shown.extend(pod::said(&seen.cluster, workload).await);
                        Ok(rows(&shown))
                    }
                    None => Ok(rows(&pod::without_address(seen.pod(&named.name())?))),
                }
            }
            What::Service(named) => {
                let seen = named.look().await?;
                let name = named.name();
                match seen.compiled.service(&name) {
                    Some(service) => Ok(service::shown(&seen, service)),
                    None => bail!("{name}: the mesh knows no such Service: is the name right?"),
                }
            }
        }
    })?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `config`.
///
/// # Errors
/// As [`run`].
pub fn config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let name = args.pod.name();
    let seen = agents::runtime()?.block_on(args.pod.look())?;
    let Some(workload) = seen.compiled.workload(&name) else {
        let (_, why) = pod::state(seen.pod(&name)?);
        bail!("{name} {why}, so nothing is in effect for it");
    };
    output::print(&effective::shown(&seen, workload))?;
    Ok(ExitCode::SUCCESS)
}

impl Named {
    fn name(&self) -> NamespacedName {
        let (namespace, name) =
            self.name.split_once('/').unwrap_or((self.namespace.as_str(), self.name.as_str()));
        NamespacedName::new(namespace, name)
    }

    async fn look(&self) -> anyhow::Result<Seen> {
        let cluster = self.cluster.connect().await?;
        let picture = Picture::of(&cluster).await?;
        let compiled = picture.compiled();
        Ok(Seen { cluster, picture, compiled })
    }
}

impl Seen {
    /// The pod of that name, whatever it has.
    fn pod(&self, name: &NamespacedName) -> anyhow::Result<&mesh_controller::object::Pod> {
        match self.picture.object(Kind::Pod, name) {
            Some(Object::Pod(pod)) => Ok(pod),
            _ => {
                bail!("{name}: the cluster has no such pod: is the name right, and the namespace?")
            }
        }
    }
}

fn rows(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> =
        rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    output::columns("", &rows)
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// What becomes of plaintext to a pod.
fn plaintext(workload: &Workload) -> String {
    if !workload.enrolled {
        return "let in: not in the mesh".to_owned();
    }
    let admission = &workload.admission;
    match (admission.is_strict_everywhere(), admission.is_strict_somewhere()) {
        (true, _) => "refused".to_owned(),
        (false, true) => "refused at some ports".to_owned(),
        (false, false) => "let in where no policy refuses it".to_owned(),
    }
}
