//! The ports of a pod that the kubelet of its node calls: probes, and hooks of containers' lives.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Every port that a probe or a hook of `spec` names, sorted.
pub fn ports(spec: &PodSpec) -> Vec<u16> {
    // Of the containers that run first, only those that go on are probed.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let ports: BTreeSet<u16> = spec.containers.iter().chain(sidecars).flat_map(of).collect();
    ports.into_iter().collect()
}

fn of(container: &Container) -> impl Iterator<Item = u16> + '_ {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().flat_map(|probe| {
        let number = probe.grpc.as_ref().map(|grpc| IntOrString::Int(grpc.port));
        let http = probe.http_get.as_ref().map(|http| http.port.clone());
        [number, http, probe.tcp_socket.as_ref().map(|tcp| tcp.port.clone())]
    });
    let hooks = container.lifecycle.iter().flat_map(|life| [&life.post_start, &life.pre_stop]);
    let hooks = hooks.flatten().flat_map(|hook| {
        let http = hook.http_get.as_ref().map(|http| http.port.clone());
        [http, hook.tcp_socket.as_ref().map(|tcp| tcp.port.clone())]
    });
    probes.chain(hooks).flatten().filter_map(|port| number(container, &port))
}

/// A name is one of the container's own ports. One that is none of them fails in the kubelet too.
fn number(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = |port: &&_| is_called(port, name);
            container.ports.iter().flatten().find(named)?.container_port
        }
    };
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn is_called(port: &k8s_openapi::api::core::v1::ContainerPort, name: &str) -> bool {
    port.name.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_yaml(spec: &str) -> Vec<u16> {
        ports(&serde_saphyr::from_str(spec).expect("a PodSpec"))
    }

    #[test]
    fn every_kind_of_probe_and_hook_is_seen() {
        let spec = "
containers:
- name: app
  ports: [{ name: health, containerPort: 9000 }, { name: web, containerPort: 8080 }]
  livenessProbe: { httpGet: { path: /, port: health } }
  readinessProbe: { tcpSocket: { port: 9001 } }
  startupProbe: { grpc: { port: 9002 } }
  lifecycle:
    postStart: { httpGet: { port: 9003 } }
    preStop: { tcpSocket: { port: 9004 } }
- name: second
  livenessProbe: { httpGet: { port: 9000 } }
";
        assert_eq!(of_yaml(spec), [9000, 9001, 9002, 9003, 9004]);
    }

    #[test]
    fn of_the_containers_that_run_first_only_those_that_go_on_count() {
        let spec = "
initContainers:
- name: once
  livenessProbe: { tcpSocket: { port: 9000 } }
- name: sidecar
  restartPolicy: Always
  livenessProbe: { tcpSocket: { port: 9001 } }
containers: [{ name: app }]
";
        assert_eq!(of_yaml(spec), [9001]);
    }

    #[test]
    fn what_runs_a_program_or_names_no_port_is_none() {
        let spec = "
containers:
- name: app
  ports: [{ name: web, containerPort: 8080 }]
  livenessProbe: { exec: { command: [true] } }
  readinessProbe: { httpGet: { port: missing } }
  startupProbe: { httpGet: { port: 0 } }
- name: second
  livenessProbe: { httpGet: { port: web } }
";
        assert_eq!(of_yaml(spec), [0_u16; 0], "names are of the container's own ports");
    }
}
