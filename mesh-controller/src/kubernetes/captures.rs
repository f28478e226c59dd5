//! Which pods are captured, kept in the cluster: a ConfigMap a node, in nodemesh-system.
//!
//! Every controller watches all of them before it serves anybody, so a new one knows what the one
//! before knew, and two know the same. The stamp decides between two that heard the same agent.
//! Not a condition on the pod, because who may patch the status of pods may send their traffic
//! elsewhere; ConfigMaps of one namespace need no such right.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use mesh_common::{SYSTEM_NAMESPACE, model::NamespacedName};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    ApiError, Resource, Verb,
    backoff::Backoff,
    health::Health,
    watch::{Change, Observer, Watcher},
};
use crate::{
    captured::Report,
    mesh::Mesh,
    object::{Kind, ObjectKey},
};

/// What marks a ConfigMap as one of these.
const LABEL: &str = "nodemesh.dev/captures";
const SELECTOR: &str = "nodemesh.dev/captures=true";
/// What the resource is called where something is wrong with it.
const NAME: &str = "configmaps in nodemesh-system";
/// The name of a ConfigMap has this many bytes at most, as that of a Node.
const NAME_BYTES: usize = 253;
/// So long an agent's report waits to be kept before others are told of it all the same.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Two controllers that hear the same agent get in each other's way this often at most.
const TRIES: u32 = 5;

/// Keeps reports where other controllers see them.
#[derive(Clone)]
pub struct Ledger {
    api: Api<ConfigMap>,
    mesh: Arc<Mesh>,
    /// What could not be kept yet, by node.
    pending: Arc<Mutex<BTreeMap<String, Report>>>,
    is_pending: Arc<Notify>,
}

impl Ledger {
    /// A ledger that writes through `client`, and knows nodes from `mesh`. Its
    /// [`retry`](Self::retry) has to run.
    pub fn new(client: Client, mesh: Arc<Mesh>) -> Self {
        Self {
            api: Api::namespaced(client, SYSTEM_NAMESPACE),
            mesh,
            pending: Arc::default(),
            is_pending: Arc::default(),
        }
    }

