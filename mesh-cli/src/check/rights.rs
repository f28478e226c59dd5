//! Whether the caller may apply every object of the manifests.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::json;

use crate::{
    checklist::Checklist,
    cluster::Cluster,
    manifests::{self, IMAGE, Profile},
};

/// What applying on the server takes.
const VERBS: [&str; 2] = ["create", "patch"];
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    list.section("your rights");
    let manifests = manifests::objects(Profile::Secure, IMAGE)?;
    let resources: BTreeSet<(String, String, Option<String>)> = manifests
        .iter()
        .map(|it| (it.group().to_owned(), it.plural(), it.namespace().map(str::to_owned)))
        .collect();
    let count = resources.len();
    let mut is_good = true;
    for (group, resource, namespace) in resources {
        for verb in VERBS {
            let attributes = json!({
                "group": group, "resource": resource, "verb": verb, "namespace": namespace,
            });
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": attributes },
            });
            let answer = cluster.create(REVIEWS, &review).await?;
            if answer["status"]["allowed"] == true {
                continue;
            }
            is_good = false;
            let dot = if group.is_empty() { "" } else { "." };
            let place = namespace.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
            list.bad(
                format!("you may not {verb} {resource}{dot}{group}{place}"),
                "install as somebody who may: a cluster-admin, as a rule",
            );
        }
    }
    if is_good {
        list.good(format!("to create and change all {count} kinds of object"));
    }
    Ok(())
}
