//! Who sends a request: the subject of a client certificate, or a service account with a token.

use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    cluster::Cluster,
    error::{About, ApiError},
    meta,
    store::{Key, Object},
    token::{Claims, ISSUER},
};

/// A user as authorization sees one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// Of the pod that a token is bound to.
    pub extra: Value,
}

impl User {
    /// Whether the user may do everything, whatever roles say.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }
}

/// The common name is the user, organisations are groups; the certificate has been verified.
pub fn from_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<_> = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups, ..User::default() })
}

/// The user of a request: of its certificate, or of the token in its header.
pub fn authenticate(
    cluster: &Cluster,
    certified: Option<User>,
    header: Option<&str>,
) -> Result<User, ApiError> {
    if let Some(user) = certified {
        return Ok(user);
    }
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    let token = token.ok_or_else(ApiError::unauthorized)?;
    let user = from_token(cluster, token.trim(), &[ISSUER.to_owned()]);
    user.map(|(user, _)| user).map_err(|_| ApiError::unauthorized())
}

/// The user that an administrator wants to be taken for (`kubectl --as`); nobody else may.
pub fn impersonate(user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let Some(name) = texts("impersonate-user").next() else { return Ok(user) };
    if !user.is_master() {
        let about = About { group: "", resource: "users", name };
        let why = format!(
            "User \"{}\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            user.name
        );
        return Err(ApiError::forbidden(about, &why));
    }
    let mut groups: Vec<_> = texts("impersonate-group").map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Ok(User { name: name.to_owned(), groups, ..User::default() })
}

/// The account of a token, if that is good, the account is still there, and its pod too.
pub fn from_token(
    cluster: &Cluster,
    token: &str,
    audiences: &[String],
) -> Result<(User, Claims), String> {
    let claims = cluster.tokens.verify(token, audiences)?;
    let find = |resource: &str, name: &str| {
        let (resource, name) = (resource.to_owned(), name.to_owned());
        let namespace = claims.namespace().to_owned();
        cluster.store.lock().get(&Key { resource, namespace, name })
    };
    let (account, uid) = claims.account();
    check(find("serviceaccounts", account), uid, "service account")?;
    let mut extra = Value::Null;
    if let Some((name, uid)) = claims.pod() {
        let pod = check(find("pods", name), uid, "pod")?;
        extra = json!({
            "authentication.kubernetes.io/pod-name": [name],
            "authentication.kubernetes.io/pod-uid": [uid],
        });
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            extra["authentication.kubernetes.io/node-name"] = json!([node]);
        }
    }
    let namespace = claims.namespace();
    let user = User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra,
    };
    Ok((user, claims))
}

fn check(object: Option<Object>, uid: &str, what: &str) -> Result<Object, String> {
    object
        .filter(|object| meta::text(object, "uid") == uid)
        .ok_or_else(|| format!("[invalid bearer token, the {what} of the token is gone]"))
}
