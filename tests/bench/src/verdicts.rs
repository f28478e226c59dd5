//! How long a verdict takes where thousands of policies are attached to one workload.

use std::{net::IpAddr, time::Instant};

use mesh_common::{
    identity::SpiffeId,
    matching::authorization::{Policies, Request},
    model::{
        Action, AuthorizationPolicy, Enforcement, IpBlock, NamespacedName, Operation, Rule, Source,
        Workload,
    },
};

/// Verdicts a shape of policies.
const VERDICTS: usize = 200_000;
/// The promise: 99 of 100 verdicts take less, in microseconds, however many policies there are.
const PROMISE: f64 = 5.0;

/// Prints a line of JSON a shape: what the policies ask for, and microseconds.
///
/// # Errors
/// Where a shape takes longer than is promised.
pub fn run(count: usize) -> anyhow::Result<()> {
    type Shape = fn(usize) -> (Source, Operation);
    let shapes: [(&str, Shape); 5] = [
        ("principal and port", |at| {
            let principals = identity(at).into_iter().map(Into::into).collect();
            let ports = vec![1 + (at % 60_000) as u16];
            (
                Source { principals, ..Source::default() },
                Operation { ports, ..Operation::default() },
            )
        }),
        ("namespace", |at| {
            let namespaces = vec![format!("ns-{at}").into()];
            (Source { namespaces, ..Source::default() }, Operation::default())
        }),
        ("address block", |at| {
            let address = IpAddr::from((0x0a00_0000 + ((at as u32) << 8)).to_be_bytes());
            let ip_blocks = vec![IpBlock::around(address, 24)];
            (Source { ip_blocks, ..Source::default() }, Operation::default())
        }),
        ("one principal, any port but one", |at| {
            let principals = identity(1).into_iter().map(Into::into).collect();
            let not_ports = vec![1 + (at % 60_000) as u16];
            let operation = Operation { not_ports, ..Operation::default() };
            (Source { principals, ..Source::default() }, operation)
        }),
        ("any namespace but one", |at| {
            let not_namespaces = vec![format!("ns-{at}").into()];
            (Source { not_namespaces, ..Source::default() }, Operation::default())
        }),
    ];
    let mut slow = Vec::new();
    for (name, shape) in shapes {
        let policies: Vec<_> = (0..count).map(|at| policy(at, shape(at))).collect();
        let started = Instant::now();
        let workload = workload(&policies);
        let prepared =
            Policies::new(&workload, |name| policies.get(name.name.parse::<usize>().ok()?));
        let prepare = started.elapsed();
        let mut nanos: Vec<u64> = (0..VERDICTS).map(|at| judge(&prepared, at, count)).collect();
        nanos.sort_unstable();
        let percentile = |part: usize| nanos[nanos.len() * part / 100] as f64 / 1_000.0;
        let p99 = percentile(99);
        println!(
            "{}",
            serde_json::json!({
                "policies": count, "ask_for": name, "prepare_us": prepare.as_micros() as u64,
                "p50_us": percentile(50), "p99_us": p99,
            })
        );
        if p99 >= PROMISE {
            slow.push(format!("{name}: {p99} us"));
        }
    }
    anyhow::ensure!(
        slow.is_empty(),
        "with {count} policies the p99 of a verdict is to be below {PROMISE} us, and is not: {}; \
         is the machine busy?",
        slow.join(", ")
    );
    Ok(())
}

/// Nanoseconds of one verdict, on another caller and port each time.
fn judge(policies: &Policies, at: usize, count: usize) -> u64 {
    let at = at.wrapping_mul(7919) % (2 * count);
    let source = identity(at);
    let address = IpAddr::from((0x0a00_0001 + ((at as u32) << 8)).to_be_bytes());
    let request = Request { source: source.as_ref(), address, port: 1 + (at % 60_000) as u16 };
    let started = Instant::now();
    std::hint::black_box(policies.judge(request));
    started.elapsed().as_nanos() as u64
}

fn identity(at: usize) -> Option<SpiffeId> {
    format!("spiffe://cluster.local/ns/ns-{at}/sa/account-{at}").parse().ok()
}

/// Every other one denies, so that both tables are large.
fn policy(at: usize, (source, operation): (Source, Operation)) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: NamespacedName::new("shop", &at.to_string()),
        action: if at.is_multiple_of(2) { Action::Allow } else { Action::Deny },
        enforcement: Enforcement::Enforce,
        service: None,
        selector: Default::default(),
        rules: vec![Rule { name: "0".into(), from: vec![source], to: vec![operation] }],
    }
}

fn workload(policies: &[AuthorizationPolicy]) -> Workload {
    Workload {
        name: NamespacedName::new("shop", "web"),
        uid: "web".into(),
        node: None,
        addresses: Vec::new(),
        identity: None,
        enrolled: true,
        captured: true,
        memberships: Vec::new(),
        authorization_policies: policies.iter().map(|policy| policy.name.clone()).collect(),
        admission: Default::default(),
    }
}
