//! What the agent tells people and probes: `mesh.v1.Agent` over a Unix socket, metrics and
//! readiness over HTTP.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use mesh_common::{
    api::v1::{self, agent_server},
    model::Workload,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response};

mod authorization;
mod bypass;
mod enroll;
pub mod http;
pub mod socket;

use crate::{
    bypass::Bypasses,
    control::plaintext::Plaintext,
    identity::{CertificateState, Certificates},
    observe::{
        Observer,
        flow::{Flow, FlowFilter},
        unmeshed::UnmeshedTable,
    },
    snapshot::Snapshot,
    status::{PodState, Status},
};

/// Flows that may wait for one reader before the broadcast is left unread.
const READER_QUEUE: usize = 64;

/// Answers the questions of `nodemesh`.
#[derive(Clone)]
pub struct Admin {
    /// This node.
    pub node: Arc<str>,
    /// What is being done.
    pub status: Arc<Status>,
    /// What is known.
    pub snapshot: Arc<Snapshot>,
    /// Who the pods are.
    pub certificates: Arc<Certificates>,
    /// What happened.
    pub observer: Arc<Observer>,
    /// Who goes around the mesh.
    pub bypasses: Arc<Bypasses>,
    /// What is open since before the mesh.
    pub unmeshed: Arc<UnmeshedTable>,
    /// What stays in the kernel, once that is known.
    pub plaintext: Arc<OnceLock<Arc<Plaintext>>>,
}

impl Admin {
    /// Blocks: the kernel is asked about each pod that had connections from before.
    fn node_status(&self) -> v1::NodeStatus {
        let mut status = self.status.to_wire(&self.node, self.snapshot.len());
        let plaintext = self.plaintext.get().map(|plaintext| plaintext.open());
        let plaintext = plaintext.transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot count plaintext connections");
            None
        });
        let plaintext = plaintext.unwrap_or_default();
        let pods = self.status.pods();
        let open = |pod: &PodState| plaintext.get(&pod.uid).copied().unwrap_or_default();
        status.pods = pods.iter().map(|pod| self.pod_status(pod, open(pod))).collect();
        status.plaintext = Some(self.observer.share().to_wire());
        // First: whoever looks for what is wrong has to know.
        status.problems.splice(..0, self.bypasses.problems());
        let certificates = self.certificates.list();
        let alarming = certificates.iter().filter(|certificate| certificate.alarming);
        status.problems.extend(alarming.map(alarm));
        let held = certificates.iter().filter(|certificate| certificate.not_after.is_some());
        status.certificates = held.map(certificate_status).collect();
        status
    }

    fn is_here(&self, pod: &Workload) -> bool {
        pod.node.as_deref() == Some(&*self.node)
    }

    /// What is being done with a pod of this node.
    fn state_of(&self, pod: &Workload) -> Option<PodState> {
        self.status.pods().into_iter().find(|known| known.uid == pod.uid)
    }

    fn pod_status(&self, pod: &PodState, plaintext: usize) -> v1::PodStatus {
        let unmeshed = self.unmeshed.count(&pod.uid).unwrap_or_else(|error| {
            tracing::warn!(pod = %pod.name, %error, "cannot count connections from before");
            0
        });
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        v1::PodStatus { unmeshed: number(unmeshed), plaintext: number(plaintext), ..pod.into() }
    }
}

#[tonic::async_trait]
impl agent_server::Agent for Admin {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<v1::Flow, tonic::Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, tonic::Status> {
        let v1::ObserveRequest { last, follow, filter } = request.into_inner();
        let filter = FlowFilter::try_from(filter.unwrap_or_default())
            .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        let wire = |flow: Arc<Flow>| Ok(v1::Flow::from(&*flow));
        if !follow {
            let flows = self.observer.recent(last, &filter).into_iter().map(wire);
            return Ok(Response::new(Box::pin(tokio_stream::iter(flows))));
        }
        let (remembered, next) = self.observer.follow(last, &filter);
        let (flows, stream) = mpsc::channel(READER_QUEUE);
        let observer = Arc::clone(&self.observer);
        tokio::spawn(async move {
            for flow in remembered {
                if flows.send(wire(flow)).await.is_err() {
                    return;
                }
            }
            forward(observer, next, filter, flows).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::NodeStatus>, tonic::Status> {
        let admin = self.clone();
        let answered = tokio::task::spawn_blocking(move || admin.node_status()).await;
        answered.map(Response::new).map_err(|error| tonic::Status::internal(error.to_string()))
    }

    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, tonic::Status> {
        let (admin, request) = (self.clone(), request.into_inner());
        // The kernel is asked about each pod: others shall not wait for that.
        let answered = tokio::task::spawn_blocking(move || enroll::answer(&admin, &request)).await;
        answered.map(Response::new).map_err(|error| tonic::Status::internal(error.to_string()))
    }

    async fn get_authorization(
        &self,
        request: Request<v1::GetAuthorizationRequest>,
    ) -> Result<Response<v1::GetAuthorizationResponse>, tonic::Status> {
        authorization::answer(self, request.into_inner()).map(Response::new)
    }

    async fn bypass(
        &self,
        request: Request<v1::BypassRequest>,
    ) -> Result<Response<v1::BypassResponse>, tonic::Status> {
        let (admin, request) = (self.clone(), request.into_inner());
        // It is written to disk before it is answered.
        let answered = tokio::task::spawn_blocking(move || bypass::answer(&admin, request)).await;
        answered.map_err(|error| tonic::Status::internal(error.to_string()))?.map(Response::new)
    }
}

/// Passes flows on until the reader goes; counts what it was too slow for.
async fn forward(
    observer: Arc<Observer>,
    mut next: broadcast::Receiver<Arc<Flow>>,
    filter: FlowFilter,
    flows: mpsc::Sender<Result<v1::Flow, tonic::Status>>,
) {
    loop {
        let flow = tokio::select! {
            flow = next.recv() => flow,
            () = flows.closed() => return,
        };
        match flow {
            Ok(flow) if filter.matches(&flow) => {
                if flows.send(Ok(v1::Flow::from(&*flow))).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => observer.missed(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn alarm(certificate: &CertificateState) -> String {
    let id = &certificate.identity;
    let why = certificate.failure.as_deref().unwrap_or_default();
    match certificate.not_after {
        None => format!("no certificate for {id}: {why}"),
        Some(not_after) => match not_after.duration_since(SystemTime::now()) {
            Ok(left) => format!(
                "the certificate of {id} ends in {} min and cannot be renewed: {why}",
                left.as_secs() / 60
            ),
            Err(_) => format!(
                "the certificate of {id} has ended, its pods cannot connect, and it cannot be \
                 renewed: {why}"
            ),
        },
    }
}

fn certificate_status(certificate: &CertificateState) -> v1::CertificateStatus {
    let not_after = certificate.not_after.unwrap_or(SystemTime::UNIX_EPOCH);
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    v1::CertificateStatus {
        identity: certificate.identity.to_string(),
        serial: certificate.serial.clone().unwrap_or_default(),
        not_after: i64::try_from(seconds).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests;
