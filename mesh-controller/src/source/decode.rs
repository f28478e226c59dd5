//! From a value, as YAML or JSON has it, to an object: the one way in for every source.

use std::sync::Arc;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery, node::v1 as node_api},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_common::model::NamespacedName;
use serde::de::DeserializeOwned;

use super::{
    Parsed, Place, manifests,
    node::{Node, TreeError, Value},
};
use crate::object::{
    AuthorizationPolicyObject, FieldError, GrpcRouteObject, HttpRouteObject, Kind,
    MeshConfigObject, Object, ObjectKey, PeerPolicyObject, Service, TcpRouteObject, TlsRouteObject,
    named,
};

/// What a field that Kubernetes' types do not have is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// A mistake: people wrote this.
    Written,
    /// A mistake too; and what an API server fills in is not there yet.
    Unapplied,
    /// A newer version's: an API server serves this, and has checked it. nodemesh's own kinds
    /// refuse unknown fields all the same: a rule without one of its conditions matches more.
    Served,
}

/// The object that `node` is; `place` says where a line of it is.
pub fn one(node: &Node, fields: Fields, place: &dyn Fn(u64) -> Place) -> Parsed {
    match kind(node) {
        Ok(kind) => of_kind(node, kind, fields, place),
        Err(error) => {
            let line = error.line.unwrap_or(node.line);
            Parsed { place: place(line), key: None, object: Err(error.to_string()) }
        }
    }
}

/// The object of `kind` that `node` is.
pub fn of_kind(node: &Node, kind: Kind, fields: Fields, place: &dyn Fn(u64) -> Place) -> Parsed {
    let key = key(node, kind);
    match object(node, kind, fields) {
        Ok(object) => Parsed {
            place: place(node.line),
            key: Some(object.key()),
            object: Ok(Arc::new(object)),
        },
        Err(error) => {
            let line = error.line.unwrap_or(node.line);
            Parsed { place: place(line), key, object: Err(error.to_string()) }
        }
    }
}

/// What to call `node`, where it is of a kind that no mesh reads.
pub(super) fn unread(node: &Node) -> Option<String> {
    let text = |field| node.get(field).and_then(Node::as_text);
    manifests::unread(text("kind")?, text("apiVersion")?)
}

fn kind(node: &Node) -> Result<Kind, TreeError> {
    if !matches!(node.value, Value::Map(_)) {
        return Err(error(node, "", "no Kubernetes object: a mapping with `kind` is expected"));
    }
    let text = |field: &str| {
        node.get(field).and_then(Node::as_text).ok_or_else(|| {
            error(node, field, "missing, or no text; every Kubernetes object has one")
        })
    };
    let (kind, api_version) = (text("kind")?, text("apiVersion")?);
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        error(node, "kind", &format!("`{kind}` is not understood; understood are {names}, List"))
    })?;
    if !known.api_versions().contains(&api_version) {
        let expected = known.api_versions().join(" or ");
        let reason = format!("`{api_version}` is not understood for {kind}; write {expected}");
        return Err(error(node, "apiVersion", &reason));
    }
    Ok(known)
}

fn error(node: &Node, path: &str, reason: &str) -> TreeError {
    TreeError { path: path.into(), line: Some(node.line_of(path)), reason: reason.into() }
}

/// The key as far as it can be read, whatever else is wrong with the object.
fn key(node: &Node, kind: Kind) -> Option<ObjectKey> {
    let metadata = node.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(Node::as_text).map(str::to_owned);
    let metadata =
        ObjectMeta { name: text("name"), namespace: text("namespace"), ..ObjectMeta::default() };
    let mut name = named(&metadata).ok()?;
    if !kind.is_namespaced() {
        name = NamespacedName::new("", &name.name);
    }
    Some(ObjectKey { kind, name })
}

fn object(node: &Node, kind: Kind, fields: Fields) -> Result<Object, TreeError> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(read::<core::Namespace, _>(node, fields)?),
        Kind::Node => Object::Node(read::<core::Node, _>(node, fields)?),
        Kind::Pod => Object::Pod(read::<core::Pod, _>(node, fields)?),
        Kind::Service if fields == Fields::Unapplied => {
            Object::Service(read_as(node, fields, Service::unapplied)?)
        }
        Kind::Service => Object::Service(read::<core::Service, _>(node, fields)?),
        Kind::ServiceAccount => {
            Object::ServiceAccount(read::<core::ServiceAccount, _>(node, fields)?)
        }
        Kind::EndpointSlice => {
            Object::EndpointSlice(read::<discovery::EndpointSlice, _>(node, fields)?)
        }
        Kind::RuntimeClass => {
            Object::RuntimeClass(read::<node_api::RuntimeClass, _>(node, fields)?)
        }
        Kind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(read::<AuthorizationPolicyObject, _>(node, fields)?)
        }
        Kind::PeerPolicy => Object::PeerPolicy(read::<PeerPolicyObject, _>(node, fields)?),
        Kind::MeshConfig => Object::MeshConfig(read::<MeshConfigObject, _>(node, fields)?),
        Kind::HttpRoute => Object::Route(Box::new(read::<HttpRouteObject, _>(node, fields)?)),
        Kind::GrpcRoute => Object::Route(Box::new(read::<GrpcRouteObject, _>(node, fields)?)),
        Kind::TlsRoute => Object::Route(Box::new(read::<TlsRouteObject, _>(node, fields)?)),
        Kind::TcpRoute => Object::Route(Box::new(read::<TcpRouteObject, _>(node, fields)?)),
    })
}

/// Reads a `T` as Kubernetes has it and converts it to what the mesh makes of it.
fn read<T, U>(node: &Node, fields: Fields) -> Result<U, TreeError>
where
    T: DeserializeOwned,
    U: TryFrom<T, Error = FieldError>,
{
    read_as(node, fields, U::try_from)
}

fn read_as<T: DeserializeOwned, U>(
    node: &Node,
    fields: Fields,
    convert: impl FnOnce(T) -> Result<U, FieldError>,
) -> Result<U, TreeError> {
    let written = match fields {
        Fields::Written | Fields::Unapplied => node.read::<T>()?,
        Fields::Served => T::deserialize(node)?,
    };
    convert(written).map_err(|error| TreeError {
        line: Some(node.line_of(&error.path)),
        path: error.path,
        reason: error.reason,
    })
}
