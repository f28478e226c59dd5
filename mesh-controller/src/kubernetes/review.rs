//! Which node an agent is of: the API server reviews its service account token.
//!
//! The token is projected into the agent's pod for this controller alone (its audience), and is
//! bound to that pod: the API server vouches for the account and the pod, and the pod for the node.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use mesh_common::{
    SYSTEM_NAMESPACE,
    model::NamespacedName,
    names::{AGENT, TOKEN_AUDIENCE},
};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{ApiError, Verb};
use crate::mesh::Mesh;

/// What was reviewed is believed for so long, whatever became of the pod meanwhile.
const FRESH: Duration = Duration::from_secs(60);
/// A review may take this long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many reviews run at a time: strangers must not make the controller a burden.
const AT_A_TIME: usize = 16;
/// So many tokens are remembered; a cluster has a few for each node.
const REMEMBERED: usize = 20_000;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token itself.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The API server cannot say.
    #[error("the token cannot be reviewed now: {0}")]
    Api(ApiError),
    /// The agent's pod is news to this controller.
    #[error("the token is good, but which node Pod {0} runs on is not known yet; try again")]
    UnknownPod(NamespacedName),
    /// Too many ask.
    #[error("too many tokens wait to be reviewed; try again")]
    Busy,
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// No such token.
    #[error("no service account token; mount one with audience {TOKEN_AUDIENCE} into the agent")]
    Malformed,
    /// For somebody else.
    #[error(
        "the token is for audience `{0}`, not {TOKEN_AUDIENCE}; correct the projected volume of the agent"
    )]
    Audience(String),
    /// Over.
    #[error("the token has expired; the agent has to read its file again, which kubelet renews")]
    Expired,
    /// The API server does not believe it.
    #[error("the API server does not believe the token: {0}")]
    Refused(String),
    /// Of another account.
    #[error(
        "the token is that of `{0}`; agents are system:serviceaccount:{SYSTEM_NAMESPACE}:{AGENT}"
    )]
    Account(String),
    /// Of no pod.
    #[error("the token is bound to no pod; agents use the one projected into their own pod")]
    Unbound,
}

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    pod: NamespacedName,
    uid: String,
    /// Where the API server says that, too.
    node: Option<Arc<str>>,
}

/// Asks the API server, and remembers for a short time.
pub struct Reviewer {
    client: Client,
    mesh: Arc<Mesh>,
    running: Semaphore,
    remembered: Mutex<BTreeMap<[u8; 32], Remembered>>,
}

#[derive(Clone)]
struct Remembered {
    caller: Caller,
    reviewed: Instant,
    expires: u64,
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reviewer")
    }
}

impl Reviewer {
    /// Asks through `client`, and looks pods up in `mesh`.
    pub fn new(client: Client, mesh: Arc<Mesh>) -> Self {
        let running = Semaphore::new(AT_A_TIME);
        Self { client, mesh, running, remembered: Mutex::default() }
    }

    /// The node of the agent that holds `token`.
    ///
    /// While the API server gives no answer, a token that it believed before is good until it
    /// expires: agents go on renewing certificates.
    ///
    /// # Errors
    /// Where the token is not good, or nobody can say.
    pub async fn node(&self, token: &str) -> Result<Arc<str>, ReviewError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = precheck(token, now.as_secs())?;
        let caller = self.caller(token, expires).await?;
        match caller.node {
            Some(node) => Ok(node),
            None => self
                .mesh
                .node_of_pod(&caller.pod, &caller.uid)
                .ok_or(ReviewError::UnknownPod(caller.pod)),
        }
    }

    async fn caller(&self, token: &str, expires: u64) -> Result<Caller, ReviewError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let known = self.lock().get(&hash).cloned();
        if let Some(known) = &known
            && known.reviewed.elapsed() < FRESH
        {
            return Ok(known.caller.clone());
        }
        match self.review(token).await {
            Ok(caller) => {
                let reviewed = Instant::now();
                let new = Remembered { caller: caller.clone(), reviewed, expires };
                self.remember(hash, new);
                Ok(caller)
            }
            Err(ReviewError::Api(error)) if error.is_outage() => match known {
                Some(known) => Ok(known.caller),
                None => Err(ReviewError::Api(error)),
            },
            Err(error) => {
                self.lock().remove(&hash);
                Err(error)
            }
        }
    }

    async fn review(&self, token: &str) -> Result<Caller, ReviewError> {
        let permit = tokio::time::timeout(TIMEOUT, self.running.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(ReviewError::Busy) };
        let spec = TokenReviewSpec {
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            token: token.to_owned(),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let review = api.create(&parameters, &review);
        let name = "tokenreviews.authentication.k8s.io";
        let answer = tokio::time::timeout(TIMEOUT, review).await.map_err(|_| {
            ReviewError::Api(ApiError::away(Verb::Create, name, "no answer in time"))
        })?;
        let answer =
            answer.map_err(|error| ReviewError::Api(ApiError::new(Verb::Create, name, &error)))?;
        Ok(judge(answer.status.unwrap_or_default())?)
    }

    fn remember(&self, hash: [u8; 32], new: Remembered) {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            remembered.retain(|_, known| known.expires > now.as_secs());
        }
        if remembered.len() < REMEMBERED {
            remembered.insert(hash, new);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<[u8; 32], Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a token expires, seconds since the Unix epoch, if there is a point in asking about it. Its
/// signature is the API server's business; what it says of itself spares asking about nonsense.
///
/// # Errors
/// Where it is none for agents, or has expired.
pub fn precheck(token: &str, now: u64) -> Result<u64, BadToken> {
    #[derive(Deserialize)]
    struct Claims {
        aud: Audiences,
        exp: u64,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Several(Vec<String>),
    }
    let payload = token.split('.').nth(1).ok_or(BadToken::Malformed)?;
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| BadToken::Malformed)?;
    let claims: Claims = serde_json::from_slice(&json).map_err(|_| BadToken::Malformed)?;
    let audiences = match claims.aud {
        Audiences::One(audience) => vec![audience],
        Audiences::Several(audiences) => audiences,
    };
    if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(BadToken::Audience(audiences.join(", ")));
    }
    if claims.exp <= now {
        return Err(BadToken::Expired);
    }
    Ok(claims.exp)
}

fn judge(status: TokenReviewStatus) -> Result<Caller, BadToken> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "it gives no reason".into());
        return Err(BadToken::Refused(reason));
    }
    // A server that knows nothing of audiences answers without any.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(BadToken::Audience(audiences.join(", ")));
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    if username != format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{AGENT}") {
        return Err(BadToken::Account(username));
    }
    let mut extra = user.extra.unwrap_or_default();
    let mut one = |key: &str| {
        let values = extra.remove(&format!("authentication.kubernetes.io/{key}"))?;
        values.into_iter().next().filter(|value| !value.is_empty())
    };
    let (pod, uid, node) = (one("pod-name"), one("pod-uid"), one("node-name"));
    let (Some(pod), Some(uid)) = (pod, uid) else { return Err(BadToken::Unbound) };
    let pod = NamespacedName::new(SYSTEM_NAMESPACE, &pod);
    Ok(Caller { pod, uid, node: node.map(Arc::from) })
}

#[cfg(test)]
mod tests;
