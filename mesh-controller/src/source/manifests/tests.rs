use std::{fs, io};

use super::*;
use crate::object::{Object, ServiceAddresses};

fn read(text: &str) -> io::Result<Manifests> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("all.yaml"), text)?;
    Ok(Manifests::load(folder.path()))
}

#[test]
fn what_no_mesh_reads_is_told_from_what_is_misspelt() {
    for (kind, api_version, expected) in [
        ("Deployment", "apps/v1", Some("Deployment")),
        ("ConfigMap", "v1", Some("ConfigMap")),
        ("Kustomization", "kustomize.config.k8s.io/v1beta1", Some("Kustomization")),
        ("ReferenceGrant", "gateway.networking.k8s.io/v1beta1", Some("ReferenceGrant")),
        ("NetworkPolicy", "networking.k8s.io/v1", Some("NetworkPolicy")),
        ("Service", "serving.knative.dev/v1", Some("Service.serving.knative.dev")),
        (
            "AuthorizationPolicy",
            "security.istio.io/v1",
            Some("AuthorizationPolicy.security.istio.io"),
        ),
        ("Servce", "v1", None),
        ("Service", "v2", None),
        ("Service", "apps/v1", None),
        ("HTTPRoute", "networking.k8s.io/v1", None),
        ("HTTPRout", "gateway.networking.k8s.io/v1", None),
        ("EndpointSlices", "discovery.k8s.io/v1", None),
        ("AuthorisationPolicy", "nodemesh.dev/v1alpha1", None),
        ("Policy", "/v1", None),
    ] {
        assert_eq!(unread(kind, api_version).as_deref(), expected, "{kind} {api_version}");
    }
}

#[test]
fn unread_kinds_are_counted_in_lists_too() -> io::Result<()> {
    let manifests = read(
        "kind: List\napiVersion: v1\nitems:\n\
         - {apiVersion: v1, kind: Secret, metadata: {name: a}}\n\
         - {apiVersion: v1, kind: Node, metadata: {name: n}}\n---\n\
         {apiVersion: v1, kind: Secret, metadata: {name: b}}\n---\n\
         {apiVersion: nodemesh.dev/v1alpha1, kind: Secret, metadata: {name: c}}\n",
    )?;
    assert_eq!(manifests.skipped, BTreeMap::from([("Secret".to_owned(), 2)]));
    assert_eq!(manifests.objects.in_use.len(), 1);
    let refusals: Vec<_> = manifests.objects.refusals.iter().map(|it| &it.reason).collect();
    assert!(matches!(&refusals[..], [it] if it.contains("`Secret` is not understood")));
    Ok(())
}

#[test]
fn a_service_has_its_address_yet_to_come() -> io::Result<()> {
    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: SPEC}";
    for (spec, expected) in [
        ("{}", Some(ServiceAddresses::Virtual(Vec::new()))),
        ("{clusterIP: ''}", Some(ServiceAddresses::Virtual(Vec::new()))),
        ("{clusterIP: None}", Some(ServiceAddresses::Headless)),
        ("{clusterIP: 10.96.0.1}", Some(ServiceAddresses::Virtual(vec![[10, 96, 0, 1].into()]))),
        ("{clusterIP: nowhere}", None),
    ] {
        let text = SERVICE.replace("SPEC", spec);
        let objects = read(&text)?.objects;
        let addresses = objects.in_use.values().find_map(|(object, _)| match &**object {
            Object::Service(service) => Some(service.addresses.clone()),
            _ => None,
        });
        assert_eq!(addresses, expected, "{spec}");
    }
    Ok(())
}

#[test]
fn a_folder_that_is_served_from_has_to_be_complete() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(
        folder.path().join("all.yaml"),
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {}}\n---\n\
         {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n",
    )?;
    let (_, objects) = file::Folder::load(folder.path());
    let reasons: Vec<_> = objects.refusals.iter().map(|it| it.reason.as_str()).collect();
    assert!(reasons[0].contains("only a cluster gives addresses out"), "{reasons:?}");
    assert!(reasons[1].contains("`Deployment` is not understood"), "{reasons:?}");
    Ok(())
}
