//! Where the requests of a rule go, as far as the route alone can tell.

use mesh_common::model::{Backend, BackendTarget, NamespacedName};

use super::{
    BadReference, InvalidRule,
    filter::{self, On},
    matching::unsupported,
    written::BackendRef,
};

/// The backends of a rule.
pub(super) fn backends(
    field: &str,
    list: Option<Vec<BackendRef>>,
    namespace: &str,
    on: On,
    bad: &mut Vec<BadReference>,
) -> Result<Vec<Backend>, InvalidRule> {
    let mut backends = Vec::new();
    for (at, mut written) in list.unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let weight = written.weight.unwrap_or(1);
        let weight = u32::try_from(weight).map_err(|_| {
            unsupported(&format!("{field}.weight"), &format!("{weight} is negative"))
        })?;
        let filters = written.filters.take();
        let filters = filter::filters(&format!("{field}.filters"), filters, namespace, on, bad)?;
        backends.push(Backend {
            target: target(&field, &written, namespace, bad),
            weight,
            filters,
        });
    }
    Ok(backends)
}

/// What a reference leads to, were it there.
pub(super) fn target(
    field: &str,
    written: &BackendRef,
    namespace: &str,
    bad: &mut Vec<BadReference>,
) -> BackendTarget {
    let mut nowhere = |reason: &'static str, message: String| {
        bad.push(BadReference { reason, message: format!("{field}: {message}") });
        BackendTarget::Invalid(message.into())
    };
    let group = written.group.as_deref().unwrap_or_default();
    let kind = written.kind.as_deref().unwrap_or("Service");
    if !matches!(group, "" | "core") || kind != "Service" {
        let message = format!("{kind} of group `{group}` is not understood; only Service is");
        return nowhere("InvalidKind", message);
    }
    let name =
        NamespacedName::new(written.namespace.as_deref().unwrap_or(namespace), &written.name);
    match written.port.map(u16::try_from) {
        Some(Ok(port)) if port > 0 => BackendTarget::Service { name, port },
        Some(_) => nowhere("BackendNotFound", "the port is not within 1 to 65535".to_owned()),
        None => nowhere("BackendNotFound", format!("a port of Service {name} has to be written")),
    }
}
