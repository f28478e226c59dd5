//! What decides over connections to a pod, and what it would say of one: the proxy's own words.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use mesh_common::{
    api::{self, v1},
    identity::SpiffeId,
    model::{NamespacedName, Workload},
};
use tonic::Status;

use super::Admin;
use crate::{proxy::Right, status::Phase};

/// Who calls in a question.
#[derive(Default)]
struct Caller {
    identity: Option<SpiffeId>,
    /// Why there is no identity.
    unproved: String,
    pod: Option<Arc<Workload>>,
}

/// Answers for the pod that was asked for, as far as it is known.
pub(super) fn answer(
    admin: &Admin,
    request: v1::GetAuthorizationRequest,
) -> Result<v1::GetAuthorizationResponse, Status> {
    let name = request.pod.ok_or_else(|| Status::invalid_argument("no pod is asked for"))?;
    let node = admin.node.to_string();
    let Some(pod) = find(admin, &name) else {
        return Ok(v1::GetAuthorizationResponse { node, pod: None });
    };
    let mut answer = v1::PodAuthorization {
        name: Some(name),
        node: pod.node.as_deref().unwrap_or_default().to_owned(),
        ..Default::default()
    };
    // Of other nodes' pods the controller does not tell who may call them.
    if admin.is_here(&pod) {
        describe(admin, &pod, &mut answer);
        let judged = request.connection.map(|connection| judge(admin, &pod, connection));
        answer.judgement = judged.transpose()?;
    }
    Ok(v1::GetAuthorizationResponse { node, pod: Some(answer) })
}

fn find(admin: &Admin, name: &v1::NamespacedName) -> Option<Arc<Workload>> {
    let name = NamespacedName::new(&name.namespace, &name.name);
    admin.snapshot.pods(|it| *it == name).pop()
}

fn describe(admin: &Admin, pod: &Workload, answer: &mut v1::PodAuthorization) {
    answer.enrolled = pod.enrolled;
    answer.identity = pod.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    answer.addresses = pod.addresses.iter().map(ToString::to_string).collect();
    // Policies of a pod outside the mesh are not sent to its node.
    if pod.enrolled {
        let known = admin.state_of(pod);
        let phase = known.as_ref().map_or(Phase::Waiting, |known| known.phase);
        phase.as_str().clone_into(&mut answer.state);
        answer.reason = known.map(|known| known.reason).unwrap_or_default();
        answer.admission = Some((&pod.admission).into());
        answer.policies = admin.snapshot.policies_of(pod);
    }
}

fn judge(
    admin: &Admin,
    callee: &Arc<Workload>,
    connection: v1::SupposedConnection,
) -> Result<v1::Judgement, Status> {
    let port = u16::try_from(connection.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Status::invalid_argument("a port is within 1 to 65535"))?;
    let caller = connection.caller.map(|caller| who(admin, caller)).transpose()?;
    let caller = caller.unwrap_or_default();
    let address = address(&connection.address, caller.pod.as_deref(), callee)?;
    // No address is in no block but that of all addresses.
    let from = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let to = callee.address_like(from).or(callee.addresses.first().copied()).unwrap_or(from);
    let judgement = match unjudged(admin, callee, caller.pod.as_deref()) {
        Some(reason) => v1::Judgement { allowed: true, reason, ..Default::default() },
        None => {
            let (source, callee) = (caller.identity.clone(), Arc::clone(callee));
            let right = Right { source, from, callee, to: SocketAddr::new(to, port) };
            match right.verdict(&admin.snapshot) {
                Ok(verdict) => api::judgement(&verdict),
                Err(reason) => v1::Judgement { reason, ..Default::default() },
            }
        }
    };
    Ok(v1::Judgement {
        identity: caller.identity.map(|it| it.to_string()).unwrap_or_default(),
        unproved: caller.unproved,
        address: address.map(|it| it.to_string()).unwrap_or_default(),
        port: port.into(),
        ..judgement
    })
}

/// Why the proxy would not be asked at all.
fn unjudged(admin: &Admin, callee: &Workload, caller: Option<&Workload>) -> Option<String> {
    if caller.is_some_and(|caller| caller.uid == callee.uid) {
        return Some("allowed: what a pod says to itself stays in it".to_owned());
    }
    if !callee.enrolled {
        return Some(format!("allowed: {} is not in the mesh", callee.name));
    }
    let phase = admin.state_of(callee).map_or(Phase::Waiting, |known| known.phase);
    (phase != Phase::Captured).then(|| {
        format!("allowed: {} is {}, and nothing decides for it", callee.name, phase.as_str())
    })
}

fn who(admin: &Admin, caller: v1::supposed_connection::Caller) -> Result<Caller, Status> {
    use v1::supposed_connection::Caller as Wire;
    match caller {
        Wire::Identity(identity) => {
            let identity = identity.parse().map_err(|error| {
                Status::invalid_argument(format!("identity {identity}: {error}"))
            })?;
            Ok(Caller { identity: Some(identity), ..Caller::default() })
        }
        Wire::Pod(name) => {
            let pod = find(admin, &name).ok_or_else(|| {
                Status::not_found(format!(
                    "{} knows no pod {}/{} that could call: say which SPIFFE ID it proves, or for \
                     plaintext its address alone",
                    admin.node, name.namespace, name.name
                ))
            })?;
            let unproved = unproved(admin, &pod);
            let identity = pod.identity.clone().filter(|_| unproved.is_none());
            Ok(Caller { identity, unproved: unproved.unwrap_or_default(), pod: Some(pod) })
        }
    }
}

/// Why a pod speaks plaintext, where it does.
fn unproved(admin: &Admin, pod: &Workload) -> Option<String> {
    if !pod.enrolled {
        return Some(format!("{} is not in the mesh", pod.name));
    }
    // Of this node's pods the agent itself knows best which are captured.
    let is_captured = match admin.is_here(pod) {
        true => admin.state_of(pod).is_some_and(|known| known.phase == Phase::Captured),
        false => pod.captured,
    };
    (!is_captured).then(|| format!("{} is not captured yet", pod.name))
}

/// From where the connection comes, where that is known.
fn address(
    asked: &str,
    caller: Option<&Workload>,
    callee: &Workload,
) -> Result<Option<IpAddr>, Status> {
    if !asked.is_empty() {
        let address = asked.parse::<IpAddr>();
        let address =
            address.map_err(|error| Status::invalid_argument(format!("address {asked}: {error}")));
        return address.map(|address| Some(address.to_canonical()));
    }
    let Some(caller) = caller else { return Ok(None) };
    // As the caller would: to the first address of the pod that it has a like of.
    let like = callee.addresses.iter().find_map(|to| caller.address_like(*to));
    Ok(like.or_else(|| caller.addresses.first().copied()))
}
