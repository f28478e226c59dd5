//! What the controller knows of its own state towards the API server: for readiness, metrics and
//! the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::ApiError;

/// The state of every resource that is followed.
#[derive(Clone, Debug, Default)]
pub struct Health {
    resources: Arc<Mutex<BTreeMap<String, ResourceHealth>>>,
    is_listed: Arc<Notify>,
}

/// The state of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceHealth {
    /// Whether agents are served only when it is known.
    pub is_needed: bool,
    /// Whether it has been listed once, or is known not to exist.
    pub is_listed: bool,
    /// What is wrong now.
    pub trouble: Option<String>,
    /// Objects seen in lists and watches.
    pub events: u64,
    /// How often the resource was listed.
    pub lists: u64,
}

impl Health {
    /// Expects `resource`: until it is listed the controller is not ready.
    pub fn expect(&self, resource: &str) {
        self.lock().entry(resource.to_owned()).or_default().is_needed = true;
    }

    /// Notes a list of `resource`.
    pub fn listed(&self, resource: &str, objects: usize) {
        let mut resources = self.lock();
        let health = resources.entry(resource.to_owned()).or_default();
        health.is_listed = true;
        health.lists += 1;
        health.events += objects as u64;
        drop(resources);
        self.is_listed.notify_waiters();
    }

    /// Ends once nothing is missing.
    pub async fn all_known(&self) {
        loop {
            let listed = self.is_listed.notified();
            if self.missing().is_empty() {
                return;
            }
            listed.await;
        }
    }

    /// Notes an event of `resource`.
    pub fn event(&self, resource: &str) {
        self.lock().entry(resource.to_owned()).or_default().events += 1;
    }

    /// Notes what is wrong with `resource`, and says it once.
    pub fn is_well(&self, resource: &str, trouble: Option<&ApiError>) {
        let mut resources = self.lock();
        let health = resources.entry(resource.to_owned()).or_default();
        let text = trouble.map(ToString::to_string);
        if health.trouble == text {
            return;
        }
        match trouble {
            // Kinds may be installed later, or never: no reason to alarm anybody.
            Some(error @ ApiError::NotFound { .. }) if !health.has_objects() => {
                tracing::info!("{error}; asked for again and again");
            }
            Some(error) => tracing::warn!("{error}; what is known stays in use"),
            None => tracing::info!("{resource}: the API server answers again"),
        }
        health.trouble = text;
    }

    /// What has not been listed once, with what is wrong with it; empty when agents can be served.
    pub fn missing(&self) -> Vec<String> {
        let missing = |(name, health): (&String, &ResourceHealth)| {
            (health.is_needed && !health.is_listed).then(|| match &health.trouble {
                Some(trouble) => trouble.clone(),
                None => format!("{name} are not listed yet"),
            })
        };
        self.lock().iter().filter_map(missing).collect()
    }

    /// The state of every resource by name.
    pub fn all(&self) -> BTreeMap<String, ResourceHealth> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ResourceHealth>> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResourceHealth {
    fn has_objects(&self) -> bool {
        self.events > 0
    }
}
