//! What Prometheus is told.

use std::{collections::BTreeMap, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{kubernetes::health::Health, mesh::Mesh};

/// The metrics of a controller that follows a cluster.
pub fn registry(mesh: Arc<Mesh>, health: Health) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(State { mesh, health }));
    registry
}

#[derive(Debug)]
struct State {
    mesh: Arc<Mesh>,
    health: Health,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let outcome = self.mesh.outcomes().borrow().clone();
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        let objects = outcome.objects.in_use.len() as f64;
        gauge("nodemesh_controller_objects", "Objects in use", None, objects)?;
        let seconds = outcome.compiling.as_secs_f64();
        gauge(
            "nodemesh_controller_compile",
            "How long compiling took last",
            Some(&Unit::Seconds),
            seconds,
        )?;

        let nodes = self.mesh.pictures().borrow().nodes().count() as f64;
        gauge("nodemesh_controller_nodes", "Nodes that agents may be of", None, nodes)?;

        let uncaptured = outcome.uncaptured.len() as f64;
        let help = "Pods that labels put in the mesh and that no agent has captured";
        gauge("nodemesh_pods_uncaptured", help, None, uncaptured)?;

        let mut problems: BTreeMap<&str, i64> = BTreeMap::new();
        let refused = outcome.objects.refusals.iter().filter_map(|it| it.object.as_ref());
        for object in outcome.problems.iter().map(|problem| &problem.object).chain(refused) {
            *problems.entry(object.kind.name()).or_default() += 1;
        }
        let mut metric = encoder.encode_descriptor(
            "nodemesh_controller_problems",
            "What is wrong with objects, by kind",
            None,
            MetricType::Gauge,
        )?;
        for (kind, count) in problems {
            ConstGauge::new(count).encode(metric.encode_family(&[("kind", kind)])?)?;
        }
        let resources = self.health.all();
        let mut metric = encoder.encode_descriptor(
            "nodemesh_controller_followed",
            "Whether the API server gives a resource: 1 where it does",
            None,
            MetricType::Gauge,
        )?;
        for (name, health) in &resources {
            let is_well = i64::from(health.trouble.is_none());
            let labels = [("resource", name.as_str())];
            ConstGauge::new(is_well).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "nodemesh_controller_events",
            "Objects that the API server listed or sent",
            None,
            MetricType::Counter,
        )?;
        for (name, health) in &resources {
            let labels = [("resource", name.as_str())];
            ConstCounter::new(health.events).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
