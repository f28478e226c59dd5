//! The resources that are there without a CustomResourceDefinition.

use crate::{
    registry::{Generation, Origin, Resource, Scale},
    table,
};

/// Everything built in, in the order of discovery.
pub fn resources() -> Vec<Resource> {
    KINDS.iter().map(resource).collect()
}

/// A row of the table below: what differs from kind to kind.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    traits: &'static [Trait],
    fields: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq)]
enum Trait {
    Cluster,
    Status,
    Scale,
    /// Generation grows with the spec.
    Spec,
    /// Generation grows with everything.
    Everything,
    /// `kubectl get all` shows it.
    All,
    Review,
}

use Trait::{All, Cluster, Everything, Review, Scale as Scaled, Spec, Status};

const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    traits: &'static [Trait],
    fields: &'static [&'static str],
) -> Row {
    Row { group, version, kind, plural, short, traits, fields }
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const WEBHOOKS: &str = "admissionregistration.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Names, short names and traits are those of Kubernetes 1.33 (`kubectl api-resources`).
#[rustfmt::skip]
const KINDS: &[Row] = &[
    row("", "v1", "ConfigMap", "configmaps", &["cm"], &[], &[]),
    row("", "v1", "Endpoints", "endpoints", &["ep"], &[], &[]),
    row("", "v1", "Event", "events", &["ev"], &[], EVENT_FIELDS),
    row("", "v1", "Namespace", "namespaces", &["ns"], &[Cluster, Status], &["status.phase"]),
    row("", "v1", "Node", "nodes", &["no"], &[Cluster, Status], &["spec.unschedulable"]),
    row("", "v1", "Pod", "pods", &["po"], &[Status, Spec, All], POD_FIELDS),
    row("", "v1", "Secret", "secrets", &[], &[], &["type"]),
    row("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], &[], &[]),
    row("", "v1", "Service", "services", &["svc"], &[Status, All], &["spec.clusterIP", "spec.type"]),
    row(WEBHOOKS, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &[], &[Cluster, Everything], &[]),
    row(WEBHOOKS, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &[], &[Cluster, Everything], &[]),
    row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], &[Cluster, Status, Spec], &[]),
    row("apiregistration.k8s.io", "v1", "APIService", "apiservices", &[], &[Cluster, Status], &[]),
    row(APPS, "v1", "DaemonSet", "daemonsets", &["ds"], &[Status, Spec, All], &[]),
    row(APPS, "v1", "Deployment", "deployments", &["deploy"], &[Status, Scaled, Spec, All], &[]),
    row(APPS, "v1", "ReplicaSet", "replicasets", &["rs"], &[Status, Scaled, Spec, All], &["status.replicas"]),
    row(APPS, "v1", "StatefulSet", "statefulsets", &["sts"], &[Status, Scaled, Spec, All], &[]),
    row("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", &[], &[Cluster, Review], &[]),
    row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", &[], &[Cluster, Review], &[]),
    row(AUTHORIZATION, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", &[], &[Review], &[]),
    row(AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", &[], &[Cluster, Review], &[]),
    row(AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews", &[], &[Cluster, Review], &[]),
    row("batch", "v1", "Job", "jobs", &[], &[Status, Spec, All], &["status.successful"]),
    row("coordination.k8s.io", "v1", "Lease", "leases", &[], &[], &[]),
    row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[], &[Everything], &[]),
    row("events.k8s.io", "v1", "Event", "events", &["ev"], &[], NEW_EVENT_FIELDS),
    row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", &["netpol"], &[Spec], &[]),
    row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", &[], &[Cluster], &[]),
    row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], &[Status, Spec], &[]),
    row(RBAC, "v1", "ClusterRole", "clusterroles", &[], &[Cluster], &[]),
    row(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", &[], &[Cluster], &[]),
    row(RBAC, "v1", "Role", "roles", &[], &[], &[]),
    row(RBAC, "v1", "RoleBinding", "rolebindings", &[], &[], &[]),
];

fn resource(row: &Row) -> Resource {
    let has = |wanted| row.traits.contains(&wanted);
    let mut categories = Vec::new();
    if has(All) {
        categories.push("all".to_owned());
    }
    if row.plural == "customresourcedefinitions" {
        categories.push("api-extensions".to_owned());
    }
    let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
    Resource {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        namespaced: !has(Cluster),
        short_names: owned(row.short),
        categories,
        status: has(Status),
        scale: has(Scaled).then(|| Scale {
            replicas: "spec.replicas".to_owned(),
            status_replicas: "status.replicas".to_owned(),
            selector: Some("spec.selector".to_owned()),
        }),
        generation: if has(Spec) {
            Generation::Spec
        } else if has(Everything) {
            Generation::Everything
        } else {
            Generation::Never
        },
        fields: owned(row.fields),
        columns: table::builtin::columns(row.group, row.kind),
        schema: None,
        storage: storage(row.group, row.plural),
        origin: if has(Review) { Origin::Review } else { Origin::Builtin },
    }
}

/// Events of both groups are the same objects.
fn storage(group: &str, plural: &str) -> String {
    match group {
        "" | "events.k8s.io" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    }
}
