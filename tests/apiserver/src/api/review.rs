//! Questions that are answered and not stored: whose token, what may somebody do; and new tokens.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, about, about_kind, read};
use crate::{
    auth::{self, User},
    cluster::Cluster,
    error::{ApiError, Cause},
    meta,
    rbac::{self, Action},
    request::Request,
    route::Target,
    token::{Bound, ISSUER},
};

/// The shortest life of a token that the real server signs, and its default, in seconds.
const SHORTEST: i64 = 600;
const USUAL: i64 = 3600;

/// Answers a review of any kind.
pub fn review(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let mut review = request.object()?;
    let spec = review["spec"].clone();
    review["status"] = match target.resource.kind.as_str() {
        "TokenReview" => token(cluster, &spec),
        "SelfSubjectReview" => json!({ "userInfo": info(&request.user) }),
        "SelfSubjectAccessReview" => access(cluster, &request.user, &spec),
        _ => access(cluster, &subject(&spec), &spec),
    };
    Ok(Answer::with(StatusCode::CREATED, &review))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The audiences that are asked for, or the API server's own.
fn audiences(spec: &Value) -> Vec<String> {
    match texts(&spec["audiences"]) {
        none if none.is_empty() => vec![ISSUER.to_owned()],
        some => some,
    }
}

fn token(cluster: &Cluster, spec: &Value) -> Value {
    let wanted = audiences(spec);
    match auth::from_token(cluster, spec["token"].as_str().unwrap_or_default(), &wanted) {
        Ok((user, claims)) => {
            let mut both = claims.audiences();
            both.retain(|audience| wanted.contains(audience));
            json!({ "authenticated": true, "user": info(&user), "audiences": both })
        }
        Err(error) => json!({ "authenticated": false, "user": {}, "error": error }),
    }
}

fn info(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if user.extra.is_object() {
        info["extra"] = user.extra.clone();
    }
    info
}

fn subject(spec: &Value) -> User {
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        ..User::default()
    }
}

fn access(cluster: &Cluster, user: &User, spec: &Value) -> Value {
    let attributes = &spec["resourceAttributes"];
    let text = |of: &'static str| attributes[of].as_str().unwrap_or_default();
    let path = &spec["nonResourceAttributes"];
    let action = if attributes.is_object() {
        Action::Resource {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
        }
    } else {
        Action::Path {
            verb: path["verb"].as_str().unwrap_or_default(),
            path: path["path"].as_str().unwrap_or_default(),
        }
    };
    let store = cluster.store.lock();
    json!({ "allowed": !cluster.settings.rbac || rbac::is_allowed(&store, user, &action) })
}

/// Signs a token for the account at the path: `serviceaccounts/<name>/token`.
pub fn request(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let account = read::find(cluster, target)?;
    let mut answer = request.object()?;
    let spec = answer["spec"].clone();
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(USUAL);
    if seconds < SHORTEST {
        let why = "may not specify a duration less than 10 minutes";
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
        let kind = crate::error::About {
            group: "authentication.k8s.io",
            resource: "TokenRequest",
            name: "",
        };
        return Err(ApiError::invalid(kind, &[cause]));
    }
    let namespace = meta::text(&account, "namespace");
    let bound = bound(cluster, &spec["boundObjectRef"], namespace)?;
    let (token, end) =
        cluster.tokens.issue(namespace, &account, &audiences(&spec), seconds, bound.as_ref());
    answer["spec"]["audiences"] = audiences(&spec).into();
    answer["spec"]["expirationSeconds"] = seconds.into();
    answer["status"] = json!({ "token": token, "expirationTimestamp": meta::moment(end) });
    answer["metadata"]["name"] = account["metadata"]["name"].clone();
    answer["metadata"]["namespace"] = namespace.into();
    Ok(Answer::with(StatusCode::CREATED, &answer))
}

/// The object that a token is to be bound to; it has to be there.
fn bound(cluster: &Cluster, reference: &Value, namespace: &str) -> Result<Option<Bound>, ApiError> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    if kind.is_empty() {
        return Ok(None);
    }
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        _ => return Err(ApiError::bad_request(format!("cannot bind token to a {kind}"))),
    };
    let resource = cluster
        .registry
        .find("", "v1", plural)
        .ok_or_else(|| ApiError::internal(format!("{plural} are built in")))?;
    let key = meta::key(&resource, Some(namespace), name);
    let object = cluster.store.lock().get(&key);
    let object = object.ok_or_else(|| ApiError::not_found(about(&resource, name)))?;
    let uid = meta::text(&object, "uid");
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!("the UID in the bound object reference ({}) does not match", text("uid"));
        return Err(ApiError::conflict(about_kind(&resource, name), &why));
    }
    Ok(Some(Bound { kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned() }))
}
