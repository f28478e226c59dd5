//! Rules of policies in words.

use mesh_common::{SYSTEM_NAMESPACE, api::v1};

/// Whom a rule is about, and what.
pub fn rule(rule: &v1::Rule) -> String {
    let from = rule.from.iter().map(source).collect::<Vec<_>>();
    let to = rule.to.iter().map(operation).collect::<Vec<_>>();
    format!("{} to {}", either(from, "anyone"), either(to, "any port"))
}

/// What makes a policy apply to a pod.
pub fn attachment(policy: &v1::AuthorizationPolicy) -> String {
    if let Some(service) = &policy.service {
        return format!("Service {}", name(service));
    }
    let namespace = policy.name.as_ref().map(|it| it.namespace.as_str()).unwrap_or_default();
    let place = match namespace {
        SYSTEM_NAMESPACE => "whole mesh".to_owned(),
        namespace => format!("namespace {namespace}"),
    };
    let labels = policy.selector.iter().map(|it| format!("{}={}", it.key, it.value));
    let labels = labels.collect::<Vec<_>>();
    match labels.is_empty() {
        true => place,
        false => format!("{place}, selector {}", labels.join(",")),
    }
}

/// `namespace/name`.
pub fn name(name: &v1::NamespacedName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

fn source(source: &v1::Source) -> String {
    let accounts = |list: &[v1::NamespacedName]| list.iter().map(name).collect::<Vec<_>>();
    let (is, is_not) = (accounts(&source.service_accounts), accounts(&source.not_service_accounts));
    let conditions = [
        one_of("identity ", &source.principals),
        one_of("namespace ", &source.namespaces),
        one_of("service account ", &is),
        one_of("address in ", &source.ip_blocks),
        one_of("not identity ", &source.not_principals),
        one_of("not namespace ", &source.not_namespaces),
        one_of("not service account ", &is_not),
        one_of("address not in ", &source.not_ip_blocks),
    ];
    both(conditions, "anyone")
}

fn operation(operation: &v1::Operation) -> String {
    let texts = |ports: &[u32]| ports.iter().map(u32::to_string).collect::<Vec<_>>();
    let (is, is_not) = (texts(&operation.ports), texts(&operation.not_ports));
    both([one_of("port ", &is), one_of("not port ", &is_not)], "any port")
}

/// `what` and any of `list`; nothing where it asks for nothing.
fn one_of(what: &str, list: &[String]) -> Option<String> {
    (!list.is_empty()).then(|| format!("{what}{}", list.join(" or ")))
}

fn both<const N: usize>(conditions: [Option<String>; N], none: &str) -> String {
    let conditions = conditions.into_iter().flatten().collect::<Vec<_>>();
    if conditions.is_empty() { none.to_owned() } else { conditions.join(" and ") }
}

fn either(list: Vec<String>, none: &str) -> String {
    match list.len() {
        0 => none.to_owned(),
        1 => list.concat(),
        _ => list.iter().map(|it| format!("({it})")).collect::<Vec<_>>().join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> v1::NamespacedName {
        v1::NamespacedName { namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn rules_say_who_and_what() {
        let from = v1::Source {
            service_accounts: vec![account("web"), account("batch")],
            not_ip_blocks: vec!["10.0.0.0/8".into()],
            ..Default::default()
        };
        let other = v1::Source { namespaces: vec!["legacy".into()], ..Default::default() };
        let to = v1::Operation { ports: vec![80, 443], not_ports: vec![81] };
        let words = |from: &[&v1::Source], to: &[&v1::Operation]| {
            let from = from.iter().map(|it| (*it).clone()).collect();
            let to = to.iter().map(|it| (*it).clone()).collect();
            rule(&v1::Rule { name: "0".into(), from, to })
        };
        assert_eq!(words(&[], &[]), "anyone to any port");
        let accounts = "service account shop/web or shop/batch and address not in 10.0.0.0/8";
        assert_eq!(
            words(&[&from], &[&to]),
            format!("{accounts} to port 80 or 443 and not port 81")
        );
        assert_eq!(
            words(&[&from, &other], &[]),
            format!("({accounts}) or (namespace legacy) to any port")
        );
    }

    #[test]
    fn attachments_say_what_selects() {
        let of = |namespace: &str| v1::AuthorizationPolicy {
            name: Some(v1::NamespacedName { namespace: namespace.into(), name: "p".into() }),
            ..Default::default()
        };
        assert_eq!(attachment(&of("shop")), "namespace shop");
        assert_eq!(attachment(&of(SYSTEM_NAMESPACE)), "whole mesh");
        let label = v1::Label { key: "app".into(), value: "web".into() };
        let selected = v1::AuthorizationPolicy { selector: vec![label], ..of("shop") };
        assert_eq!(attachment(&selected), "namespace shop, selector app=web");
        let service = v1::AuthorizationPolicy { service: Some(account("web")), ..of("shop") };
        assert_eq!(attachment(&service), "Service shop/web");
    }
}
