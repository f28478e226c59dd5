//! The status board and the certificates as metrics.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::{Hook, Phase, Status, Uncaptured};
use crate::{capture::MapUse, identity::Certificates};

/// Writes hooks, kernel counters, pods, the connection to the controller and the ends of
/// certificates.
#[derive(Debug)]
pub struct StatusCollector {
    /// The board.
    pub status: Arc<Status>,
    /// The certificates.
    pub certificates: Arc<Certificates>,
}

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (hooks, counters, maps, connected, phases, uncaptured) = {
            let board = self.status.board();
            let mut phases: BTreeMap<&str, i64> = BTreeMap::new();
            for pod in &board.pods {
                *phases.entry(pod.phase.as_str()).or_default() += 1;
            }
            let hooks = by_kind(&board.hooks);
            let (counters, maps) = (board.counters.clone(), board.maps.clone());
            let uncaptured = Uncaptured::ALL.map(|(reason, name)| {
                let pods = board.pods.iter().filter(|pod| pod.uncaptured == Some(reason));
                (name, pods.count())
            });
            (hooks, counters, maps, board.controller.connected, phases, uncaptured)
        };
        encode_hooks(&mut encoder, &hooks)?;
        encode_maps(&mut encoder, &maps)?;
        let mut metric = encoder.encode_descriptor(
            "nodemesh_kernel_events",
            "What the kernel programs did",
            None,
            MetricType::Counter,
        )?;
        for (event, count) in counters {
            ConstCounter::new(count).encode(metric.encode_family(&[("event", event)])?)?;
        }
        let metric = encoder.encode_descriptor(
            "nodemesh_controller_connected",
            "Whether the stream from the controller is up",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(connected)).encode(metric)?;
        let mut metric = encoder.encode_descriptor(
            "nodemesh_pods",
            "Pods of this node that are in the mesh or are to be, by state",
            None,
            MetricType::Gauge,
        )?;
        let bypassed = phases.get(Phase::Bypassed.as_str()).copied().unwrap_or_default();
        for (state, count) in phases {
            ConstGauge::new(count).encode(metric.encode_family(&[("state", state)])?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "nodemesh_pods_uncaptured",
            "Number of pods of this node that shall be in the mesh and are not captured, by reason",
            None,
            MetricType::Gauge,
        )?;
        for (reason, count) in uncaptured {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        let metric = encoder.encode_descriptor(
            "nodemesh_bypassed_pods",
            "Pods of this node that somebody lets around the mesh for a while",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(bypassed).encode(metric)?;
        encode_certificates(&mut encoder, &self.certificates)
    }
}

/// Whether every hook of a kind is attached, and how often they were put back. The kind is the
/// first word of the name: pods are no labels.
fn by_kind(hooks: &[Hook]) -> BTreeMap<String, (bool, u64)> {
    let mut kinds = BTreeMap::new();
    for hook in hooks {
        let kind = hook.name.split(' ').next().unwrap_or(&hook.name).to_owned();
        let (attached, repairs) = kinds.entry(kind).or_insert((true, 0));
        *attached &= hook.attached;
        *repairs += hook.repairs;
    }
    kinds
}

fn encode_hooks(
    encoder: &mut DescriptorEncoder<'_>,
    hooks: &BTreeMap<String, (bool, u64)>,
) -> Result<(), std::fmt::Error> {
    let mut metric = encoder.encode_descriptor(
        "nodemesh_hook_attached",
        "Whether every kernel hook of a kind was attached when last looked at",
        None,
        MetricType::Gauge,
    )?;
    for (hook, (attached, _)) in hooks {
        let labels = [("hook", hook.as_str())];
        ConstGauge::new(i64::from(*attached)).encode(metric.encode_family(&labels)?)?;
    }
    let mut metric = encoder.encode_descriptor(
        "nodemesh_hook_repairs",
        "Times that a kernel hook was found detached and was put back",
        None,
        MetricType::Counter,
    )?;
    for (hook, (_, repairs)) in hooks {
        let labels = [("hook", hook.as_str())];
        ConstCounter::new(*repairs).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_maps(
    encoder: &mut DescriptorEncoder<'_>,
    maps: &[MapUse],
) -> Result<(), std::fmt::Error> {
    type Value = fn(&MapUse) -> u64;
    let metrics: [(&str, &str, Value); 2] = [
        (
            "nodemesh_kernel_map_entries",
            "Number of entries that a kernel map had when last counted, some seconds ago at most",
            |used| used.entries,
        ),
        (
            "nodemesh_kernel_map_capacity",
            "Number of entries that a kernel map has room for, as a flag of the agent says",
            |used| used.capacity,
        ),
    ];
    for (name, help, value) in metrics {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for used in maps {
            let value = i64::try_from(value(used)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&[("map", used.map.name)])?)?;
        }
    }
    Ok(())
}

fn encode_certificates(
    encoder: &mut DescriptorEncoder<'_>,
    certificates: &Certificates,
) -> Result<(), std::fmt::Error> {
    let certificates = certificates.list();
    let mut metric = encoder.encode_descriptor(
        "nodemesh_certificate_expiry_timestamp_seconds",
        "When an account's certificate ends",
        None,
        MetricType::Gauge,
    )?;
    for certificate in &certificates {
        let Some(not_after) = certificate.not_after else { continue };
        let seconds =
            not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = &certificate.identity;
        let labels = [("namespace", id.namespace()), ("account", id.service_account())];
        ConstGauge::new(i64::try_from(seconds).unwrap_or(i64::MAX))
            .encode(metric.encode_family(&labels)?)?;
    }
    let alarms = certificates.iter().filter(|certificate| certificate.alarming).count();
    let metric = encoder.encode_descriptor(
        "nodemesh_certificates_alarming",
        "Certificates that are missing, or past 75 % of their life, and cannot be renewed",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(i64::try_from(alarms).unwrap_or(i64::MAX)).encode(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capture::SIZED_MAPS, observe::metrics::Metrics};

    #[test]
    fn hooks_of_pods_are_counted_by_kind() {
        let status = Arc::new(Status::default());
        let hook = |name: &str, attached, repairs| Hook {
            name: name.into(),
            attached,
            repairs,
            error: None,
        };
        status.set_kernel(
            vec![
                hook("connect4", true, 2),
                hook("sk_lookup shop/web", true, 1),
                hook("sk_lookup shop/db", false, 1),
            ],
            vec![("captured", 7)],
        );
        status.set_maps(vec![MapUse { map: &SIZED_MAPS[0], entries: 3, capacity: 16 }]);
        let metrics = Metrics::new();
        let certificates = Arc::new(Certificates::new(None));
        metrics.register(StatusCollector { status, certificates });
        let text = metrics.encode();
        for line in [
            "nodemesh_hook_attached{hook=\"connect4\"} 1",
            "nodemesh_hook_attached{hook=\"sk_lookup\"} 0",
            "nodemesh_hook_repairs_total{hook=\"connect4\"} 2",
            "nodemesh_hook_repairs_total{hook=\"sk_lookup\"} 2",
            "nodemesh_kernel_events_total{event=\"captured\"} 7",
            "nodemesh_pods_uncaptured{reason=\"certificate\"} 0",
            "nodemesh_kernel_map_entries{map=\"PODS\"} 3",
            "nodemesh_kernel_map_capacity{map=\"PODS\"} 16",
            "nodemesh_controller_connected 0",
            "nodemesh_bypassed_pods 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
