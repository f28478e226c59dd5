//! What a refusal of the API server means, and what to do.

use std::{error::Error, fmt, time::Duration};

/// What was asked of the API server, as RBAC calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `get`.
    Get,
    /// `list`.
    List,
    /// `watch`.
    Watch,
    /// `create`.
    Create,
    /// `update`.
    Update,
    /// `patch`.
    Patch,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
        })
    }
}

/// Why the API server did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// RBAC says no.
    #[error(
        "the API server forbids to {verb} {resource} ({message}); grant `{verb}` on `{resource}` to \
         the controller's service account, as nodemesh's manifests do: apply them again"
    )]
    Forbidden {
        /// What was asked.
        verb: Verb,
        /// Of what.
        resource: String,
        /// What the server says.
        message: String,
    },
    /// The token is not good.
    #[error(
        "the API server does not know who asks to {verb} {resource} ({message}); the service \
         account's token may have expired: look at the pod's token volume, and at the clocks"
    )]
    Unauthorized {
        /// What was asked.
        verb: Verb,
        /// Of what.
        resource: String,
        /// What the server says.
        message: String,
    },
    /// There is no such thing, or no such kind.
    #[error(
        "the API server has no {resource} ({message}); apply nodemesh's manifests, which bring its \
         namespace and the definitions of its kinds"
    )]
    NotFound {
        /// What was asked for.
        resource: String,
        /// What the server says.
        message: String,
    },
    /// The version asked for is forgotten.
    #[error("the API server has forgotten that version of {resource}")]
    Gone {
        /// What was asked for.
        resource: String,
    },
    /// Somebody else was first.
    #[error("{resource} was changed or made by another meanwhile")]
    Conflict {
        /// What was to be changed.
        resource: String,
    },
    /// The server refuses for now, or for another reason.
    #[error("the API server refuses to {verb} {resource}: {code} {message}")]
    Refused {
        /// What was asked.
        verb: Verb,
        /// Of what.
        resource: String,
        /// The HTTP status.
        code: u16,
        /// What the server says.
        message: String,
        /// How long it wants not to be asked.
        retry_after: Option<Duration>,
    },
    /// No answer.
    #[error("the API server is not reached to {verb} {resource}: {message}")]
    Away {
        /// What was asked.
        verb: Verb,
        /// Of what.
        resource: String,
        /// What failed.
        message: String,
    },
}

impl ApiError {
    /// What `error` means where `verb` of `resource` was asked.
    pub fn new(verb: Verb, resource: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(verb, resource, status),
            error => Self::away(verb, resource, &causes(error)),
        }
    }

    /// What a refusal means where `verb` of `resource` was asked.
    pub fn of_status(verb: Verb, resource: &str, status: &kube::core::Status) -> Self {
        let resource = resource.to_owned();
        let message = status.message.clone();
        match status.code {
            401 => Self::Unauthorized { verb, resource, message },
            403 => Self::Forbidden { verb, resource, message },
            404 => Self::NotFound { resource, message },
            409 => Self::Conflict { resource },
            410 => Self::Gone { resource },
            code => {
                let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
                let retry_after = seconds.filter(|seconds| *seconds > 0);
                let retry_after = retry_after.map(|it| Duration::from_secs(it.into()));
                Self::Refused { verb, resource, code, message, retry_after }
            }
        }
    }

    /// That no answer came.
    pub fn away(verb: Verb, resource: &str, message: &str) -> Self {
        Self::Away { verb, resource: resource.to_owned(), message: message.to_owned() }
    }

    /// How long the server wants not to be asked.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the server gave no answer, or none about what was asked.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Refused { code, .. } => *code >= 500 || *code == 429,
            _ => false,
        }
    }
}

/// An error with what is behind it: HTTP clients say no more than that they failed.
fn causes(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut at: Option<&dyn Error> = error.source();
    while let Some(cause) = at {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        at = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status {
            code,
            message: message.into(),
            ..Default::default()
        }))
    }

    #[test]
    fn a_refusal_names_verb_and_resource_and_what_to_do() {
        let error = ApiError::new(Verb::List, "pods", &status(403, "pods is forbidden"));
        assert_eq!(
            error.to_string(),
            "the API server forbids to list pods (pods is forbidden); grant `list` on `pods` to the \
             controller's service account, as nodemesh's manifests do: apply them again"
        );
        let error = ApiError::new(Verb::Patch, "x", &status(409, "conflict"));
        assert!(matches!(error, ApiError::Conflict { .. }));
        assert!(ApiError::new(Verb::Get, "x", &status(503, "")).is_outage());
        assert!(!error.is_outage());
    }
}
