//! `nodemesh validate`: what the controller would say of these files, once they are applied to a
//! cluster, without either.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use mesh_common::{identity::TrustDomain, model::ResourceKind};
use mesh_controller::{
    captured::Captures,
    compile::{ObjectStatus, compile, statuses},
    object::{Object, ServiceAddresses},
    source::{Objects, manifests::Manifests},
};

/// Reads Kubernetes YAML as the controller does and prints every problem.
///
/// The files are judged as they are before `kubectl apply`: kinds that the mesh does not read are
/// skipped, and Services may be without the clusterIP that a cluster gives them.
///
/// Exit status: 0 where there is none, 1 where there are some, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, or a folder of *.yaml and *.yml files, read with its subfolders.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    filename: PathBuf,
    /// The trust domain of the mesh.
    #[arg(long, value_name = "NAME", default_value = TrustDomain::DEFAULT)]
    trust_domain: TrustDomain,
}

/// How `validate` ends where it was used wrongly, as clap ends too.
const USAGE: u8 = 2;

/// Runs the command.
///
/// # Errors
/// None: what is wrong with the files is printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Err(error) = std::fs::metadata(&args.filename) {
        eprintln!("nodemesh: {}: {error}", args.filename.display());
        return Ok(ExitCode::from(USAGE));
    }
    let Manifests { objects, skipped } = Manifests::load(&args.filename);
    let (lines, statuses, summary) = report(&objects, &args.trust_domain);
    for line in &lines {
        println!("{line}");
    }
    for status in &statuses {
        println!("{}", line(status));
    }
    for note in skipped_note(&skipped).into_iter().chain(address_note(&objects)) {
        println!("{note}");
    }
    println!("{summary}");
    Ok(if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of one of nodemesh's own objects; what is wrong with it is a line of its own.
fn line(status: &ObjectStatus) -> String {
    let ObjectStatus { kind, namespace, name, reason, workloads, parents, .. } = status;
    let slash = if namespace.is_empty() { "" } else { "/" };
    let effect = match parents.len() {
        0 => counted(*workloads, "workload", "workloads"),
        services => counted(services, "Service", "Services"),
    };
    format!("{kind} {namespace}{slash}{name}: {reason}, {effect}")
}

/// A line a problem, the status of our own objects, and the summary.
fn report(
    objects: &Objects,
    trust_domain: &TrustDomain,
) -> (Vec<String>, Vec<ObjectStatus>, String) {
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    let compiled = compile(&index, &Captures::default(), trust_domain);
    let mut problems: Vec<_> =
        objects.refusals.iter().map(|it| (Some(&it.place), it.to_string())).collect();
    for problem in &compiled.problems {
        let place = objects.in_use.get(&problem.object).map(|(_, place)| place);
        let prefix = place.map(|place| format!("{place}: ")).unwrap_or_default();
        problems.push((place, format!("{prefix}{}: {}", problem.object, problem.reason)));
    }
    problems.sort();
    let lines: Vec<String> = problems.into_iter().map(|(_, line)| line).collect();
    let count = |kind| compiled.resources.keys().filter(|key| key.kind == kind).count();
    let summary = format!(
        "{}, {}: {}, {}, {}",
        counted(objects.in_use.len(), "object", "objects"),
        counted(lines.len(), "problem", "problems"),
        counted(count(ResourceKind::Workload), "workload", "workloads"),
        counted(count(ResourceKind::Service), "service", "services"),
        counted(count(ResourceKind::AuthorizationPolicy), "policy", "policies"),
    );
    (lines, statuses(objects, &compiled), summary)
}

/// Which kinds the mesh does not read.
fn skipped_note(skipped: &BTreeMap<String, usize>) -> Option<String> {
    let kinds: Vec<_> = skipped.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    (!kinds.is_empty()).then(|| format!("skipped, not read by the mesh: {}", kinds.join(", ")))
}

/// Which Services have an address yet to come: only a cluster gives any.
fn address_note(objects: &Objects) -> Option<String> {
    let is_without = |object: &Object| match object {
        Object::Service(service) => service.addresses == ServiceAddresses::Virtual(Vec::new()),
        _ => false,
    };
    let services = objects.in_use.iter().filter(|(_, (object, _))| is_without(object));
    let names: Vec<_> = services.map(|(key, _)| key.name.to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "without clusterIP, which a cluster gives and `mesh-controller serve --source` needs \
             written: Service {}",
            names.join(", ")
        )
    })
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_file_line_and_object() -> std::io::Result<()> {
        let dir = std::env::temp_dir().join(format!("nodemesh-validate-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("objects.yaml");
        std::fs::write(
            &file,
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Pod\n\
             metadata:\n  name: b\nstatus:\n  podIP: nowhere\n",
        )?;
        let objects = Manifests::load(&file).objects;
        let trust_domain = TrustDomain::DEFAULT.parse().expect("a literal");
        let (lines, statuses, summary) = report(&objects, &trust_domain);
        std::fs::remove_dir_all(&dir)?;

        let expected = format!(
            "{}:11: Pod default/b: status.podIP: `nowhere` is neither IPv4 nor IPv6",
            file.display()
        );
        assert_eq!(lines, [expected]);
        assert!(statuses.is_empty());
        assert_eq!(summary, "1 object, 1 problem: 0 workloads, 0 services, 0 policies");
        Ok(())
    }
}
