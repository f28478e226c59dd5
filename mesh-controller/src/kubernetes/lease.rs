//! Which of several controllers writes: a Lease in nodemesh-system.
//!
//! Every controller serves agents; one writes status and events. Two that think so for a moment
//! write the same, so the Lease spares work and guards nothing.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use mesh_common::{SYSTEM_NAMESPACE, names::CONTROLLER};
use tokio::sync::watch;

use super::{ApiError, Verb, health::Health};

const NAME: &str = "leases.coordination.k8s.io/mesh-controller in nodemesh-system";
/// As long as that a leader may be silent: kube-controller-manager's own.
const DURATION: Duration = Duration::from_secs(15);
/// How often it says that it is there, and the others look: kube-controller-manager's own. With it
/// another leads within 20 s of the last word of one that is gone.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes part in the choice of the leader.
pub struct Election {
    api: Api<Lease>,
    /// This controller's name: its pod's.
    identity: String,
    /// What was seen last of another one's Lease, and when; clocks of nodes are not compared.
    seen: Option<(Option<MicroTime>, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// Stands for election as `identity`.
    pub fn new(client: Client, identity: String) -> Self {
        let api = Api::namespaced(client, SYSTEM_NAMESPACE);
        Self { api, identity, seen: None, renewed: None }
    }

    /// Says through `leading` whether this controller leads, until nobody listens.
    pub async fn run(mut self, health: Health, leading: watch::Sender<bool>) {
        while !leading.is_closed() {
            let attempt = tokio::time::timeout(TIMEOUT, self.attempt()).await;
            let attempt = attempt
                .unwrap_or_else(|_| Err(ApiError::away(Verb::Update, NAME, "no answer in time")));
            match attempt {
                Ok(leads) => {
                    self.renewed = leads.then(Instant::now);
                    health.is_well(NAME, None);
                }
                // Who was first says so at the next look.
                Err(ApiError::Conflict { .. }) => {}
                Err(error) => health.is_well(NAME, Some(&error)),
            }
            let leads = self.renewed.is_some_and(|at| at.elapsed() < DURATION - TIMEOUT);
            let changed =
                leading.send_if_modified(|known| std::mem::replace(known, leads) != leads);
            if changed {
                tracing::info!(leads, "this controller writes status and events: {leads}");
            }
            tokio::time::sleep(PERIOD.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Takes or keeps the Lease where it may.
    async fn attempt(&mut self) -> Result<bool, ApiError> {
        let failed = |verb| move |error: kube::Error| ApiError::new(verb, NAME, &error);
        let parameters = PostParams::default();
        let Some(known) = self.api.get_opt(CONTROLLER).await.map_err(failed(Verb::Get))? else {
            let new = self.lease(None, 0);
            self.api.create(&parameters, &new).await.map_err(failed(Verb::Create))?;
            return Ok(true);
        };
        let spec = known.spec.unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let is_ours = holder == self.identity;
        if !is_ours && !holder.is_empty() && !self.is_silent(spec.renew_time) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(!is_ours);
        let mut new = self.lease(known.metadata.resource_version, transitions);
        if let (true, Some(new)) = (is_ours, new.spec.as_mut()) {
            new.acquire_time = spec.acquire_time;
        }
        self.api.replace(CONTROLLER, &parameters, &new).await.map_err(failed(Verb::Update))?;
        self.seen = None;
        Ok(true)
    }

    /// Whether the holder of the Lease has not renewed it for its duration, by this clock.
    fn is_silent(&mut self, renewed: Option<MicroTime>) -> bool {
        match &self.seen {
            Some((known, since)) if *known == renewed => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((renewed, Instant::now()));
                false
            }
        }
    }

    fn lease(&self, resource_version: Option<String>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(CONTROLLER.to_owned()),
                namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}
