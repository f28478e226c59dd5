//! Prepared policies against the obvious evaluator.

#![no_main]

use std::{net::IpAddr, sync::Arc};

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use mesh_common::{
    identity::SpiffeId,
    matching::authorization::{Policies, Request, reference},
    model::{
        Action, AuthorizationPolicy, Enforcement, IpBlock, NamespacedName, Operation, Principal,
        Rule, Source,
    },
};

/// Neither objects nor deltas can name port 0, which tables use for any.
const PORTS: [u16; 3] = [80, 81, 8080];
const NAMES: [&str; 3] = ["x", "y", "xy"];
const DOMAINS: [&str; 2] = ["a", "b.c"];
const PATTERNS: [&str; 8] = [
    "*",
    "spiffe://a/*",
    "spiffe://a/ns/x/*",
    "*/sa/y",
    "spiffe://a/ns/*",
    "*/ns/y/sa/x",
    "spiffe://a/ns/x/sa/y",
    "spiffe://b.c/ns/xy/sa/x",
];
const BLOCKS: [&str; 6] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.1", "::/0", "fd00::/8", "fd00::1/128"];
const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.1.1.1", "192.0.2.1", "::ffff:10.0.0.1", "fd00::1"];

fuzz_target!(|bytes: &[u8]| {
    // Where the bytes end, so does the case.
    let _ = compare(&mut Unstructured::new(bytes));
});

fn compare(u: &mut Unstructured<'_>) -> Result<()> {
    let mut policies = Vec::new();
    for at in 0..u.int_in_range(0..=4_u8)? {
        policies.push(policy(u, at)?);
    }
    let workload = reference::workload(&policies, action(u)?);
    let prepared = Policies::new(&workload, |name| policies.iter().find(|it| it.name == *name));
    for _ in 0..u.int_in_range(1..=8_u8)? {
        let (domain, namespace) = (u.choose(&DOMAINS)?, u.choose(&NAMES)?);
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{}", u.choose(&NAMES)?);
        let id: SpiffeId = id.parse().expect("an identity");
        let source = u.ratio(3, 4)?.then_some(&id);
        let address: IpAddr = u.choose(&ADDRESSES)?.parse().expect("an address");
        let request = Request { source, address, port: *u.choose(&PORTS)? };
        let expected = reference::judge(&policies, &workload, request);
        assert_eq!(prepared.judge(request), expected, "{request:?} of {policies:#?}");
    }
    Ok(())
}

fn action(u: &mut Unstructured<'_>) -> Result<Action> {
    u.choose(&[Action::Allow, Action::Deny]).copied()
}

/// Some of `from`, often none.
fn some<T, F>(u: &mut Unstructured<'_>, from: &[F], made: impl Fn(&F) -> T) -> Result<Vec<T>> {
    let count = if u.ratio(1, 3)? { u.int_in_range(1..=2_u8)? } else { 0 };
    (0..count).map(|_| u.choose(from).map(&made)).collect()
}

fn source(u: &mut Unstructured<'_>) -> Result<Source> {
    let principal = |it: &&str| -> Principal { it.parse().expect("a literal principal") };
    let block = |it: &&str| -> IpBlock { it.parse().expect("a literal block") };
    let account = |it: &&str| NamespacedName::new(it, "x");
    let name = |it: &&str| -> Arc<str> { (*it).into() };
    Ok(Source {
        principals: some(u, &PATTERNS, principal)?,
        not_principals: some(u, &PATTERNS, principal)?,
        namespaces: some(u, &NAMES, name)?,
        not_namespaces: some(u, &NAMES, name)?,
        service_accounts: some(u, &NAMES, account)?,
        not_service_accounts: some(u, &NAMES, account)?,
        ip_blocks: some(u, &BLOCKS, block)?,
        not_ip_blocks: some(u, &BLOCKS, block)?,
    })
}

fn rule(u: &mut Unstructured<'_>, at: u8) -> Result<Rule> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for _ in 0..u.int_in_range(0..=2_u8)? {
        from.push(source(u)?);
    }
    for _ in 0..u.int_in_range(0..=2_u8)? {
        let (ports, not_ports) = (some(u, &PORTS, |it| *it)?, some(u, &PORTS, |it| *it)?);
        to.push(Operation { ports, not_ports });
    }
    Ok(Rule { name: at.to_string().into(), from, to })
}

fn policy(u: &mut Unstructured<'_>, at: u8) -> Result<AuthorizationPolicy> {
    let mut rules = Vec::new();
    for at in 0..u.int_in_range(0..=3_u8)? {
        rules.push(rule(u, at)?);
    }
    Ok(AuthorizationPolicy {
        name: NamespacedName::new("shop", &format!("p{at}")),
        action: action(u)?,
        enforcement: *u.choose(&[Enforcement::Enforce, Enforcement::Audit])?,
        service: u.ratio(1, 3)?.then(|| NamespacedName::new("shop", "web")),
        selector: Default::default(),
        rules,
    })
}
