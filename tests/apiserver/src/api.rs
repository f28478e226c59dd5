//! The API: from a request to its answer.

mod list;
mod read;
mod remove;
mod review;
mod scale;
mod watch;
mod write;

mod admit;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

pub use self::{
    watch::Frames,
    write::{FieldValidation, Options, insert},
};
use crate::{
    accept::Form,
    admin,
    cluster::Cluster,
    discovery,
    error::{About, ApiError},
    exec::{self, Exec},
    fault::Cut,
    openapi,
    rbac::{self, Action},
    registry::{Origin, Resource},
    request::Request,
    route::Target,
    selector,
};

/// What is sent back.
pub enum Answer {
    /// JSON that is ready to be sent.
    Json(StatusCode, Vec<u8>),
    Text(StatusCode, &'static str),
    Bytes(&'static str, Vec<u8>),
    Stream(Frames),
    /// A command, on a connection that is a WebSocket from here on.
    Exec(Exec),
}

impl Answer {
    /// An object.
    pub fn ok(value: &Value) -> Self {
        Self::with(StatusCode::OK, value)
    }

    fn with(code: StatusCode, value: &Value) -> Self {
        Self::Json(code, value.to_string().into_bytes())
    }

    /// What an error looks like.
    pub fn error(error: &ApiError) -> Self {
        Self::with(error.code, &error.status())
    }
}

/// Answers a request.
pub async fn answer(cluster: &Arc<Cluster>, request: &Request) -> Result<Answer, ApiError> {
    if let Some(fault) = request.path.strip_prefix("/admin/") {
        return admin::answer(cluster, request, fault);
    }
    sleep(cluster.faults.delay()).await;
    // Before anything is counted: a test that sees the count may cut at once.
    let cut = *cluster.faults.cuts().borrow();
    match Target::find(&request.path, &cluster.registry) {
        Some(target) => of_target(cluster, request, &target, cut),
        None => of_path(cluster, request),
    }
}

/// What is asked of a resource.
pub fn verb(request: &Request, target: &Target) -> Result<&'static str, ApiError> {
    let one = target.name.is_some();
    Ok(match request.method {
        Method::GET | Method::HEAD if request.query.is_on("watch") => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT if one => "update",
        Method::PATCH if one => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(ApiError::method_not_allowed()),
    })
}

fn of_target(
    cluster: &Arc<Cluster>,
    request: &Request,
    target: &Target,
    cut: Cut,
) -> Result<Answer, ApiError> {
    let verb = verb(request, target)?;
    let resource = &target.resource;
    cluster.faults.meet(verb, &resource.plural)?;
    authorize(cluster, request, target, verb)?;
    if !resource.verbs().contains(&verb) {
        return Err(ApiError::method_not_allowed());
    }
    match target.subresource.as_deref() {
        None if resource.origin == Origin::Review => {
            return review::review(cluster, request, target);
        }
        None => {}
        Some("status") if resource.status => {}
        Some("scale") => return scale::scale(cluster, request, target, verb),
        // Whoever may only read is not to run anything, though a WebSocket begins with GET.
        Some("exec") if resource.is("", "pods") && matches!(verb, "get" | "create") => {
            authorize(cluster, request, target, "create")?;
            let pod = read::find(cluster, target)?;
            return exec::exec(cluster, request, &pod).map(Answer::Exec);
        }
        Some("finalize") if resource.is("", "namespaces") => {}
        Some("token") if resource.is("", "serviceaccounts") && verb == "create" => {
            return review::request(cluster, request, target);
        }
        Some(_) => return Err(ApiError::no_such_resource()),
    }
    match verb {
        "get" => read::get(cluster, request, target),
        "list" => list::list(cluster, request, target),
        "watch" => watch::watch(cluster, request, target, cut),
        "create" => write::create(cluster, request, target),
        "update" => write::update(cluster, request, target),
        "patch" => write::patch(cluster, request, target),
        "delete" => remove::delete(cluster, request, target),
        _ => remove::delete_collection(cluster, request, target),
    }
}

/// Lets RBAC decide, if it is on.
fn authorize(
    cluster: &Cluster,
    request: &Request,
    target: &Target,
    verb: &str,
) -> Result<(), ApiError> {
    let name = target.name.as_deref();
    // A list of one name counts as one of that object; a namespace is in itself.
    let selected = request.query.get("fieldSelector").and_then(selector::only_name);
    let is_namespace = target.resource.is("", "namespaces");
    let namespace = if is_namespace { name } else { target.namespace.as_deref() };
    let action = Action::Resource {
        verb,
        group: &target.resource.group,
        resource: &target.resource.plural,
        subresource: target.subresource.as_deref().unwrap_or_default(),
        namespace: namespace.unwrap_or_default(),
        name: name.or(selected).unwrap_or_default(),
    };
    decide(cluster, request, &action)
}

fn decide(cluster: &Cluster, request: &Request, action: &Action<'_>) -> Result<(), ApiError> {
    let is_allowed = || rbac::is_allowed(&cluster.store.lock(), &request.user, action);
    if !cluster.settings.rbac || is_allowed() {
        return Ok(());
    }
    let error = rbac::forbidden(&request.user, action);
    let message = error.status()["message"].as_str().unwrap_or_default().to_owned();
    cluster.faults.refused(message);
    Err(error)
}

/// Whether a path is answered without credentials.
pub fn is_public(path: &str) -> bool {
    let first = path.trim_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

/// Paths that are no resource: health, version, discovery, schemas.
fn of_path(cluster: &Cluster, request: &Request) -> Result<Answer, ApiError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(ApiError::no_such_resource());
    }
    decide(cluster, request, &Action::Path { verb: "get", path: &request.path })?;
    let segments: Vec<_> = request.path.trim_matches('/').split('/').collect();
    let registry = &cluster.registry;
    let missing = Answer::Text(StatusCode::NOT_FOUND, "404 page not found\n");
    if let ["openapi", "v2"] = &segments[..] {
        return openapi::v2(registry, request.accept.as_deref());
    }
    let aggregated = request.form()? == Form::Aggregated;
    let found = match &segments[..] {
        ["healthz" | "livez" | "readyz", ..] => return Ok(Answer::Text(StatusCode::OK, "ok")),
        ["version"] => Some(discovery::version()),
        ["api" | "apis"] if aggregated => {
            let body = discovery::aggregated(registry, segments == ["api"]).to_string();
            return Ok(Answer::Bytes(AGGREGATED, body.into_bytes()));
        }
        ["api"] => Some(discovery::core_versions(&cluster.address)),
        ["apis"] => Some(discovery::groups(registry)),
        ["apis", group] => discovery::group(registry, group),
        ["api", version] => discovery::resources(registry, "", version),
        ["apis", group, version] => discovery::resources(registry, group, version),
        _ => None,
    };
    Ok(found.map_or(missing, |body| Answer::ok(&body)))
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What errors say a target is.
fn about<'a>(resource: &'a Resource, name: &'a str) -> About<'a> {
    About { group: &resource.group, resource: &resource.plural, name }
}

/// The same for errors of content, which name the kind.
fn about_kind<'a>(resource: &'a Resource, name: &'a str) -> About<'a> {
    About { group: &resource.group, resource: &resource.kind, name }
}

/// A line of a watch.
fn line(value: &Value) -> Bytes {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line.into()
}
