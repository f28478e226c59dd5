//! `nodemesh enroll`: which pods the labels have put into the mesh, and the end of what they have
//! open from before.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use mesh_common::{MESH_LABEL, SYSTEM_NAMESPACE, api::v1};

use crate::{
    agents::{self, Agents, Name, Place},
    output::{self, Palette},
};

mod render;

/// Says whether pods are in the mesh, and ends their connections from before.
///
/// Labels enrol pods, this command does not: it says for each pod what its agent made of them, and
/// what to do where it is not in the mesh. Connections from before a pod was in the mesh are
/// called unmeshed and go on outside of it, whatever policies say. --close-existing ends
/// them with a reset on both sides, so that the programs open new ones, in the mesh.
///
/// Asks the agents of this machine, where they have their sockets; else, or where one is named,
/// those of a cluster.
///
/// Exit status: 0 where every pod is captured, 1 where one is not or something failed, 2 for wrong
/// usage.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    agents: Agents,
    /// Pods; without a namespace in the name, of --namespace
    #[arg(value_name = "[NAMESPACE/]POD", required_unless_present = "namespace")]
    pods: Vec<String>,
    /// Namespace of the pods; without any pod, every pod of it
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// End the connections that are from before the pods were in the mesh
    #[arg(long)]
    close_existing: bool,
    /// For people, or one JSON object a line and pod
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line a pod.
    Table,
    /// One JSON object a line.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Where no agent is found, or no pod that was asked for.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (names, request) = match args.request() {
        Ok(request) => request,
        Err(error) => {
            eprintln!("nodemesh: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = agents::runtime().context("cannot start")?;
    let mut answers = Vec::new();
    let mut is_well = true;
    let asked = runtime.block_on(async {
        let places = args.agents.find().await?;
        let ask = |place| {
            let request = request.clone();
            async move { ask(&place, request).await }
        };
        anyhow::Ok(agents::each(places, ask).await)
    })?;
    for answer in asked {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                eprintln!("nodemesh: {error:#}");
                is_well = false;
            }
        }
    }
    let (pods, elsewhere) = sort(answers);
    let mut text = String::new();
    for pod in pods.values() {
        text += &match args.output {
            Format::Table => render::line(pod, args.close_existing, Palette::detect()),
            Format::Json => render::json(pod)?,
        };
    }
    output::print(&text)?;
    for name in names.iter().filter(|name| !pods.contains_key(*name)) {
        is_well = false;
        eprintln!("nodemesh: {}", unknown(name, elsewhere.get(name)));
    }
    if pods.is_empty() && names.is_empty() && is_well {
        let namespace = args.namespace.as_deref().unwrap_or_default();
        bail!("no agent that was asked knows a pod in namespace {namespace}");
    }
    for pod in pods.values() {
        is_well &= pod.state == "captured" && pod.error.is_empty();
        if let Some(advice) = advice(pod) {
            eprintln!("nodemesh: {advice}");
        }
    }
    if pods.values().any(|pod| pod.unmeshed > 0) && !args.close_existing {
        eprintln!("nodemesh: --close-existing ends connections from before");
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn request(&self) -> anyhow::Result<(BTreeSet<Name>, v1::EnrollRequest)> {
        let namespace = self.namespace.as_deref();
        let names = self.pods.iter().map(|pod| agents::pod_name(pod, namespace));
        let names = names.collect::<anyhow::Result<BTreeSet<Name>>>()?;
        let pods = names.iter().cloned();
        let pods = pods.map(|(namespace, name)| v1::NamespacedName { namespace, name }).collect();
        let whole = self.namespace.iter().filter(|_| names.is_empty()).cloned();
        let request = v1::EnrollRequest {
            pods,
            namespaces: whole.collect(),
            close_existing: self.close_existing,
        };
        Ok((names, request))
    }
}

async fn ask(place: &Place, request: v1::EnrollRequest) -> anyhow::Result<v1::EnrollResponse> {
    let mut agent = place.connect().await?;
    place.answer(agent.enroll(request)).await
}

type Pods = BTreeMap<Name, v1::PodEnrollment>;

