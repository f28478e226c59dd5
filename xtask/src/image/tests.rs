use std::process::Command;

use super::*;

fn image() -> Image {
    // Names out of order.
    let file = |name: &str| (name.to_owned(), format!("#!{name}").into_bytes());
    Image { tag: "nodemesh:0.1.0".into(), files: vec![file("nodemesh"), file("mesh-agent")] }
}

/// The program is one of those that `cargo xtask setup` brings.
fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "--override-os", "linux", "--override-arch", "amd64"])
        .args(arguments)
        .output()
        .expect("skopeo; cargo xtask setup installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("JSON")
}

#[test]
fn skopeo_reads_both_layouts() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("nodemesh.tar");
    image().write(&archive).expect("written");
    for transport in ["oci-archive", "docker-archive"] {
        let source = format!("{transport}:{}", archive.display());
        let config: serde_json::Value =
            serde_json::from_str(&skopeo(&["inspect", "--config", &source])).expect("JSON");
        assert_eq!(config["config"]["User"], "65532:65532", "{transport}");
        assert_eq!(config["os"], "linux", "{transport}");
        // Copying checks every digest.
        let copy = format!("oci:{}", folder.path().join(transport).display());
        skopeo(&["copy", "--quiet", &source, &copy]);
    }
}

#[test]
fn the_same_programs_make_the_same_archive() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, image: Image| {
        let path = folder.path().join(name);
        image.write(&path).expect("written");
        fs::read(path).expect("is there")
    };
    let mut turned = image();
    turned.files.reverse();
    assert_eq!(write("a.tar", image()), write("b.tar", turned));
}

#[test]
fn a_program_that_wants_a_loader_is_not_static() {
    let this = fs::read("/proc/self/exe").expect("the test itself");
    assert!(!is_static(&this), "tests are linked dynamically");
    assert!(!is_static(b"#!/bin/sh"));
}
