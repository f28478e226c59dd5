//! `nodemesh authz check`: one connection, judged by files alone.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, ensure};
use mesh_common::{
    identity::{SpiffeId, TrustDomain},
    matching::authorization::{Policies, Request, Verdict},
    model::{NamespacedName, Workload},
};
use mesh_controller::{
    captured::Captures,
    compile::{Compiled, compile},
    source::manifests::Manifests,
};

/// Judges one connection as the called pod's agent would, from files alone.
///
/// Exit status: 0 where it is allowed, 1 where it is denied, 2 where it cannot be said.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The caller: a pod, or a SPIFFE ID that it has proved
    #[arg(long, value_name = "NAMESPACE/POD|SPIFFE-ID")]
    from: String,
    /// The caller's address, for policies that ask for it [default: that of the pod]
    #[arg(long, value_name = "ADDRESS")]
    from_address: Option<IpAddr>,
    /// The pod that is called and its own port
    #[arg(long, value_name = "NAMESPACE/POD:PORT")]
    to: String,
    /// A file, or a folder of *.yaml and *.yml files, read with its subfolders
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    filename: PathBuf,
    /// The trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT)]
    trust_domain: TrustDomain,
}

impl Check {
    /// Whether the connection is allowed, and why.
    ///
    /// # Errors
    /// Where the files do not say, or the question makes no sense.
    pub fn answer(&self) -> anyhow::Result<(bool, String)> {
        std::fs::metadata(&self.filename)
            .with_context(|| format!("{}", self.filename.display()))?;
        let objects = Manifests::load(&self.filename).objects;
        for refusal in &objects.refusals {
            eprintln!("nodemesh: not in use: {refusal}");
        }
        let index = objects.in_use.values().map(|(object, _)| object).collect();
        judge(self, &compile(&index, &Captures::default(), &self.trust_domain))
    }
}

fn judge(check: &Check, compiled: &Compiled) -> anyhow::Result<(bool, String)> {
    let (pod, port) =
        check.to.rsplit_once(':').context("--to: no port; write namespace/pod:port")?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).context("--to: no such port")?;
    let callee = workload(compiled, pod).context("--to")?;
    let (source, address) = caller(check, compiled).context("--from")?;
    if !callee.enrolled {
        return Ok((true, format!("allowed: {} is not in the mesh", callee.name)));
    }
    let request = Request { source: source.as_ref(), address, port };
    Ok(match verdict(compiled, callee, request) {
        Ok(verdict) => (verdict.is_allowed(), verdict.to_string()),
        Err(reason) => (false, reason),
    })
}

/// What policies say of a connection to a pod of the mesh, or why it is refused before they are
/// asked.
///
/// # Errors
/// Where it is refused.
pub fn verdict(
    compiled: &Compiled,
    callee: &Workload,
    request: Request<'_>,
) -> Result<Verdict, String> {
    if request.source.is_none()
        && let Some(reason) = callee.admission.refuses_plaintext(request.port)
    {
        return Err(reason);
    }
    Ok(Policies::new(callee, |name: &NamespacedName| compiled.policy(name)).judge(request))
}

/// Who calls, if that can be proved, and from where.
fn caller(check: &Check, compiled: &Compiled) -> anyhow::Result<(Option<SpiffeId>, IpAddr)> {
    // No address is in no block but those of all addresses.
    let unknown = IpAddr::from([0; 4]);
    if check.from.contains("://") {
        let identity = check.from.parse()?;
        return Ok((Some(identity), check.from_address.unwrap_or(unknown)));
    }
    let workload = workload(compiled, &check.from)?;
    let own = workload.addresses.first().copied().unwrap_or(unknown);
    // A pod outside the mesh speaks plaintext, whoever it is.
    let identity = workload.identity.clone().filter(|_| workload.enrolled);
    Ok((identity, check.from_address.unwrap_or(own)))
}

fn workload<'c>(compiled: &'c Compiled, pod: &str) -> anyhow::Result<&'c Workload> {
    let (namespace, name) = pod.split_once('/').context("no namespace; write namespace/pod")?;
    ensure!(!name.is_empty(), "no name; write namespace/pod");
    compiled
        .workload(&NamespacedName::new(namespace, name))
        .with_context(|| format!("there is no running pod {pod} in these files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {serviceAccountName: web, containers: []}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: batch, namespace: shop}
spec: {serviceAccountName: batch, containers: []}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: legacy}
spec: {containers: []}
status: {podIP: 10.0.0.3}
---
apiVersion: nodemesh.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-batch, namespace: shop}
spec: {action: DENY, rules: [{name: batch, from: [{serviceAccounts: [shop/batch]}]}]}
---
apiVersion: nodemesh.dev/v1alpha1
kind: PeerPolicy
metadata: {name: strict, namespace: shop}
spec: {mode: STRICT, ports: [{port: 9090, mode: PERMISSIVE}]}
";

    fn answer(from: &str, to: &str) -> anyhow::Result<(bool, String)> {
        let directory = tempfile::tempdir()?;
        let filename = directory.path().join("objects.yaml");
        std::fs::write(&filename, OBJECTS)?;
        let trust_domain = TrustDomain::DEFAULT.parse()?;
        let (from, to) = (from.to_owned(), to.to_owned());
        Check { from, from_address: None, to, filename, trust_domain }.answer()
    }

    #[test]
    fn the_deciding_policy_and_rule_are_named() -> anyhow::Result<()> {
        for (from, to, allowed, reason) in [
            ("shop/batch", "shop/web:80", false, "AuthorizationPolicy shop/no-batch rule batch"),
            ("spiffe://cluster.local/ns/a/sa/b", "shop/web:80", true, "no policy applies"),
            ("legacy/client", "shop/web:80", false, "PeerPolicy shop/strict"),
            ("legacy/client", "shop/web:9090", true, "no policy applies"),
            ("shop/web", "legacy/client:80", true, "not in the mesh"),
        ] {
            let (is_allowed, text) = answer(from, to)?;
            assert_eq!(is_allowed, allowed, "{from} {to}: {text}");
            assert!(text.contains(reason), "{from} {to}: {text}");
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_answered_is_an_error() {
        for (from, to) in [
            ("shop/web", "shop/web"),
            ("shop/web", "shop/web:0"),
            ("shop/nobody", "shop/web:80"),
            ("web", "shop/web:80"),
            ("spiffe://x", "shop/web:80"),
        ] {
            answer(from, to).expect_err(to);
        }
    }
}
