//! AuthorizationPolicies, `nodemesh.dev/v1alpha1`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::{
    identity::SpiffeId,
    model::{Action, AuthorizationPolicy, Operation, Rule, Source},
};
use serde::Deserialize;

use super::{FieldError, Labels, fields};

/// An AuthorizationPolicy: its rules as agents use them, and whom it selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The rules.
    pub compiled: AuthorizationPolicy,
    /// Labels that a Pod must have; empty selects every Pod.
    pub match_labels: Labels,
}

/// An AuthorizationPolicy as people write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthorizationPolicyObject {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: PolicySpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PolicySpec {
    selector: Option<Selector>,
    #[serde(default)]
    action: ActionField,
    #[serde(default)]
    rules: Vec<RuleField>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Selector {
    match_labels: Labels,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ActionField {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleField {
    name: Option<String>,
    from: Option<Vec<SourceField>>,
    to: Option<Vec<OperationField>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SourceField {
    principals: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OperationField {
    ports: Option<Vec<i32>>,
}

impl TryFrom<AuthorizationPolicyObject> for Policy {
    type Error = FieldError;

    fn try_from(object: AuthorizationPolicyObject) -> Result<Self, FieldError> {
        let name = fields::named(&object.metadata)?;
        let mut rules: Vec<Rule> = Vec::new();
        for (at, field) in object.spec.rules.into_iter().enumerate() {
            let rule = rule(at, field)?;
            if rules.iter().any(|known| known.name == rule.name) {
                let reason = format!("an earlier rule is called `{}` too", rule.name);
                return Err(FieldError::new(format!("spec.rules[{at}].name"), reason));
            }
            rules.push(rule);
        }
        let action = match object.spec.action {
            ActionField::Allow => Action::Allow,
            ActionField::Deny => Action::Deny,
        };
        let match_labels = match object.spec.selector {
            None => Labels::new(),
            Some(selector) if selector.match_labels.is_empty() => {
                return Err(FieldError::new(
                    "spec.selector.matchLabels",
                    "selects nothing in particular; to select every pod leave out `selector`",
                ));
            }
            Some(selector) => selector.match_labels,
        };
        let (enforcement, service) = Default::default();
        let compiled = AuthorizationPolicy { name, action, enforcement, service, rules };
        Ok(Self { compiled, match_labels })
    }
}

fn rule(at: usize, rule: RuleField) -> Result<Rule, FieldError> {
    let field = format!("spec.rules[{at}]");
    let from = some_entries(&format!("{field}.from"), rule.from, "every caller")?;
    let to = some_entries(&format!("{field}.to"), rule.to, "every port")?;
    let name: Arc<str> = match rule.name {
        Some(name) if name.is_empty() => {
            return Err(FieldError::new(
                format!("{field}.name"),
                "empty; write one or leave it out",
            ));
        }
        Some(name) => name.into(),
        None => at.to_string().into(),
    };
    Ok(Rule {
        name,
        from: each(from, |at, it| source(&format!("{field}.from[{at}]"), it))?,
        to: each(to, |at, it| operation(&format!("{field}.to[{at}]"), it))?,
    })
}

fn source(field: &str, source: SourceField) -> Result<Source, FieldError> {
    if source.principals.is_none() && source.namespaces.is_none() {
        return Err(FieldError::new(
            field,
            "an empty source, which would match every caller and is probably a mistake; \
             name `principals` or `namespaces`, or leave out `from` to match every caller",
        ));
    }
    let principals_field = format!("{field}.principals");
    let namespaces_field = format!("{field}.namespaces");
    let principals = some_entries(&principals_field, source.principals, "any identity")?;
    let namespaces = some_entries(&namespaces_field, source.namespaces, "any namespace")?;
    Ok(Source {
        principals: each(principals, |at, text| {
            principal(&format!("{principals_field}[{at}]"), &text).map(Into::into)
        })?,
        namespaces: each(namespaces, |at, text| {
            if fields::is_name(&text) && !text.contains('.') {
                Ok(text.into())
            } else {
                let reason = format!("`{text}` is no namespace");
                Err(FieldError::new(format!("{namespaces_field}[{at}]"), reason))
            }
        })?,
        ..Source::default()
    })
}

/// A full SPIFFE ID, or one without the scheme, as Istio's users write it.
fn principal(field: &str, text: &str) -> Result<SpiffeId, FieldError> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("spiffe://{text}"),
    };
    full.parse().map_err(|error| FieldError::new(field, format!("{error}")))
}

fn operation(field: &str, operation: OperationField) -> Result<Operation, FieldError> {
    if operation.ports.is_none() {
        return Err(FieldError::new(
            field,
            "an empty operation, which would match every port and is probably a mistake; \
             name `ports`, or leave out `to` to match every port",
        ));
    }
    let field = format!("{field}.ports");
    let ports = some_entries(&field, operation.ports, "any port")?;
    Ok(Operation {
        ports: each(ports, |at, port| fields::port(&format!("{field}[{at}]"), port))?,
        ..Operation::default()
    })
}

/// The entries of an optional list; a list that is written but empty is refused, because it would
/// silently mean the opposite of what a list that lost its last entry says.
fn some_entries<T>(field: &str, list: Option<Vec<T>>, meaning: &str) -> Result<Vec<T>, FieldError> {
    match list {
        Some(list) if list.is_empty() => {
            let reason = format!("an empty list; leave the field out to match {meaning}");
            Err(FieldError::new(field, reason))
        }
        list => Ok(list.unwrap_or_default()),
    }
}

fn each<T, U>(
    list: Vec<T>,
    convert: impl Fn(usize, T) -> Result<U, FieldError>,
) -> Result<Vec<U>, FieldError> {
    list.into_iter().enumerate().map(|(at, it)| convert(at, it)).collect()
}
