//! Errors as Kubernetes tells them: a `Status` object with code, reason, message and details.

use http::StatusCode;
use serde_json::{Value, json};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
    /// A continue token that goes on without consistency, for lists that expired.
    pub continue_token: Option<String>,
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

impl Cause {
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {value}: {}", why.as_ref());
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = match why {
            "" => "Required value".to_owned(),
            why => format!("Required value: {why}"),
        };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let supported: Vec<_> = supported.iter().map(Value::to_string).collect();
        let message =
            format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }
}

/// What an error is about: the resource as discovery calls it, its group, and a name.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self) -> String {
        match self.group {
            "" => self.resource.to_owned(),
            group => format!("{}.{group}", self.resource),
        }
    }

    /// `pods "a"`, or `pods` where no name is known.
    pub fn phrase(&self) -> String {
        match self.name {
            "" => self.qualified(),
            name => format!("{} \"{name}\"", self.qualified()),
        }
    }

    fn details(&self) -> Value {
        let mut details = json!({ "kind": self.resource });
        for (field, value) in [("name", self.name), ("group", self.group)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        details
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, details: Value::Null, continue_token: None }
    }

    fn about(code: StatusCode, reason: &'static str, about: About<'_>, message: String) -> Self {
        Self { details: about.details(), ..Self::new(code, reason, message) }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// `why` begins after `pods "a" is forbidden: `.
    pub fn forbidden(about: About<'_>, why: &str) -> Self {
        let message = format!("{} is forbidden: {why}", about.phrase());
        Self::about(StatusCode::FORBIDDEN, "Forbidden", about, message)
    }

    /// A path that is no resource is asked for.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        Self { details: json!({}), ..Self::new(StatusCode::FORBIDDEN, "Forbidden", message) }
    }

    pub fn not_found(about: About<'_>) -> Self {
        let message = format!("{} not found", about.phrase());
        Self::about(StatusCode::NOT_FOUND, "NotFound", about, message)
    }

    pub fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self { details: json!({}), ..Self::new(StatusCode::NOT_FOUND, "NotFound", message) }
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let code = StatusCode::METHOD_NOT_ALLOWED;
        Self { details: json!({}), ..Self::new(code, "MethodNotAllowed", message) }
    }

    pub fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} already exists", about.phrase());
        Self::about(StatusCode::CONFLICT, "AlreadyExists", about, message)
    }

    pub fn conflict(about: About<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}: {why}", about.phrase());
        Self::about(StatusCode::CONFLICT, "Conflict", about, message)
    }

    /// The object was written since the writer has read it.
    pub fn modified(about: About<'_>) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(about, why)
    }

    /// Fields that others own: see `patch::apply`.
    pub fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        let details = json!({ "causes": causes.iter().map(cause).collect::<Vec<_>>() });
        Self { details, ..Self::new(StatusCode::CONFLICT, "Conflict", message) }
    }

    /// `about.resource` is the kind here, as with the real one.
    pub fn invalid(about: About<'_>, causes: &[Cause]) -> Self {
        let all: Vec<_> = causes.iter().map(|of| format!("{}: {}", of.field, of.message)).collect();
        let all = match &all[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let name = About { name: "", ..about }.phrase();
        let message = format!("{name} \"{}\" is invalid: {all}", about.name);
        let mut error = Self::about(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", about, message);
        error.details["causes"] = causes.iter().map(cause).collect();
        error
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {accepted}"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// A version is asked for that does not exist yet.
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let causes = [json!({
            "reason": "ResourceVersionTooLarge", "message": "Too large resource version"
        })];
        let details = json!({ "causes": causes, "retryAfterSeconds": 1 });
        Self { details, ..Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message) }
    }

    /// An error that a test asked for.
    pub fn injected(code: StatusCode, retry_after: Option<u64>) -> Self {
        let (reason, message) = match code {
            StatusCode::TOO_MANY_REQUESTS => {
                ("TooManyRequests", "too many requests, please try again later")
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                ("ServiceUnavailable", "the server is currently unable to handle the request")
            }
            StatusCode::UNAUTHORIZED => return Self::unauthorized(),
            _ => ("InternalError", "an error on the server has prevented the request"),
        };
        let mut error = Self::new(code, reason, message);
        if let Some(seconds) = retry_after {
            error.details = json!({ "retryAfterSeconds": seconds });
        }
        error
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// When to come back, in seconds: also a header of its own.
    pub fn retry_after(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = token.as_str().into();
        }
        status
    }
}

fn cause(cause: &Cause) -> Value {
    json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_real_server() {
        let pod = About { group: "", resource: "pods", name: "a" };
        let deployment = About { group: "apps", resource: "deployments", name: "a" };
        let kind = About { group: "", resource: "Pod", name: "a" };
        let causes = [Cause::required("spec.containers", "")];
        for (error, code, message) in [
            (ApiError::not_found(pod), 404, r#"pods "a" not found"#),
            (ApiError::not_found(deployment), 404, r#"deployments.apps "a" not found"#),
            (ApiError::already_exists(pod), 409, r#"pods "a" already exists"#),
            (
                ApiError::invalid(kind, &causes),
                422,
                r#"Pod "a" is invalid: spec.containers: Required value"#,
            ),
            (ApiError::unauthorized(), 401, "Unauthorized"),
        ] {
            let status = error.status();
            assert_eq!(status["message"], message);
            assert_eq!(status["code"], code);
        }
        assert_eq!(
            ApiError::not_found(deployment).status()["details"],
            json!({ "name": "a", "group": "apps", "kind": "deployments" })
        );
    }
}
