//! Verdicts by example, and the prepared policies against a slow, obvious evaluator.

use proptest::prelude::*;

use super::{reference::workload, *};
use crate::model::{AuthorizationPolicy, Enforcement, Principal, Rule};

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const BATCH: &str = "spiffe://cluster.local/ns/shop/sa/batch";

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    let name = NamespacedName::new("shop", name);
    let (enforcement, selector) = (Enforcement::Enforce, Default::default());
    AuthorizationPolicy { name, action, enforcement, service: None, selector, rules }
}

fn audit(policy: AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { enforcement: Enforcement::Audit, ..policy }
}

fn principals(texts: &[&str]) -> Vec<Principal> {
    texts.iter().map(|text| text.parse().expect("a literal principal")).collect()
}

fn rule(from: Source, ports: &[u16]) -> Rule {
    let to = vec![Operation { ports: ports.to_vec(), not_ports: Vec::new() }];
    Rule { name: "0".into(), from: vec![from], to }
}

fn called_by(texts: &[&str], ports: &[u16]) -> Rule {
    rule(Source { principals: principals(texts), ..Source::default() }, ports)
}

fn prepared(policies: &[AuthorizationPolicy], default_action: Action) -> Policies {
    Policies::new(&workload(policies, default_action), |name| {
        policies.iter().find(|policy| policy.name == *name)
    })
}

fn verdict(policies: &[AuthorizationPolicy], source: Option<&str>, port: u16) -> Verdict {
    let source = source.map(|text| text.parse().expect("a literal identity"));
    let address = IpAddr::from([10, 0, 0, 1]);
    prepared(policies, Action::Allow).judge(Request { source: source.as_ref(), address, port })
}

#[test]
fn without_policies_the_mesh_decides() {
    assert_eq!(verdict(&[], None, 80), Verdict::AllowedByDefault);
    let request = Request { source: None, address: IpAddr::from([10, 0, 0, 1]), port: 80 };
    assert_eq!(prepared(&[], Action::Deny).judge(request), Verdict::DeniedByDefault);
}

#[test]
fn an_allow_policy_refuses_what_it_does_not_name() {
    let policies = [policy("web", Action::Allow, vec![called_by(&[FRONTEND], &[80])])];
    assert!(verdict(&policies, Some(FRONTEND), 80).is_allowed());
    for (source, port) in [(Some(FRONTEND), 81), (Some(BATCH), 80), (None, 80)] {
        assert_eq!(
            verdict(&policies, source, port).to_string(),
            "denied: no rule matched of AuthorizationPolicy shop/web"
        );
    }
}

#[test]
fn deny_wins_over_allow_in_any_order() {
    let allow = policy("a", Action::Allow, vec![called_by(&[FRONTEND], &[])]);
    let deny = policy("d", Action::Deny, vec![called_by(&[FRONTEND], &[6379])]);
    for policies in [[allow.clone(), deny.clone()], [deny, allow]] {
        assert!(verdict(&policies, Some(FRONTEND), 80).is_allowed());
        assert_eq!(
            verdict(&policies, Some(FRONTEND), 6379).to_string(),
            "denied by AuthorizationPolicy shop/d rule 0"
        );
    }
}

#[test]
fn a_deny_policy_alone_lets_the_rest_through() {
    let policies = [policy("d", Action::Deny, vec![called_by(&[BATCH], &[])])];
    assert_eq!(verdict(&policies, Some(FRONTEND), 80), Verdict::AllowedByDefault);
}

#[test]
fn an_allow_policy_without_rules_allows_nobody() {
    let policies = [policy("none", Action::Allow, Vec::new())];
    assert!(!verdict(&policies, Some(FRONTEND), 80).is_allowed());
}

#[test]
fn a_missing_policy_denies() {
    let lost = policy("lost", Action::Allow, Vec::new());
    let policies = Policies::new(&workload(std::slice::from_ref(&lost), Action::Allow), |_| None);
    let request = Request { source: None, address: IpAddr::from([10, 0, 0, 1]), port: 80 };
    assert_eq!(policies.judge(request), Verdict::PolicyMissing(lost.name));
}

#[test]
fn who_proves_nothing_is_never_somebody_else() {
    let not_batch = Source { not_principals: principals(&[BATCH]), ..Source::default() };
    let allow = [policy("a", Action::Allow, vec![rule(not_batch.clone(), &[])])];
    assert!(verdict(&allow, Some(FRONTEND), 80).is_allowed());
    assert!(!verdict(&allow, Some(BATCH), 80).is_allowed());
    assert!(!verdict(&allow, None, 80).is_allowed());
    let deny = [policy("d", Action::Deny, vec![rule(not_batch, &[])])];
    assert!(!verdict(&deny, Some(FRONTEND), 80).is_allowed());
    assert!(verdict(&deny, Some(BATCH), 80).is_allowed());
    assert!(!verdict(&deny, None, 80).is_allowed());
}

#[test]
fn a_policy_for_a_service_is_about_its_target_ports() {
    let service = Some(NamespacedName::new("shop", "web"));
    let allow = policy("a", Action::Allow, vec![called_by(&[FRONTEND], &[])]);
    let policies = [AuthorizationPolicy { service, ..allow }];
    assert!(verdict(&policies, Some(FRONTEND), 8080).is_allowed());
    assert!(!verdict(&policies, Some(BATCH), 8080).is_allowed());
    assert_eq!(verdict(&policies, Some(BATCH), 9090), Verdict::AllowedByDefault);
}