    /// Keeps what the agent of `node` said. Where that takes too long it is tried again later: an
    /// API server that is away must not keep callers of new pods on plaintext.
    pub async fn save(&self, node: &str, report: &Report) {
        let saved = tokio::time::timeout(TIMEOUT, self.try_save(node, report)).await;
        let error = match saved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => ApiError::away(Verb::Update, NAME, "no answer in time"),
        };
        tracing::warn!(
            node,
            "captures are not kept yet: until they are, callers that another controller serves may \
             speak plaintext to newly captured pods: {error}"
        );
        self.lock().insert(node.to_owned(), report.clone());
        self.is_pending.notify_one();
    }

    /// Tries again what could not be kept, for ever.
    pub async fn retry(&self) {
        loop {
            self.is_pending.notified().await;
            let mut backoff = Backoff::default();
            loop {
                let next = self.lock().iter().next().map(|(node, it)| (node.clone(), it.clone()));
                let Some((node, report)) = next else { break };
                match self.try_save(&node, &report).await {
                    Ok(()) => {
                        let mut pending = self.lock();
                        if pending.get(&node) == Some(&report) {
                            pending.remove(&node);
                        }
                    }
                    Err(error) => {
                        let wait = backoff.next(Duration::ZERO, error.retry_after());
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    async fn try_save(&self, node: &str, report: &Report) -> Result<(), ApiError> {
        let name = name(node);
        let parameters = PostParams::default();
        let failed = |verb| move |error: kube::Error| ApiError::new(verb, NAME, &error);
        let mut tries = 0;
        loop {
            let known = self.api.get_opt(&name).await.map_err(failed(Verb::Get))?;
            let version = known.as_ref().and_then(|known| known.metadata.resource_version.clone());
            if let Some((_, known)) = known.as_ref().and_then(read)
                && known.stamp >= report.stamp
            {
                return Ok(());
            }
            let key = ObjectKey { kind: Kind::Node, name: NamespacedName::new("", node) };
            let uid = self.mesh.uid_of(&key);
            let new = write(node, uid, report, version.clone());
            let result = match version {
                None => self.api.create(&parameters, &new).await.map_err(failed(Verb::Create)),
                Some(_) => {
                    self.api.replace(&name, &parameters, &new).await.map_err(failed(Verb::Update))
                }
            };
            tries += 1;
            match result {
                Ok(_) => return Ok(()),
                Err(ApiError::Conflict { .. } | ApiError::NotFound { .. }) if tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Report>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows what every controller keeps and tells `mesh`, for ever. From the call on the controller
/// is not ready before it was listed.
pub fn follow(
    client: Client,
    health: Health,
    mesh: Arc<Mesh>,
) -> impl Future<Output = ()> + Send + 'static {
    health.expect(NAME);
    async move {
        let resource = Resource::new("v1", Some(SYSTEM_NAMESPACE), "configmaps").labelled(SELECTOR);
        Watcher::new(client, &resource).follow(ReportObserver { health, mesh }).await;
    }
}

struct ReportObserver {
    health: Health,
    mesh: Arc<Mesh>,
}

impl Observer for ReportObserver {
    type Item = Option<(String, Report)>;

    fn decode(&self, object: Value) -> Self::Item {
        report(object)
    }

    async fn changed(&mut self, change: Change<Self::Item>) -> bool {
        let reports = match change {
            Change::Listed(reports) => {
                // Known before the controller counts as ready.
                for (node, report) in reports.iter().flatten() {
                    self.mesh.report_captures(node, report.clone());
                }
                self.health.listed(NAME, reports.len());
                return true;
            }
            Change::Applied(report) => report,
            // Of a node that is gone, as its pods are; or a mistake, and the agent is still there.
            Change::Deleted(_) => None,
        };
        self.health.event(NAME);
        if let Some((node, report)) = reports {
            self.mesh.report_captures(&node, report);
        }
        true
    }

    fn is_well(&mut self, trouble: Option<&ApiError>) {
        self.health.is_well(NAME, trouble);
    }
}

/// The ConfigMap of a node. Names of nodes may be as long as its own may be.
fn name(node: &str) -> String {
    let name = format!("captures.{node}");
    if name.len() <= NAME_BYTES {
        return name;
    }
    let hash = digest(&SHA256, node.as_bytes());
    let hex: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("captures-{hex}")
}

/// Owned by its Node, so that it goes with it.
fn write(
    node: &str,
    node_uid: Option<Arc<str>>,
    report: &Report,
    version: Option<String>,
) -> ConfigMap {
    let uids: Vec<&str> = report.uids.iter().map(String::as_str).collect();
    let mut data = BTreeMap::from([
        ("node".to_owned(), node.to_owned()),
        ("stamp".to_owned(), report.stamp.to_string()),
        ("uids".to_owned(), uids.join("\n")),
        ("agentVersion".to_owned(), report.agent_version.clone()),
    ]);
    // A map of texts and numbers is JSON, whatever they are.
    if let (false, Ok(missed)) = (report.missed.is_empty(), serde_json::to_string(&report.missed)) {
        data.insert("missed".to_owned(), missed);
    }
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_string(),
        ..OwnerReference::default()
    });
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(node)),
            owner_references: owner.map(|owner| vec![owner]),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
            resource_version: version,
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// The node that a ConfigMap of nodemesh-system is about, and what its agent said; `None` where it
/// is about something else.
pub fn report(object: Value) -> Option<(String, Report)> {
    let object: ConfigMap = serde_json::from_value(object).ok()?;
    let is_ours = object.metadata.labels.as_ref()?.get(LABEL).is_some_and(|it| it == "true");
    is_ours.then(|| read(&object))?
}

fn read(object: &ConfigMap) -> Option<(String, Report)> {
    let data = object.data.as_ref()?;
    let stamp = data.get("stamp")?.parse().ok()?;
    let uids = data.get("uids")?.lines().map(str::to_owned);
    // What an older controller did not write, or a newer one writes otherwise, is not known.
    let missed = data.get("missed").and_then(|json| serde_json::from_str(json).ok());
    let report = Report {
        missed: missed.unwrap_or_default(),
        agent_version: data.get("agentVersion").cloned().unwrap_or_default(),
        ..Report::new(stamp, uids)
    };
    Some((data.get("node")?.clone(), report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::{Missed, Stamp};

    #[test]
    fn what_is_written_is_read() {
        let missed = [
            ("u-3".to_owned(), Missed::Failed("no \"such\" namespace\n".to_owned())),
            ("u-4".to_owned(), Missed::Bypassed(1_800_000_000)),
        ];
        let report = Report {
            missed: missed.into(),
            agent_version: "0.1.0".to_owned(),
            ..Report::new(Stamp::now().next(), ["u-1".to_owned(), "u-2".to_owned()])
        };
        let object = write("node-1", Some("u".into()), &report, None);
        assert_eq!(object.metadata.name.as_deref(), Some("captures.node-1"));
        assert_eq!(read(&object), Some(("node-1".to_owned(), report.clone())));
        let mut of_before = object;
        let data = of_before.data.get_or_insert_default();
        data.retain(|key, _| ["node", "stamp", "uids"].contains(&&**key));
        let known = Report::new(report.stamp, report.uids);
        assert_eq!(read(&of_before), Some(("node-1".to_owned(), known)), "of an older controller");
        let nothing = Report::new(Stamp::now(), []);
        assert_eq!(read(&write("a", None, &nothing, None)), Some(("a".to_owned(), nothing)));
    }

    #[test]
    fn other_configmaps_are_left_alone() {
        let map = |label: &str| {
            serde_json::json!({
                "metadata": { "name": "captures.node-1", "labels": { LABEL: label } },
                "data": { "node": "node-1", "stamp": "17.2", "uids": "u-1\nu-2" },
            })
        };
        let (node, known) = report(map("true")).expect("a report");
        assert_eq!((node.as_str(), known.uids.len()), ("node-1", 2));
        assert_eq!(report(map("false")), None);
    }

    #[test]
    fn the_longest_node_has_a_name_too() {
        let long = "n".repeat(NAME_BYTES);
        assert!(name(&long).len() <= NAME_BYTES);
        assert_ne!(name(&long), name(&format!("{}m", &long[1..])));
    }
}
