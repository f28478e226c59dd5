//! `nodemesh authz POD`: what the agent of the pod's node says, or what the cluster's objects do.

use std::net::IpAddr;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use mesh_common::api::v1::{self, supposed_connection::Caller};

use super::{
    objects,
    shown::{Shown, Source},
    table,
};
use crate::{
    agents::{self, Agents, Place, pod_name},
    output::Palette,
    picture,
};

/// Which pod, and which connection to it.
#[derive(Debug, clap::Args)]
pub struct Question {
    #[command(flatten)]
    agents: Agents,
    /// Read the objects of the cluster instead, wherever the pod is, and ask no agent
    #[arg(long, conflicts_with_all = ["paths", "node"])]
    objects: bool,
    /// The pod that is called; without a namespace in the name, of --namespace
    #[arg(value_name = "[NAMESPACE/]POD", required = true)]
    pod: Option<String>,
    /// Namespace of pods that are named without one
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Judge a connection of this pod, or of who has proved this SPIFFE ID
    #[arg(long, value_name = "[NAMESPACE/]POD|SPIFFE-ID", requires = "port")]
    from: Option<String>,
    /// The caller's address [default: that of the pod]; without --from, it speaks plaintext
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    from_ip: Option<IpAddr>,
    /// The port of the pod that is called, not that of a Service
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How the answer is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people; long rules are cut.
    Table,
    /// The same with every rule as it is.
    Wide,
    /// One JSON object on a line.
    Json,
    /// The same object as YAML.
    Yaml,
}

/// The state of a pod whose connections prove who it is.
const CAPTURED: &str = "captured";

/// What one agent said.
#[derive(Debug)]
enum Said {
    /// It is the one of the pod's node.
    Pod(Box<v1::PodAuthorization>),
    /// The pod is on this other node.
    Elsewhere(String),
    Unknown,
}

impl Question {
    /// Whether nothing was denied, and what is to be printed.
    ///
    /// # Errors
    /// Where the question makes no sense or nobody has the answer.
    pub fn answer(&self, palette: Palette) -> anyhow::Result<(bool, String)> {
        let shown = self.shown()?;
        let allowed = shown.judgement.as_ref().is_none_or(|judgement| judgement.allowed);
        let text = match self.output {
            Format::Table => table::text(&shown, false, palette),
            Format::Wide => table::text(&shown, true, palette),
            Format::Json => serde_json::to_string(&shown)? + "\n",
            Format::Yaml => serde_saphyr::to_string(&shown)?,
        };
        Ok((allowed, text))
    }

    fn shown(&self) -> anyhow::Result<Shown> {
        let (pod, connection) = self.read()?;
        let runtime = agents::runtime().context("cannot start")?;
        if self.objects {
            let compiled = runtime.block_on(async {
                let cluster = self.agents.cluster().connect().await?;
                picture::compiled(&cluster).await
            })?;
            let answer = objects::answer(&compiled, &pod, connection)?;
            return Ok(Shown::new(&answer, Source::Objects));
        }
        let answer = runtime.block_on(async {
            let places = self.agents.find().await?;
            let answer = self.ask_all(&places, &pod, connection.clone()).await;
            let (Err(_), Some(asked)) = (&answer, connection) else { return answer };
            let Some(Caller::Pod(caller)) = asked.caller else { return answer };
            // The pod's agent knows no pods of other nodes that never called it; their own do.
            let Ok(caller) = self.ask_all(&places, &caller, None).await else { return answer };
            let proved = caller.state == CAPTURED && !caller.identity.is_empty();
            let from = caller.addresses.first().cloned().unwrap_or_default();
            let connection = v1::SupposedConnection {
                caller: proved.then_some(Caller::Identity(caller.identity)),
                address: if asked.address.is_empty() { from } else { asked.address },
                port: asked.port,
            };
            self.ask_all(&places, &pod, Some(connection)).await
        })?;
        Ok(Shown::new(&answer, Source::Agent))
    }

    /// What the agent of the pod's node says.
    async fn ask_all(
        &self,
        places: &[Place],
        pod: &v1::NamespacedName,
        connection: Option<v1::SupposedConnection>,
    ) -> anyhow::Result<v1::PodAuthorization> {
        let request = v1::GetAuthorizationRequest { pod: Some(pod.clone()), connection };
        let ask = |place| {
            let request = request.clone();
            async move { ask(&place, request).await }
        };
        let (mut elsewhere, mut failed) = (None, None);
        for answer in agents::each(places.to_vec(), ask).await {
            match answer {
                Ok(Said::Pod(answer)) => return Ok(*answer),
                Ok(Said::Elsewhere(node)) => elsewhere = Some(node),
                Ok(Said::Unknown) => {}
                // Of several agents one that is gone does not hide the others.
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| anyhow!(unknown(pod, elsewhere.as_deref()))))
    }

