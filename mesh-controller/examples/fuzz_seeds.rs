//! Writes what an agent is sent of some objects into fuzz/seeds/deltas: run it where `mesh.v1` changed.

use std::{error::Error, fs, path::Path, sync::Arc};

use mesh_common::{api::v1, identity::TrustDomain};
use mesh_controller::{captured::Captures, compile, source::yaml};
use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, folder) in [("demo", "deploy/demo"), ("kinds", "fuzz/seeds/objects")] {
        let file = root.join("fuzz/seeds/deltas").join(name);
        fs::write(&file, delta(&root.join(folder))?)?;
        println!("{}", file.display());
    }
    Ok(())
}

/// All that can be made of the objects in `folder`, and one that goes.
fn delta(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut parsed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        parsed.extend(yaml::parse(&Arc::from(path.as_path()), &fs::read_to_string(&path)?));
    }
    let index = parsed.iter().filter_map(|it| it.object.as_ref().ok()).collect();
    let domain: TrustDomain = TrustDomain::DEFAULT.parse()?;
    let compiled = compile::compile(&index, &Captures::default(), &domain);
    let wire = |resource| v1::Resource { version: 1, resource: Some(resource) };
    let updated = compiled.resources.values().map(|resource| wire(resource.into())).collect();
    let removed = compiled.resources.keys().take(1).map(Into::into).collect();
    let response = v1::SubscribeResponse { nonce: 1, updated, removed, ..Default::default() };
    Ok(response.encode_to_vec())
}
