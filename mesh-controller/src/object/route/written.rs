//! Routes as people write them: the fields of the Gateway API's definitions, each as loose as it is
//! written, so that one bad value costs no more than its rule.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Any route, with its own kind of rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteObject<R> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec<R>,
    #[serde(default, rename = "status")]
    _status: Option<Value>,
}

/// An HTTPRoute.
pub type HttpRouteObject = RouteObject<HttpRule>;
/// A GRPCRoute.
pub type GrpcRouteObject = RouteObject<GrpcRule>;
/// A TLSRoute.
pub type TlsRouteObject = RouteObject<StreamRule>;
/// A TCPRoute.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct TcpRouteObject(pub(super) RouteObject<StreamRule>);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec<R> {
    pub parent_refs: Option<Vec<ParentRef>>,
    pub hostnames: Option<Vec<String>>,
    pub rules: Option<Vec<R>>,
    #[serde(rename = "useDefaultGateways")]
    _use_default_gateways: Option<String>,
}

/// What a route wants to be attached to, as it is written: status has to repeat it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The API group; that of gateways where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The kind; Gateway where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The namespace; the route's own where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// A part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// A port of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// A rule of an HTTPRoute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    pub(super) name: Option<String>,
    pub(super) matches: Option<Vec<HttpMatch>>,
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
    pub(super) timeouts: Option<Timeouts>,
    pub(super) retry: Option<Retry>,
    pub(super) session_persistence: Option<Value>,
}

/// A rule of a GRPCRoute.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRule {
    pub(super) name: Option<String>,
    pub(super) matches: Option<Vec<GrpcMatch>>,
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
    pub(super) session_persistence: Option<Value>,
}

/// A rule of a TLSRoute or a TCPRoute.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRule {
    pub(super) name: Option<String>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpMatch {
    pub path: Option<Text>,
    pub headers: Option<Vec<NamedText>>,
    pub query_params: Option<Vec<NamedText>>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GrpcMatch {
    pub method: Option<GrpcMethod>,
    pub headers: Option<Vec<NamedText>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct GrpcMethod {
    pub r#type: Option<String>,
    pub service: Option<String>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Text {
    pub r#type: Option<String>,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NamedText {
    pub r#type: Option<String>,
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    pub r#type: String,
    pub request_header_modifier: Option<HeaderModifier>,
    pub response_header_modifier: Option<HeaderModifier>,
    pub request_mirror: Option<Mirror>,
    pub request_redirect: Option<Redirect>,
    pub url_rewrite: Option<Rewrite>,
    pub cors: Option<Cors>,
    #[serde(rename = "extensionRef")]
    _extension_ref: Option<Value>,
    #[serde(rename = "externalAuth")]
    _external_auth: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct HeaderModifier {
    pub set: Option<Vec<Header>>,
    pub add: Option<Vec<Header>>,
    pub remove: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Header {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mirror {
    pub backend_ref: BackendRef,
    pub percent: Option<i32>,
    pub fraction: Option<Fraction>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fraction {
    pub numerator: i32,
    pub denominator: Option<i32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
    pub port: Option<i32>,
    pub status_code: Option<u16>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathModifier {
    pub r#type: String,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cors {
    pub allow_origins: Option<Vec<String>>,
    pub allow_credentials: Option<bool>,
    pub allow_methods: Option<Vec<String>>,
    pub allow_headers: Option<Vec<String>>,
    pub expose_headers: Option<Vec<String>>,
    pub max_age: Option<i32>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct BackendRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub namespace: Option<String>,
    pub port: Option<i32>,
    pub weight: Option<i32>,
    pub filters: Option<Vec<Filter>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timeouts {
    pub request: Option<String>,
    pub backend_request: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Retry {
    pub codes: Option<Vec<i32>>,
    pub attempts: Option<i32>,
    pub backoff: Option<String>,
}
