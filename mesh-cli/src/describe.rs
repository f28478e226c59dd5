//! `nodemesh describe` and `nodemesh config`: what the mesh makes of one pod or Service, and where
//! each value comes from.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use mesh_common::{
    api::v1,
    model::{
        Action, NamespacedName, PeerMode, Resource, ResourceKey, ResourceKind, Service, Workload,
    },
};
use mesh_controller::compile::Compiled;

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    output, picture, status,
};

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
    /// A Service: its pods, and what of them is in the mesh
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

/// Runs `describe`.
///
/// # Errors
/// Where the cluster does not know what is asked for, refuses, or is not reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = match &args.what {
        What::Pod(named) => agents::runtime()?.block_on(async {
            let (cluster, text, resource) = named.find(ResourceKind::Workload, pod).await?;
            let Resource::Workload(workload) = resource else { return anyhow::Ok(text) };
            Ok(text + &rows(&said(&cluster, &workload).await))
        })?,
        What::Service(named) => named.show(ResourceKind::Service, service)?,
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `config`.
///
/// # Errors
/// As [`run`].
pub fn config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    output::print(&args.pod.show(ResourceKind::Workload, effective)?)?;
    Ok(ExitCode::SUCCESS)
}

impl Named {
    fn name(&self) -> NamespacedName {
        let (namespace, name) =
            self.name.split_once('/').unwrap_or((self.namespace.as_str(), self.name.as_str()));
        NamespacedName::new(namespace, name)
    }

    fn show(
        &self,
        kind: ResourceKind,
        show: fn(&Compiled, &Resource) -> String,
    ) -> anyhow::Result<String> {
        let (_, text, _) = agents::runtime()?.block_on(self.find(kind, show))?;
        Ok(text)
    }

    async fn find(
        &self,
        kind: ResourceKind,
        show: fn(&Compiled, &Resource) -> String,
    ) -> anyhow::Result<(Cluster, String, Resource)> {
        let cluster = self.cluster.connect().await?;
        let compiled = picture::compiled(&cluster).await?;
        let key = ResourceKey { kind, name: self.name() };
        let Some(resource) = compiled.resources.get(&key) else {
            bail!(
                "{}: the mesh knows no such {}: is the name right, has it an address?",
                key.name,
                if kind == ResourceKind::Service { "Service" } else { "pod" }
            );
        };
        Ok((cluster, show(&compiled, resource), resource.clone()))
    }
}

fn pod(_: &Compiled, resource: &Resource) -> String {
    let Resource::Workload(workload) = resource else { return String::new() };
    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    };
    let identity = workload.identity.as_ref().map_or("none".to_owned(), ToString::to_string);
    let services = workload.memberships.iter().map(|it| {
        let ready = if it.ready { "" } else { " (not ready)" };
        format!("{}{ready}", it.service)
    });
    rows(&[
        ("pod", workload.name.to_string()),
        ("in the mesh", yes(workload.enrolled)),
        ("identity", identity),
        ("node", workload.node.as_deref().unwrap_or("none").to_owned()),
        ("addresses", list(workload.addresses.iter().map(ToString::to_string).collect())),
        ("services", list(services.collect())),
        ("plaintext", plaintext(workload)),
        (
            "policies",
            list(workload.authorization_policies.iter().map(ToString::to_string).collect()),
        ),
    ])
}

/// What the agent of the pod's node says of it.
async fn said(cluster: &Cluster, pod: &Workload) -> Vec<(&'static str, String)> {
    let Some(node) = pod.node.as_deref().filter(|_| pod.enrolled) else { return Vec::new() };
    match status::of_node(cluster, node).await {
        Ok(status) => rows_of_agent(&status, &pod.name),
        Err(error) => vec![("agent", format!("could not be asked: {error:#}"))],
    }
}

fn rows_of_agent(status: &v1::NodeStatus, pod: &NamespacedName) -> Vec<(&'static str, String)> {
    let is_it = |name: &v1::NamespacedName| {
        (&*name.namespace, &*name.name) == (&*pod.namespace, &*pod.name)
    };
    let Some(pod) = status.pods.iter().find(|pod| pod.name.as_ref().is_some_and(is_it)) else {
        return vec![("state", "its agent does not know it yet".to_owned())];
    };
    let notes = pod.notes.iter().map(|note| ("note", note.clone()));
    [("state", pod.state.clone())].into_iter().chain(notes).collect()
}

fn service(compiled: &Compiled, resource: &Resource) -> String {
    let Resource::Service(service) = resource else { return String::new() };
    let Service { name, addresses, ports, .. } = service;
    let pods = compiled.resources.values().filter_map(|resource| match resource {
        Resource::Workload(workload) => {
            workload.memberships.iter().find(|it| it.service == *name).map(|it| (workload, it))
        }
        _ => None,
    });
    let mut text = rows(&[
        ("service", name.to_string()),
        ("addresses", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("ports", ports.iter().map(|it| it.port.to_string()).collect::<Vec<_>>().join(", ")),
    ]);
    let mut table = vec![["POD", "IN THE MESH", "READY", "PLAINTEXT"].map(str::to_owned).to_vec()];
    for (workload, membership) in pods {
        let name = workload.name.to_string();
        table.push(vec![name, yes(workload.enrolled), yes(membership.ready), plaintext(workload)]);
    }
    text.push('\n');
    text.push_str(&output::columns("", &table));
    text
}

fn effective(_: &Compiled, resource: &Resource) -> String {
    let Resource::Workload(workload) = resource else { return String::new() };
    let from = match &workload.admission.peer_policy {
        Some(policy) => format!("PeerPolicy {policy}"),
        None => "MeshConfig default, or the default where there is none".to_owned(),
    };
    let mode = |mode| match mode {
        PeerMode::Strict => "STRICT",
        PeerMode::Permissive => "PERMISSIVE",
    };
    let mut table = vec![["SETTING", "VALUE", "FROM"].map(str::to_owned).to_vec()];
    let mut add = |setting: &str, value: &str, from: &str| {
        table.push([setting, value, from].map(str::to_owned).to_vec());
    };
    add("in the mesh", &yes(workload.enrolled), "label nodemesh.dev/mesh of pod or namespace");
    add("peer mode", mode(workload.admission.peer_mode), &from);
    for it in &workload.admission.port_modes {
        add(&format!("peer mode of port {}", it.port), mode(it.mode), &from);
    }
    let default = match workload.admission.default_action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
    };
    let config = "MeshConfig default, or the default where there is none";
    add("what no policy governs", default, config);
    for policy in &workload.authorization_policies {
        add("authorization", &policy.to_string(), "AuthorizationPolicy");
    }
    output::columns("", &table)
}

fn rows(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> =
        rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    output::columns("", &rows)
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::json::tests::status;

    #[test]
    fn what_the_agent_says_is_of_the_pod_alone() {
        let said = |name: &str| rows_of_agent(&status(), &NamespacedName::new("shop", name));
        let note = ("note", "interface net1 is not in the mesh".to_owned());
        assert!(said("web").contains(&note), "{:?}", said("web"));
        assert!(!said("batch").contains(&note), "{:?}", said("batch"));
        assert_eq!(said("new"), [("state", "its agent does not know it yet".to_owned())]);
    }
}