#[test]
fn audit_says_what_it_would_refuse_and_refuses_nothing() {
    let deny = audit(policy("d", Action::Deny, vec![called_by(&[BATCH], &[])]));
    let allow = audit(policy("a", Action::Allow, vec![called_by(&[FRONTEND, BATCH], &[80])]));
    let policies = [allow, deny];
    assert_eq!(verdict(&policies, Some(FRONTEND), 80), Verdict::AllowedByDefault);
    for (source, port, said) in [
        (BATCH, 80, "allowed; without audit: denied by AuthorizationPolicy shop/d rule 0"),
        (
            FRONTEND,
            81,
            "allowed; without audit: denied: no rule matched of AuthorizationPolicy shop/a",
        ),
    ] {
        let verdict = verdict(&policies, Some(source), port);
        assert!(verdict.is_allowed());
        assert_eq!(verdict.to_string(), said);
    }
}

/// At most `most` of `from`, often none.
fn some<T: Clone + fmt::Debug + 'static>(from: Vec<T>, most: usize) -> BoxedStrategy<Vec<T>> {
    let list = proptest::collection::vec(proptest::sample::select(from), 1..=most);
    prop_oneof![2 => Just(Vec::new()), 1 => list].boxed()
}

fn any_source() -> impl Strategy<Value = Source> {
    let patterns = principals(&[
        "spiffe://a/ns/x/sa/p",
        "spiffe://a/ns/x/sa/q",
        "spiffe://b/ns/y/sa/p",
        "spiffe://a/*",
        "spiffe://a/ns/x/*",
        "*/sa/p",
        "*/ns/y/sa/q",
        "*",
    ]);
    let namespaces: Vec<Arc<str>> = vec!["x".into(), "y".into()];
    let accounts = vec![NamespacedName::new("x", "p"), NamespacedName::new("y", "q")];
    let blocks = ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "fd00::/8", "::/0"];
    let blocks: Vec<_> = blocks.iter().map(|it| it.parse().expect("a block")).collect();
    (
        (some(patterns.clone(), 2), some(patterns, 2)),
        (some(namespaces.clone(), 2), some(namespaces, 1)),
        (some(accounts.clone(), 2), some(accounts, 1)),
        (some::<crate::model::IpBlock>(blocks.clone(), 2), some(blocks, 1)),
    )
        .prop_map(|(principals, namespaces, accounts, blocks)| Source {
            principals: principals.0,
            not_principals: principals.1,
            namespaces: namespaces.0,
            not_namespaces: namespaces.1,
            service_accounts: accounts.0,
            not_service_accounts: accounts.1,
            ip_blocks: blocks.0,
            not_ip_blocks: blocks.1,
        })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    // One list is longer than what is filed under keys.
    let ports = prop_oneof![3 => some(vec![80, 81, 8080], 2), 1 => Just((80..2000).collect())];
    (ports, some(vec![80, 8080], 1)).prop_map(|(ports, not_ports)| Operation { ports, not_ports })
}

fn any_policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let sources = proptest::collection::vec(any_source(), 0..3);
    let operations = proptest::collection::vec(any_operation(), 0..3);
    let rules = proptest::collection::vec((sources, operations), 0..3);
    let policy = (any::<(bool, bool)>(), 0..4_u8, rules);
    proptest::collection::vec(policy, 0..6).prop_map(|policies| {
        let made = policies.into_iter().enumerate().map(|(at, ((deny, audit), service, rules))| {
            let rules = rules.into_iter().enumerate();
            let rule =
                |(at, (from, to)): (usize, _)| Rule { name: at.to_string().into(), from, to };
            AuthorizationPolicy {
                name: NamespacedName::new("shop", &at.to_string()),
                action: if deny { Action::Deny } else { Action::Allow },
                enforcement: if audit { Enforcement::Audit } else { Enforcement::Enforce },
                service: match service {
                    0 => Some(NamespacedName::new("shop", "web")),
                    1 => Some(NamespacedName::new("shop", "other")),
                    _ => None,
                },
                selector: Default::default(),
                rules: rules.map(rule).collect(),
            }
        });
        made.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn judges_as_the_obvious_evaluator_does(policies in any_policies(), deny in any::<bool>()) {
        let default_action = if deny { Action::Deny } else { Action::Allow };
        let prepared = prepared(&policies, default_action);
        let workload = workload(&policies, default_action);
        let mut callers: Vec<Option<SpiffeId>> = vec![None];
        for domain in ["a", "b"] {
            for (namespace, account) in [("x", "p"), ("x", "q"), ("y", "p"), ("y", "q"), ("z", "r")] {
                let text = format!("spiffe://{domain}/ns/{namespace}/sa/{account}");
                callers.push(Some(text.parse().expect("an identity")));
            }
        }
        for source in &callers {
            for address in ["10.0.0.1", "10.1.1.1", "192.0.2.1", "::ffff:10.0.0.1", "fd00::1"] {
                for port in [80, 81, 8080, 9090] {
                    let address = address.parse().expect("an address");
                    let request = Request { source: source.as_ref(), address, port };
                    prop_assert_eq!(
                        prepared.judge(request),
                        reference::judge(&policies, &workload, request),
                        "{:?}", request
                    );
                }
            }
        }
    }
}
