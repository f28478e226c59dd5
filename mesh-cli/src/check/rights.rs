//! Whether the caller may do what `install` and `uninstall` do.

use std::collections::BTreeSet;

use anyhow::Result;
use mesh_common::SYSTEM_NAMESPACE;
use serde_json::json;

use crate::{
    checklist::Checklist,
    cluster::Cluster,
    manifests::{self, IMAGE, Profile},
};

/// What applying on the server takes.
const VERBS: [&str; 2] = ["create", "patch"];
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const RBAC: &str = "rbac.authorization.k8s.io";
/// All that there is.
const ALL: &str = "*";

/// A right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    namespace: Option<String>,
}

impl Right {
    fn new(verb: &str, group: &str, resource: &str, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { verb: verb.into(), group: group.into(), resource: resource.into(), namespace }
    }

    /// Whether the caller has it.
    async fn is_given(&self, cluster: &Cluster) -> Result<bool> {
        let Self { verb, group, resource, namespace } = self;
        let attributes = json!({
            "group": group, "resource": resource, "verb": verb, "namespace": namespace,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        Ok(cluster.create(REVIEWS, &review).await?["status"]["allowed"] == true)
    }

    fn text(&self) -> String {
        let Self { verb, group, resource, namespace } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let place = namespace.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
        format!("{verb} {resource}{dot}{group}{place}")
    }
}

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    list.section("your rights");
    let install = missing(cluster, &to_install()?).await?;
    if install.is_empty() {
        list.good("to install: to create and change all kinds of object, and to see them work");
    }
    for right in install {
        list.bad(
            format!("you may not {}", right.text()),
            "install as somebody who may: a cluster-admin, as a rule",
        );
    }
    let grant = missing(cluster, &to_grant()).await?;
    let may_all = || Right::new(ALL, ALL, ALL, None);
    if grant.is_empty() || may_all().is_given(cluster).await? {
        list.good("to grant the rights of controller and agents");
    } else {
        let texts: Vec<String> = grant.iter().map(Right::text).collect();
        list.warning(
            format!("you may not {}", texts.join(", ")),
            "the API server refuses Roles with rights that you do not have yourself: those of \
             deploy/base/rbac-controller.yaml and rbac-agent.yaml",
        );
    }
    let uninstall = missing(cluster, &to_uninstall()?).await?;
    if uninstall.is_empty() {
        list.good("to uninstall, with a Job on each node");
    }
    for right in uninstall {
        list.warning(format!("you may not {}", right.text()), "`nodemesh uninstall` needs it");
    }
    Ok(())
}

async fn missing(cluster: &Cluster, rights: &BTreeSet<Right>) -> Result<Vec<Right>> {
    let mut missing = Vec::new();
    for right in rights {
        if !right.is_given(cluster).await? {
            missing.push(right.clone());
        }
    }
    Ok(missing)
}

/// To apply the manifests, to wait until definitions are served, and for pods to be ready.
fn to_install() -> Result<BTreeSet<Right>> {
    let mut rights = of_manifests(&VERBS)?;
    let own = Some(SYSTEM_NAMESPACE);
    rights.extend([
        Right::new("get", "apiextensions.k8s.io", "customresourcedefinitions", None),
        Right::new("get", "apps", "deployments", own),
        Right::new("get", "apps", "daemonsets", own),
        Right::new("list", "", "pods", own),
    ]);
    Ok(rights)
}

/// To make Roles and bindings of rights that one need not have.
fn to_grant() -> BTreeSet<Right> {
    let own = Some(SYSTEM_NAMESPACE);
    let of = |verb: &str| {
        [Right::new(verb, RBAC, "clusterroles", None), Right::new(verb, RBAC, "roles", own)]
    };
    of("escalate").into_iter().chain(of("bind")).collect()
}

/// To delete everything, and to clean nodes up before.
fn to_uninstall() -> Result<BTreeSet<Right>> {
    let mut rights = of_manifests(&["delete"])?;
    let jobs = |verb| Right::new(verb, "batch", "jobs", Some(SYSTEM_NAMESPACE));
    rights.extend(["create", "list", "delete"].map(jobs));
    rights.insert(Right::new("list", "", "nodes", None));
    Ok(rights)
}

/// `verbs` on every kind of the manifests.
fn of_manifests(verbs: &[&str]) -> Result<BTreeSet<Right>> {
    let manifests = manifests::objects(Profile::Secure, IMAGE)?;
    let rights = manifests.iter().flat_map(|it| {
        verbs.iter().map(|verb| Right::new(verb, it.group(), &it.plural(), it.namespace()))
    });
    Ok(rights.collect())
}
