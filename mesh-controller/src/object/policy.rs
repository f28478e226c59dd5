//! AuthorizationPolicies, `nodemesh.dev/v1alpha1`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::{
    Action, AuthorizationPolicy, Enforcement, NamespacedName, Operation, Principal, Rule, Source,
};
use serde::Deserialize;

use super::{FieldError, Labels, fields, selector::SelectorField};

/// An AuthorizationPolicy: its rules as agents use them, and whom it selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The rules.
    pub compiled: AuthorizationPolicy,
    /// Labels that a Pod must have; empty selects every Pod.
    pub match_labels: Labels,
    /// `metadata.generation`.
    pub generation: Option<i64>,
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
    selector: Option<SelectorField>,
    target_ref: Option<TargetRef>,
    #[serde(default)]
    action: ActionField,
    #[serde(default)]
    enforcement: EnforcementField,
    #[serde(default)]
    rules: Vec<RuleField>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TargetRef {
    kind: String,
    name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EnforcementField {
    #[default]
    Enforce,
    Audit,
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
    not_principals: Option<Vec<String>>,
    namespaces: Option<Vec<String>>,
    not_namespaces: Option<Vec<String>>,
    service_accounts: Option<Vec<String>>,
    not_service_accounts: Option<Vec<String>>,
    ip_blocks: Option<Vec<String>>,
    not_ip_blocks: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OperationField {
    ports: Option<Vec<i32>>,
    not_ports: Option<Vec<i32>>,
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
        let enforcement = match object.spec.enforcement {
            EnforcementField::Enforce => Enforcement::Enforce,
            EnforcementField::Audit => Enforcement::Audit,
        };
        let service = match (object.spec.target_ref, &object.spec.selector) {
            (Some(_), Some(_)) => {
                let reason = "beside a selector; write one of the two";
                return Err(FieldError::new("spec.targetRef", reason));
            }
            (Some(target), None) => Some(service(target, &name.namespace)?),
            (None, _) => None,
        };
        let compiled = AuthorizationPolicy { name, action, enforcement, service, rules };
        let match_labels =
            object.spec.selector.map_or_else(|| Ok(Labels::new()), SelectorField::labels)?;
        Ok(Self { compiled, match_labels, generation: object.metadata.generation })
    }
}

/// A Service of the policy's own namespace.
fn service(target: TargetRef, namespace: &str) -> Result<NamespacedName, FieldError> {
    if target.kind != "Service" {
        let reason =
            format!("`{}` is no kind that a policy attaches to; write Service", target.kind);
        return Err(FieldError::new("spec.targetRef.kind", reason));
    }
    if !fields::is_name(&target.name) {
        let reason = format!("`{}` is no name of a Service", target.name);
        return Err(FieldError::new("spec.targetRef.name", reason));
    }
    Ok(NamespacedName::new(namespace, &target.name))
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
    let SourceField {
        principals,
        not_principals,
        namespaces,
        not_namespaces,
        service_accounts,
        not_service_accounts,
        ip_blocks,
        not_ip_blocks,
    } = source;
    let list = |name: &str, list| Entries { field: format!("{field}.{name}"), list };
    let source = Source {
        principals: list("principals", principals).parse(principal)?,
        not_principals: list("notPrincipals", not_principals).parse(principal)?,
        namespaces: list("namespaces", namespaces).parse(namespace)?,
        not_namespaces: list("notNamespaces", not_namespaces).parse(namespace)?,
        service_accounts: list("serviceAccounts", service_accounts).parse(account)?,
        not_service_accounts: list("notServiceAccounts", not_service_accounts).parse(account)?,
        ip_blocks: list("ipBlocks", ip_blocks).parse(ip_block)?,
        not_ip_blocks: list("notIpBlocks", not_ip_blocks).parse(ip_block)?,
    };
    if source == Source::default() {
        return Err(FieldError::new(
            field,
            "an empty source, which would match every caller and is probably a mistake; \
             name `principals`, `namespaces` or another field, or leave out `from` to match every \
             caller",
        ));
    }
    Ok(source)
}

/// A full SPIFFE ID, or one without the scheme, as Istio's users write it; or a pattern.
fn principal(text: &str) -> Result<Principal, String> {
    let full = match text.contains("://") || text.starts_with('*') {
        true => text.to_owned(),
        false => format!("spiffe://{text}"),
    };
    full.parse().map_err(|error| format!("{error}"))
}

fn namespace(text: &str) -> Result<Arc<str>, String> {
    match fields::is_name(text) && !text.contains('.') {
        true => Ok(text.into()),
        false => Err(format!("`{text}` is no namespace")),
    }
}

fn account(text: &str) -> Result<NamespacedName, String> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        fields::is_name(namespace) && !namespace.contains('.') && fields::is_name(name)
    });
    let (namespace, name) =
        parts.ok_or_else(|| format!("`{text}` is no service account; write namespace/name"))?;
    Ok(NamespacedName::new(namespace, name))
}

fn ip_block(text: &str) -> Result<mesh_common::model::IpBlock, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn operation(field: &str, operation: OperationField) -> Result<Operation, FieldError> {
    let ports = |name: &str, list: Option<Vec<i32>>| {
        let field = format!("{field}.{name}");
        let ports = some_entries(&field, list, "any port")?;
        each(ports, |at, port| fields::port(&format!("{field}[{at}]"), port))
    };
    let operation = Operation {
        ports: ports("ports", operation.ports)?,
        not_ports: ports("notPorts", operation.not_ports)?,
    };
    if operation == Operation::default() {
        return Err(FieldError::new(
            field,
            "an empty operation, which would match every port and is probably a mistake; \
             name `ports` or `notPorts`, or leave out `to` to match every port",
        ));
    }
    Ok(operation)
}

/// A list as written, and where.
struct Entries {
    field: String,
    list: Option<Vec<String>>,
}

impl Entries {
    fn parse<T>(self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, FieldError> {
        let Self { field, list } = self;
        let texts = some_entries(&field, list, "all of them")?;
        each(texts, |at, text| {
            parse(&text).map_err(|reason| FieldError::new(format!("{field}[{at}]"), reason))
        })
    }
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
