//! A request, taken apart: what the handlers need and no more of HTTP.

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::{
    accept::{self, Form},
    auth::User,
    error::ApiError,
};

/// A request whose sender is known.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// Decoded, without the query.
    pub path: String,
    pub query: Query,
    pub accept: Option<String>,
    /// Without parameters; empty where there is none.
    pub content_type: String,
    pub user_agent: String,
    pub user: User,
    pub body: Bytes,
}

impl Request {
    /// The form that the answer should have.
    pub fn form(&self) -> Result<Form, ApiError> {
        accept::form(self.accept.as_deref())
    }

    /// The body as an object.
    pub fn object(&self) -> Result<Value, ApiError> {
        match self.content_type.as_str() {
            "" | "application/json" => json(&self.body),
            "application/yaml" => yaml(&self.body),
            _ => Err(ApiError::unsupported_media_type("application/json, application/yaml")),
        }
    }
}

/// Reads JSON.
pub fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Reads YAML, of which JSON is a part.
pub fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    let text =
        std::str::from_utf8(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    serde_saphyr::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}

/// The parameters after `?`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// A parameter that is there and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == key)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter that may be repeated.
    pub fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        let same = move |(known, _): &&(String, String)| known == key;
        self.0.iter().filter(same).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on; one without a value is.
    pub fn is_on(&self, key: &str) -> bool {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0"))
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let bad = |_| ApiError::bad_request(format!("invalid {key} \"{text}\": not a number"));
        text.parse().map(Some).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5&x=&y=false");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(query.number("limit").ok(), Some(Some(5)));
        assert_eq!(query.get("x"), None);
        assert!(query.is_on("watch") && !query.is_on("y") && !query.is_on("z"));
    }
}
