//! Letting pods around the mesh for a while.

use std::{sync::Arc, time::Duration};

use mesh_common::{
    api::v1::{self, bypass_request},
    model::Workload,
};
use tonic::Status;

use super::Admin;
use crate::bypass::{LONGEST, Scope, is_protected};

/// Begins a bypass or ends one. Blocks.
pub(super) fn answer(
    admin: &Admin,
    request: v1::BypassRequest,
) -> Result<v1::BypassResponse, Status> {
    let v1::BypassRequest { scope, seconds, insecure } = request;
    let scope = match scope {
        Some(bypass_request::Scope::Pod(pod)) => Scope::Pod(pod.namespace, pod.name),
        Some(bypass_request::Scope::Namespace(namespace)) => Scope::Namespace(namespace),
        Some(bypass_request::Scope::Node(true)) => Scope::Node,
        Some(bypass_request::Scope::Node(false)) | None => {
            return Err(Status::invalid_argument("say which pods: one, a namespace's, the node's"));
        }
    };
    let kept = |error| {
        Status::internal(format!("it cannot be kept on disk: {error}; look at --state-dir"))
    };
    if seconds == 0 {
        return match admin.bypasses.end(&scope).map_err(kept)? {
            true => Ok(v1::BypassResponse { node: admin.node.to_string(), ..Default::default() }),
            false => Err(Status::not_found(format!(
                "{scope} has no bypass on {}; `nodemesh status` shows those that there are",
                admin.node
            ))),
        };
    }
    let lasting = Duration::from_secs(seconds);
    if lasting > LONGEST {
        return Err(Status::invalid_argument(
            "at most 24h; take pods out of the mesh by their labels instead",
        ));
    }
    let mut pods = admin.snapshot.local_pods(&admin.node);
    pods.retain(|pod| scope.covers(&pod.name));
    if pods.is_empty() && scope != Scope::Node {
        return Err(Status::not_found(unknown(admin, &scope)));
    }
    let protected = pods.iter().filter(|pod| is_protected(pod));
    let protected: Vec<_> = protected.map(|pod| pod.name.to_string()).collect();
    if !protected.is_empty() && !insecure {
        return Err(Status::failed_precondition(format!(
            "strict, or governed by policies that nobody would enforce meanwhile: {}; whoever \
             reaches the address could call, and --insecure does it all the same",
            protected.join(", ")
        )));
    }
    let until = admin.bypasses.begin(scope, lasting, insecure).map_err(kept)?;
    let pods = pods.iter().map(|pod| (&pod.name).into()).collect();
    Ok(v1::BypassResponse { node: admin.node.to_string(), pods, until })
}

/// Why there is nobody to let around the mesh.
fn unknown(admin: &Admin, scope: &Scope) -> String {
    let Scope::Pod(..) = scope else {
        return format!("{} has no pod of {scope} in the mesh", admin.node);
    };
    let known: Vec<Arc<Workload>> = admin.snapshot.pods(|name| scope.covers(name));
    match known.first().map(|pod| pod.node.as_deref()) {
        Some(Some(node)) if *node == *admin.node => {
            format!("{scope} is not in the mesh, so there is nothing to bypass")
        }
        Some(Some(node)) => format!("{scope} is on {node}: run this command there"),
        Some(None) => format!("{scope} is on no node yet"),
        None => format!("{} knows no {scope}: look for it with `kubectl get pod`", admin.node),
    }
}