/// The pods that an agent spoke for, and those that are on nodes nobody asked.
fn sort(answers: Vec<v1::EnrollResponse>) -> (Pods, Pods) {
    let (mut here, mut elsewhere) = (Pods::new(), Pods::new());
    for answer in answers {
        for pod in answer.pods {
            let Some(v1::NamespacedName { namespace, name }) = pod.name.clone() else { continue };
            let pods = if pod.node == answer.node { &mut here } else { &mut elsewhere };
            pods.insert((namespace, name), pod);
        }
    }
    (here, elsewhere)
}

fn unknown((namespace, name): &Name, elsewhere: Option<&v1::PodEnrollment>) -> String {
    match elsewhere.map(|pod| pod.node.as_str()) {
        Some("") => format!("{namespace}/{name} is on no node yet"),
        Some(node) => {
            format!(
                "{namespace}/{name} is on {node}: run this command there, or with --node {node}"
            )
        }
        None => format!(
            "no agent that was asked knows a pod {namespace}/{name}: look for it with `kubectl get \
             pod -n {namespace} {name} -o wide`; the agents of a whole cluster are asked with \
             --kubeconfig or --context"
        ),
    }
}

/// What to do about a pod that no label has put into the mesh.
fn advice(pod: &v1::PodEnrollment) -> Option<String> {
    let v1::NamespacedName { namespace, name } = pod.name.as_ref()?;
    if pod.enrolled {
        return None;
    }
    Some(if ["kube-system", SYSTEM_NAMESPACE].contains(&namespace.as_str()) {
        format!("{namespace}/{name} is not in the mesh: pods of {namespace} never are")
    } else {
        format!(
            "{namespace}/{name} is not in the mesh: enrol it with `kubectl label pod -n {namespace} \
             {name} {MESH_LABEL}=enabled --overwrite`, or all of its namespace with `kubectl label \
             namespace {namespace} {MESH_LABEL}=enabled`; pods with hostNetwork, and those that \
             have ended, are never enrolled"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn request(words: &[&str]) -> anyhow::Result<v1::EnrollRequest> {
        let cli = Cli::try_parse_from(["enroll"].iter().chain(words))?;
        cli.args.request().map(|(_, request)| request)
    }

    #[test]
    fn pods_are_named_as_kubectl_users_do() -> anyhow::Result<()> {
        let pod = |namespace: &str, name: &str| v1::NamespacedName {
            namespace: namespace.into(),
            name: name.into(),
        };
        let asked = request(&["shop/web", "batch", "-n", "legacy", "--close-existing"])?;
        assert_eq!(asked.pods, [pod("legacy", "batch"), pod("shop", "web")]);
        assert!(asked.namespaces.is_empty() && asked.close_existing);
        let asked = request(&["--namespace", "shop"])?;
        assert_eq!((asked.pods.len(), asked.namespaces), (0, vec!["shop".to_owned()]));
        for wrong in [&[][..], &["web"], &["/web"], &["shop/"]] {
            request(wrong).expect_err("no pod");
        }
        Ok(())
    }

    #[test]
    fn the_agent_of_the_pods_node_has_the_word() {
        let pod = |node: &str, state: &str| v1::PodEnrollment {
            name: Some(v1::NamespacedName { namespace: "shop".into(), name: "web".into() }),
            node: node.into(),
            state: state.into(),
            ..Default::default()
        };
        let answer = |node: &str, pod| v1::EnrollResponse { node: node.into(), pods: vec![pod] };
        let name = ("shop".to_owned(), "web".to_owned());
        let other = answer("node-1", pod("node-2", ""));
        let (here, elsewhere) = sort(vec![other.clone()]);
        assert!(here.is_empty());
        assert!(unknown(&name, elsewhere.get(&name)).contains("is on node-2"));
        let (here, _) = sort(vec![answer("node-2", pod("node-2", "captured")), other]);
        assert_eq!(here[&name].state, "captured");
        assert!(unknown(&name, None).contains("no agent that was asked"));
    }

    #[test]
    fn what_labels_cannot_do_is_not_advised() {
        let pod = |namespace: &str, enrolled| v1::PodEnrollment {
            name: Some(v1::NamespacedName { namespace: namespace.into(), name: "dns".into() }),
            enrolled,
            ..Default::default()
        };
        assert!(advice(&pod("shop", false)).is_some_and(|it| it.contains("kubectl label pod")));
        assert!(advice(&pod("kube-system", false)).is_some_and(|it| !it.contains("kubectl")));
        assert_eq!(advice(&pod("shop", true)), None);
    }
}
