//! Kubernetes objects as people write them: each document is understood or refused with a place and a
//! reason, and what the compiler makes of them no agent refuses.

#![no_main]

use std::{path::Path, sync::Arc};

use libfuzzer_sys::fuzz_target;
use mesh_agent::snapshot::Snapshot;
use mesh_common::{api::v1, identity::TrustDomain};
use mesh_controller::{captured::Captures, compile, source::yaml};

fuzz_target!(|text: &str| {
    let file = Arc::from(Path::new("objects.yaml"));
    let parsed = yaml::parse(&file, text);
    let mut objects = Vec::new();
    for it in &parsed {
        match &it.object {
            Ok(object) => objects.push(object),
            Err(reason) => assert!(!reason.is_empty(), "refused without a reason"),
        }
    }
    let index = objects.into_iter().collect();
    let domain: TrustDomain = TrustDomain::DEFAULT.parse().expect("a literal");
    let compiled = compile::compile(&index, &Captures::default(), &domain);
    let wire = |resource| v1::Resource { version: 1, resource: Some(resource) };
    let resources = compiled.resources.values().map(|resource| wire(resource.into())).collect();
    let refused = Snapshot::new().apply(resources, Vec::new());
    assert_eq!(refused, [], "an agent refuses what was compiled");
});