    fn read(&self) -> anyhow::Result<(v1::NamespacedName, Option<v1::SupposedConnection>)> {
        let named = |pod: &str| -> anyhow::Result<v1::NamespacedName> {
            let (namespace, name) = pod_name(pod, self.namespace.as_deref())?;
            Ok(v1::NamespacedName { namespace, name })
        };
        let pod = named(self.pod.as_deref().context("no pod is named")?)?;
        let Some(port) = self.port else { return Ok((pod, None)) };
        ensure!(
            self.from.is_some() || self.from_ip.is_some(),
            "--port: who calls? give --from, or for plaintext --from-ip"
        );
        let caller = self.from.as_deref().map(|from| {
            if from.contains("://") {
                return Ok(Caller::Identity(from.to_owned()));
            }
            named(from).map(Caller::Pod).context("--from")
        });
        let connection = v1::SupposedConnection {
            caller: caller.transpose()?,
            address: self.from_ip.map(|address| address.to_string()).unwrap_or_default(),
            port: port.into(),
        };
        Ok((pod, Some(connection)))
    }
}

async fn ask(place: &Place, request: v1::GetAuthorizationRequest) -> anyhow::Result<Said> {
    let mut agent = place.connect().await?;
    let answer = place.answer(agent.get_authorization(request)).await?;
    Ok(match answer.pod {
        Some(pod) if pod.node == answer.node => Said::Pod(Box::new(pod)),
        Some(pod) => Said::Elsewhere(pod.node),
        None => Said::Unknown,
    })
}

/// Why there is no answer, and where it is.
fn unknown(pod: &v1::NamespacedName, elsewhere: Option<&str>) -> String {
    let v1::NamespacedName { namespace, name } = pod;
    match elsewhere {
        Some("") => format!("{namespace}/{name} is on no node yet: no agent decides for it"),
        Some(node) => format!(
            "{namespace}/{name} is on {node}, whose agent was not asked, and no other knows who may \
             call it: run this command there, or with --node {node}"
        ),
        None => format!(
            "no agent that was asked knows a pod {namespace}/{name}: look for it with \
             `kubectl get pod -n {namespace} {name} -o wide`; the agents of a whole cluster are \
             asked with --kubeconfig or --context"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        question: Question,
    }

    fn question(
        words: &[&str],
    ) -> anyhow::Result<(v1::NamespacedName, Option<v1::SupposedConnection>)> {
        Cli::try_parse_from(["authz"].iter().chain(words))?.question.read()
    }

    #[test]
    fn a_question_names_pods_as_kubectl_users_do() -> anyhow::Result<()> {
        let name = |name: &str| v1::NamespacedName { namespace: "shop".into(), name: name.into() };
        assert_eq!(question(&["shop/web"])?, (name("web"), None));
        let (pod, asked) = question(&["web", "-n", "shop", "--from", "batch", "--port", "80"])?;
        let asked = asked.context("a connection")?;
        assert_eq!((pod, asked.caller), (name("web"), Some(Caller::Pod(name("batch")))));
        let identity = "spiffe://cluster.local/ns/shop/sa/web";
        let words = ["shop/web", "--from", identity, "--from-ip", "fd00::1", "--port", "80"];
        let asked = question(&words)?.1.context("a connection")?;
        assert_eq!(asked.caller, Some(Caller::Identity(identity.into())));
        assert_eq!((asked.address.as_str(), asked.port), ("fd00::1", 80));
        for wrong in [
            &[][..],
            &["web"],
            &["shop/web", "--from", "batch", "--port", "80"],
            &["shop/web", "--from", "shop/batch"],
            &["shop/web", "--port", "80"],
            &["shop/web", "--from-ip", "10.0.0.1", "--port", "0"],
            &["shop/web", "--from-ip", "10.0.0", "--port", "80"],
        ] {
            question(wrong).expect_err("no question");
        }
        Ok(())
    }

    #[test]
    fn who_was_not_asked_is_named() {
        let pod = v1::NamespacedName { namespace: "shop".into(), name: "web".into() };
        assert!(unknown(&pod, Some("node-2")).contains("is on node-2, whose agent was not asked"));
        assert!(unknown(&pod, None).contains("kubectl get pod -n shop web"));
    }
}
