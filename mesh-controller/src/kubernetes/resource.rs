//! What is read from the API server: paths, and names as RBAC has them.

use crate::object::Kind;

/// A resource of the API server, of all namespaces or of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The path of its collection.
    pub path: String,
    /// As RBAC rules and `kubectl` call it, such as `endpointslices.discovery.k8s.io`.
    pub name: String,
    /// The same in older versions, for servers that do not have that one.
    pub older: Vec<String>,
    /// Labels that an object must have; `None` for all objects.
    pub labels: Option<&'static str>,
}

impl Resource {
    /// All objects of `kind`.
    pub fn of(kind: Kind) -> Self {
        Self::of_namespace(kind, None)
    }

    /// The objects of `kind` in `namespace`, or all of them.
    pub fn of_namespace(kind: Kind, namespace: Option<&str>) -> Self {
        let [newest, older @ ..] = kind.api_versions() else { unreachable!("every kind has one") };
        let plural = Self::plural(kind);
        let older = older.iter().map(|version| Self::new(version, namespace, plural).path);
        Self { older: older.collect(), ..Self::new(newest, namespace, plural) }
    }

    fn plural(kind: Kind) -> &'static str {
        match kind {
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Pod => "pods",
            Kind::Service => "services",
            Kind::ServiceAccount => "serviceaccounts",
            Kind::EndpointSlice => "endpointslices",
            Kind::RuntimeClass => "runtimeclasses",
            Kind::AuthorizationPolicy => "authorizationpolicies",
            Kind::PeerPolicy => "peerpolicies",
            Kind::MeshConfig => "meshconfigs",
            Kind::HttpRoute => "httproutes",
            Kind::GrpcRoute => "grpcroutes",
            Kind::TlsRoute => "tlsroutes",
            Kind::TcpRoute => "tcproutes",
        }
    }

    /// The path in each version, the newest first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.path).chain(&self.older).map(String::as_str)
    }

    /// The objects of `plural` in `namespace`, or in all where there is none.
    pub fn new(api_version: &str, namespace: Option<&str>, plural: &str) -> Self {
        let root = match api_version.contains('/') {
            true => "/apis",
            false => "/api",
        };
        let namespace = namespace.map(|it| format!("/namespaces/{it}")).unwrap_or_default();
        let name = match api_version.split_once('/') {
            Some((group, _)) => format!("{plural}.{group}"),
            None => plural.to_owned(),
        };
        let path = format!("{root}/{api_version}{namespace}/{plural}");
        Self { path, name, older: Vec::new(), labels: None }
    }

    /// Only objects with these labels.
    pub fn labelled(self, labels: &'static str) -> Self {
        Self { labels: Some(labels), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_those_of_kubernetes() {
        let of = |kind| (Resource::of(kind).path, Resource::of(kind).name);
        assert_eq!(of(Kind::Pod), ("/api/v1/pods".into(), "pods".into()));
        assert_eq!(
            of(Kind::EndpointSlice),
            (
                "/apis/discovery.k8s.io/v1/endpointslices".into(),
                "endpointslices.discovery.k8s.io".into()
            )
        );
        let own = Resource::new("v1", Some("nodemesh-system"), "configmaps");
        assert_eq!(own.path, "/api/v1/namespaces/nodemesh-system/configmaps");
    }
}
