//! What is applied to a cluster, as far as it is written by programs: deploy/crds from the Rust
//! types, deploy/chart from deploy/base.
//!
//! The chart is the base with a few places left open. What Helm does to it is little enough to be
//! checked without Helm: with the values of values.yaml put in, the templates are the base again.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{ebpf::repository, setup::cargo};

/// What the base says, and the value that says it in the chart.
const OPEN: [(&str, &str); 4] = [
    (concat!("image: nodemesh:", env!("CARGO_PKG_VERSION")), "image"),
    ("imagePullPolicy: IfNotPresent", "imagePullPolicy"),
    ("replicas: 2", "replicas"),
    ("value: info", "logLevel"),
];
/// The files of deploy/base that are templates; Helm makes the namespace itself.
const TEMPLATES: [&str; 4] =
    ["agent.yaml", "controller.yaml", "rbac-agent.yaml", "rbac-controller.yaml"];
const CONFIG: &str = "overlays/secure/mesh-config.yaml";
const HEAD: &str = "# Written by `cargo xtask manifests` from deploy/base.\n";
/// Names of the code have their namespace in them.
const NAMESPACE: &str = r#"{{- if ne .Release.Namespace "nodemesh-system" }}
{{- fail "install nodemesh into the namespace nodemesh-system: --namespace nodemesh-system" }}
{{- end }}
"#;

/// Writes deploy/crds from the types that read the objects.
///
/// # Errors
/// Where they do not build, or the files cannot be written.
pub fn crds() -> Result<()> {
    let status = cargo()
        .args(["run", "--quiet", "--package", "mesh-controller", "--example", "crds", "--"])
        .arg(repository().join("deploy/crds"))
        .status()?;
    ensure!(status.success(), "the definitions were not written");
    Ok(())
}

/// Writes the files of deploy/chart that follow from others.
///
/// # Errors
/// Where one cannot be read or written.
pub fn chart() -> Result<()> {
    let deploy = repository().join("deploy");
    for (path, content) in files(&deploy)? {
        let path = deploy.join("chart").join(path);
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The files and what has to be in them.
fn files(deploy: &Path) -> Result<Vec<(String, String)>> {
    let read = |path: &str| {
        let path = deploy.join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let mut files = Vec::new();
    for name in TEMPLATES {
        let template = template(&read(&format!("base/{name}"))?)?;
        files.push((format!("templates/{name}"), format!("{HEAD}{template}")));
    }
    let config = read(CONFIG)?;
    let config = format!(
        "{HEAD}{NAMESPACE}{{{{- if eq .Values.profile \"secure\" }}}}\n{config}{{{{- end }}}}\n"
    );
    files.push(("templates/mesh-config.yaml".to_owned(), config));
    for entry in fs::read_dir(deploy.join("crds"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "kustomization.yaml" {
            let definition = read(&format!("crds/{name}"))?;
            files.push((format!("crds/{name}"), definition));
        }
    }
    files.sort();
    Ok(files)
}

fn template(base: &str) -> Result<String> {
    ensure!(!base.contains("{{"), "Helm would read what stands in braces");
    Ok(OPEN.into_iter().fold(base.to_owned(), |text, (written, value)| {
        let key = written.split(':').next().unwrap_or_default();
        text.replace(written, &format!("{key}: {{{{ .Values.{value} }}}}"))
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn deploy() -> std::path::PathBuf {
        repository().join("deploy")
    }

    #[test]
    fn the_chart_is_that_of_the_base() {
        let files = files(&deploy()).expect("deploy is there");
        for (path, content) in &files {
            let there = fs::read_to_string(deploy().join("chart").join(path)).unwrap_or_default();
            assert!(
                there == *content,
                "deploy/chart/{path} is not up to date: cargo xtask manifests"
            );
        }
        for folder in ["templates", "crds"] {
            for entry in fs::read_dir(deploy().join("chart").join(folder)).expect("a folder") {
                let name = entry.expect("an entry").file_name();
                let path = format!("{folder}/{}", name.to_string_lossy());
                assert!(files.iter().any(|it| it.0 == path), "deploy/chart/{path}: from nothing");
            }
        }
    }

    #[test]
    fn with_its_values_the_chart_is_the_base() {
        let text = fs::read_to_string(deploy().join("chart/values.yaml")).expect("is there");
        let line = |line: &'static str| line.split_once(": ");
        let text: &'static str = text.leak();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values: BTreeMap<&str, &str> = lines.filter_map(line).collect();
        for name in TEMPLATES {
            let base = fs::read_to_string(deploy().join("base").join(name)).expect("is there");
            let mut rendered = template(&base).expect("a template");
            for (value, default) in &values {
                rendered = rendered.replace(&format!("{{{{ .Values.{value} }}}}"), default);
            }
            assert_eq!(rendered, base, "{name}");
        }
        assert_eq!(values.get("profile"), Some(&"default"));
    }

    #[test]
    fn every_open_place_is_in_the_base() {
        let base: String = TEMPLATES
            .into_iter()
            .map(|name| fs::read_to_string(deploy().join("base").join(name)).expect("is there"))
            .collect();
        for (written, _) in OPEN {
            assert!(base.contains(&format!("{written}\n")), "{written}");
        }
    }
}
