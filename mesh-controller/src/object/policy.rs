//! AuthorizationPolicies, `nodemesh.dev/v1alpha1`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::{
    Action, AuthorizationPolicy, Enforcement, NamespacedName, Operation, Principal, Rule, Source,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FieldError, Labels, fields, limits, selector::SelectorField};

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
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

/// Who may, or may not, connect to pods.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.selector) && has(self.targetRef))",
    "message": "selector beside targetRef: write one of the two",
}]))]
pub(crate) struct PolicySpec {
    /// The pods that the policy is for: of its namespace, or of all where the policy is in
    /// nodemesh-system. Left out, every pod.
    selector: Option<SelectorField>,
    /// Instead of a selector: the pods behind a Service of the same namespace, on the ports that
    /// the Service leads to.
    target_ref: Option<TargetRef>,
    /// What a matching rule does. DENY wins. A pod that any ALLOW policy is for refuses what none
    /// of them allows.
    #[serde(default)]
    action: ActionField,
    /// AUDIT refuses nothing, and says in flows what would have been refused.
    #[serde(default)]
    enforcement: EnforcementField,
    /// The policy matches where any of these does. An ALLOW policy without rules allows nobody.
    #[serde(default)]
    #[schemars(length(max = limits::RULES))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(one, !has(one.name) || self.filter(other, has(other.name) && other.name == one.name).size() == 1)",
        "message": "two rules have the same name",
    }]))]
    rules: Vec<RuleField>,
}

/// What a policy is for instead of a selector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TargetRef {
    /// Service.
    #[schemars(extend("enum" = ["Service"]))]
    kind: String,
    /// The Service's name.
    #[schemars(length(min = 1, max = limits::NAME), regex(pattern = limits::NAME_PATTERN))]
    name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum EnforcementField {
    #[default]
    Enforce,
    Audit,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum ActionField {
    #[default]
    Allow,
    Deny,
}

/// Matches where one entry of `from` and one of `to` match.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleField {
    /// What flows call the rule; its index where left out.
    #[schemars(length(min = 1, max = limits::RULE_NAME))]
    name: Option<String>,
    /// The callers. Left out, every caller.
    #[schemars(length(min = 1, max = limits::ENTRIES))]
    from: Option<Vec<SourceField>>,
    /// What they call. Left out, every port.
    #[schemars(length(min = 1, max = limits::ENTRIES))]
    to: Option<Vec<OperationField>>,
}

/// A caller: every field that is written has to match.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
struct SourceField {
    /// Any of these identities: SPIFFE IDs, with or without `spiffe://`, or with a `*` for whole parts at one end.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::PRINCIPAL), regex(pattern = limits::principal_pattern())))]
    principals: Option<Vec<String>>,
    /// None of these identities, written as in `principals`.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::PRINCIPAL), regex(pattern = limits::principal_pattern())))]
    not_principals: Option<Vec<String>>,
    /// An identity in any of these namespaces.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::NAMESPACE), regex(pattern = limits::NAMESPACE_PATTERN)))]
    namespaces: Option<Vec<String>>,
    /// An identity in none of these namespaces.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::NAMESPACE), regex(pattern = limits::NAMESPACE_PATTERN)))]
    not_namespaces: Option<Vec<String>>,
    /// Any of these service accounts, `namespace/name`, of any trust domain.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::NAMESPACED_NAME), regex(pattern = limits::NAMESPACED_NAME_PATTERN)))]
    service_accounts: Option<Vec<String>>,
    /// None of these service accounts.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::NAMESPACED_NAME), regex(pattern = limits::NAMESPACED_NAME_PATTERN)))]
    not_service_accounts: Option<Vec<String>>,
    /// An address in any of these blocks, such as 10.0.0.0/8 or 2001:db8::1.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::IP_BLOCK), regex(pattern = limits::IP_BLOCK_PATTERN)))]
    ip_blocks: Option<Vec<String>>,
    /// An address in none of these blocks.
    #[schemars(length(min = 1, max = limits::VALUES))]
    #[schemars(inner(length(min = 1, max = limits::IP_BLOCK), regex(pattern = limits::IP_BLOCK_PATTERN)))]
    not_ip_blocks: Option<Vec<String>>,
}

/// What is called: every field that is written has to match.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
struct OperationField {
    /// Any of these ports of the pod, which need not be those of the Service.
    #[schemars(length(min = 1, max = limits::VALUES), inner(range(min = 1, max = 65535)))]
    ports: Option<Vec<i32>>,
    /// None of these ports of the pod.
    #[schemars(length(min = 1, max = limits::VALUES), inner(range(min = 1, max = 65535)))]
    not_ports: Option<Vec<i32>>,
}

impl TryFrom<AuthorizationPolicyObject> for Policy {
    type Error = FieldError;

    fn try_from(object: AuthorizationPolicyObject) -> Result<Self, FieldError> {
        let name = fields::named(&object.metadata)?;
        let mut rules: Vec<Rule> = Vec::new();
        fields::at_most("spec.rules", object.spec.rules.len(), limits::RULES)?;
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
        let match_labels =
            object.spec.selector.map_or_else(|| Ok(Labels::new()), SelectorField::labels)?;
        let label = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
        let selector = match_labels.iter().map(label).collect();
        let compiled = AuthorizationPolicy { name, action, enforcement, service, selector, rules };
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
    let from = some_entries(&format!("{field}.from"), rule.from, "every caller", limits::ENTRIES)?;
    let to = some_entries(&format!("{field}.to"), rule.to, "every port", limits::ENTRIES)?;
    let name: Arc<str> = match rule.name {
        Some(name) if name.is_empty() => {
            return Err(FieldError::new(
                format!("{field}.name"),
                "empty; write one or leave it out",
            ));
        }
        Some(name) if name.chars().count() > limits::RULE_NAME => {
            let reason = format!("longer than {} characters", limits::RULE_NAME);
            return Err(FieldError::new(format!("{field}.name"), reason));
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
    match fields::is_namespace(text) {
        true => Ok(text.into()),
        false => Err(format!("`{text}` is no namespace")),
    }
}

fn account(text: &str) -> Result<NamespacedName, String> {
    let parts = text
        .split_once('/')
        .filter(|(namespace, name)| fields::is_namespace(namespace) && fields::is_name(name));
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
        let ports = some_entries(&field, list, "any port", limits::VALUES)?;
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
        let texts = some_entries(&field, list, "all of them", limits::VALUES)?;
        each(texts, |at, text| {
            parse(&text).map_err(|reason| FieldError::new(format!("{field}[{at}]"), reason))
        })
    }
}

/// The entries of an optional list; a list that is written but empty is refused, because it would
/// silently mean the opposite of what a list that lost its last entry says.
fn some_entries<T>(
    field: &str,
    list: Option<Vec<T>>,
    meaning: &str,
    most: usize,
) -> Result<Vec<T>, FieldError> {
    fields::at_most(field, list.as_ref().map_or(0, Vec::len), most)?;
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
