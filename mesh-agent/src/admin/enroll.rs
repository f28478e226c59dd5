//! What labels made of pods, and the end of their connections from before.

use std::collections::HashSet;

use mesh_common::{
    api::v1,
    model::{NamespacedName, Workload},
};

use super::Admin;
use crate::status::Phase;

/// Answers for the pods that were asked for, as far as they are known. Blocks.
pub(super) fn answer(admin: &Admin, request: &v1::EnrollRequest) -> v1::EnrollResponse {
    let name = |it: &v1::NamespacedName| NamespacedName::new(&it.namespace, &it.name);
    let names: HashSet<NamespacedName> = request.pods.iter().map(name).collect();
    let namespaces: HashSet<&str> = request.namespaces.iter().map(String::as_str).collect();
    let mut pods =
        admin.snapshot.pods(|name| names.contains(name) || namespaces.contains(&*name.namespace));
    // Of a namespace those of other nodes are left out: nobody asked for them by name.
    pods.retain(|pod| admin.is_here(pod) || names.contains(&pod.name));
    let close = request.close_existing;
    v1::EnrollResponse {
        node: admin.node.to_string(),
        pods: pods.iter().map(|pod| enrollment(admin, pod, close)).collect(),
    }
}

fn enrollment(admin: &Admin, pod: &Workload, close: bool) -> v1::PodEnrollment {
    let mut answer = v1::PodEnrollment {
        name: Some((&pod.name).into()),
        node: pod.node.as_deref().unwrap_or_default().to_owned(),
        enrolled: pod.enrolled,
        ..Default::default()
    };
    if !admin.is_here(pod) || !pod.enrolled {
        return answer;
    }
    let Some(known) = admin.state_of(pod) else {
        Phase::Waiting.as_str().clone_into(&mut answer.state);
        return answer;
    };
    known.phase.as_str().clone_into(&mut answer.state);
    answer.reason = known.reason;
    if known.phase != Phase::Captured {
        return answer;
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    if close {
        match admin.unmeshed.close(&pod.uid) {
            Ok(closed) => {
                tracing::info!(pod = %pod.name, closed, "ended connections from before the mesh");
                answer.closed = number(closed);
            }
            Err(error) => answer.error = error.to_string(),
        }
    }
    match admin.unmeshed.count(&pod.uid) {
        Ok(open) => answer.unmeshed = number(open),
        Err(error) => answer.error = error.to_string(),
    }
    answer
}
