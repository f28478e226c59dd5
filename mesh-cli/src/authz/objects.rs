//! What the objects of a cluster make of a pod: the answer where no agent is asked.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};
use mesh_common::{
    api::{self, v1},
    identity::SpiffeId,
    matching::authorization::Request,
    model::{NamespacedName, Workload},
};
use mesh_controller::compile::Compiled;

use super::check;

/// Answers as the agent of the pod's node should, which captured every pod that labels name.
///
/// # Errors
/// Where a pod is not known or the question makes no sense.
pub fn answer(
    compiled: &Compiled,
    pod: &v1::NamespacedName,
    connection: Option<v1::SupposedConnection>,
) -> anyhow::Result<v1::PodAuthorization> {
    let workload = find(compiled, pod)?;
    let mut answer = v1::PodAuthorization {
        name: Some(pod.clone()),
        node: workload.node.as_deref().unwrap_or_default().to_owned(),
        enrolled: workload.enrolled,
        identity: workload.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..Default::default()
    };
    if workload.enrolled {
        answer.admission = Some((&workload.admission).into());
        answer.policies = api::attached_policies(workload, |name| {
            compiled.policy(name).ok_or_else(|| "it is not among the objects".to_owned())
        });
    }
    answer.judgement =
        connection.map(|connection| judge(compiled, workload, connection)).transpose()?;
    Ok(answer)
}

fn find<'c>(compiled: &'c Compiled, pod: &v1::NamespacedName) -> anyhow::Result<&'c Workload> {
    let v1::NamespacedName { namespace, name } = pod;
    match compiled.workload(&NamespacedName::new(namespace, name)) {
        Some(workload) if workload.identity.is_some() => Ok(workload),
        _ => bail!(
            "the cluster has no running pod {namespace}/{name}: look for it with `kubectl get pod -n \
             {namespace} {name}`"
        ),
    }
}

fn judge(
    compiled: &Compiled,
    callee: &Workload,
    connection: v1::SupposedConnection,
) -> anyhow::Result<v1::Judgement> {
    use v1::supposed_connection::Caller;
    let port = u16::try_from(connection.port).context("--port")?;
    let (mut identity, mut unproved, mut address): (Option<SpiffeId>, _, Option<IpAddr>) =
        (None, String::new(), None);
    let mut stays = false;
    match &connection.caller {
        Some(Caller::Identity(text)) => identity = Some(text.parse().context("--from")?),
        Some(Caller::Pod(pod)) => {
            let caller = find(compiled, pod).context("--from")?;
            let like = callee.addresses.iter().find_map(|to| caller.address_like(*to));
            address = like.or_else(|| caller.addresses.first().copied());
            identity = caller.identity.clone().filter(|_| caller.enrolled);
            if !caller.enrolled {
                unproved = format!("{} is not in the mesh", caller.name);
            }
            stays = caller.uid == callee.uid;
        }
        None => {}
    }
    if !connection.address.is_empty() {
        address = Some(connection.address.parse().context("--from-ip")?);
    }
    let from = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let judgement = if stays {
        allowed("allowed: what a pod says to itself stays in it".to_owned())
    } else if !callee.enrolled {
        allowed(format!("allowed: {} is not in the mesh", callee.name))
    } else {
        let request = Request { source: identity.as_ref(), address: from, port };
        match check::verdict(compiled, callee, request) {
            Ok(verdict) => api::judgement(&verdict),
            Err(reason) => v1::Judgement { reason, ..Default::default() },
        }
    };
    Ok(v1::Judgement {
        identity: identity.map(|it| it.to_string()).unwrap_or_default(),
        unproved,
        address: address.map(|it| it.to_string()).unwrap_or_default(),
        port: connection.port,
        ..judgement
    })
}

fn allowed(reason: String) -> v1::Judgement {
    v1::Judgement { allowed: true, reason, ..Default::default() }
}
