//! Which rule matches first, among thousands: tuple space search.
//!
//! Every pair of a source and an operation is filed under what it asks for by equality: parts of
//! the identity, the port, the leading bits of the address. Which of these a pair asks for is its
//! [`Shape`]; a request is looked up once a shape in use, of which there are few. What equality
//! cannot say, above all the not-forms, is the rest, checked on what the lookup found.
//! (Srinivasan, Suri, Varghese: Packet classification using tuple space search, 1999.)

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{Request, operation_matches, source_matches};
use crate::model::{Action, IpBlock, Operation, Principal, Rule, Source};

/// A pair that would be filed under more keys than this leaves lists to the rest instead.
const KEYS: usize = 1024;

/// The place of a rule: policies in the order of attachment, rules in the order written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) policy: u32,
    pub(super) rule: u32,
}

/// The rules of every policy with one action.
#[derive(Debug)]
pub(super) struct Table {
    action: Action,
    /// Numbers for the names that keys hold; no name has the number 0, which is for any.
    names: HashMap<Arc<str>, u32>,
    shapes: BTreeSet<Shape>,
    entries: HashMap<Key, Vec<Candidate>>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    identity: bool,
    domain: bool,
    namespace: bool,
    account: bool,
    port: bool,
    /// Whether it is IPv4, and how many bits.
    block: Option<(bool, u8)>,
}

/// What a pair asks for by equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    caller: Caller,
    /// 0 for any.
    port: u16,
    block: Option<IpBlock>,
}

/// Parts of an identity, 0 for any; `identity` alone asks that there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Caller {
    identity: bool,
    domain: u32,
    namespace: u32,
    account: u32,
}

#[derive(Clone, Debug)]
struct Candidate {
    rank: Rank,
    rest: Option<Arc<Rest>>,
}

/// What is left to check once the key matches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    source: Source,
    operation: Operation,
}

impl Table {
    pub(super) fn new(action: Action) -> Self {
        Self { action, names: HashMap::new(), shapes: BTreeSet::new(), entries: HashMap::new() }
    }

    /// Files `rule`, which is about the ports of `scope` only. Ranks come in order.
    pub(super) fn insert(&mut self, rank: Rank, rule: &Rule, scope: Option<&[u16]>) {
        let anyone = [Source::default()];
        let anything = [Operation::default()];
        let sources = if rule.from.is_empty() { &anyone[..] } else { &rule.from };
        let operations = if rule.to.is_empty() { &anything[..] } else { &rule.to };
        for source in sources {
            for operation in operations {
                if let Some(operation) = scoped(operation, scope) {
                    self.insert_pair(rank, source.clone(), operation);
                }
            }
        }
    }

    fn insert_pair(&mut self, rank: Rank, mut source: Source, mut operation: Operation) {
        let callers = self.callers(&mut source);
        let mut keys = callers.len();
        let mut fits = |more: usize| {
            let all = keys.saturating_mul(more.max(1));
            let fits = all <= KEYS;
            if fits {
                keys = all;
            }
            fits
        };
        let mut ports = vec![0];
        if !operation.ports.is_empty() && fits(operation.ports.len()) {
            ports = std::mem::take(&mut operation.ports);
        }
        let mut blocks = vec![None];
        if !source.ip_blocks.is_empty() && fits(source.ip_blocks.len()) {
            blocks = std::mem::take(&mut source.ip_blocks).into_iter().map(Some).collect();
        }
        let rest = Rest { source, operation };
        let is_empty = rest.source == Source::default() && rest.operation == Operation::default();
        let candidate = Candidate { rank, rest: (!is_empty).then(|| Arc::new(rest)) };
        for &caller in &callers {
            for &port in &ports {
                for &block in &blocks {
                    let key = Key { caller, port, block };
                    self.shapes.insert(key.shape());
                    add(self.entries.entry(key).or_default(), candidate.clone());
                }
            }
        }
    }

    /// Takes the most telling list of identities out of `source`, as parts of keys.
    fn callers(&mut self, source: &mut Source) -> Vec<Caller> {
        if !source.principals.is_empty() {
            let principals = std::mem::take(&mut source.principals);
            return principals.iter().map(|it| self.of_principal(it)).collect();
        }
        if !source.service_accounts.is_empty() {
            let accounts = std::mem::take(&mut source.service_accounts);
            let caller = |it: &crate::model::NamespacedName| Caller {
                identity: true,
                domain: 0,
                namespace: self.number(&it.namespace),
                account: self.number(&it.name),
            };
            return accounts.iter().map(caller).collect();
        }
        if !source.namespaces.is_empty() {
            let namespaces = std::mem::take(&mut source.namespaces);
            let caller = |it: &Arc<str>| Caller {
                identity: true,
                namespace: self.number(it),
                ..Caller::default()
            };
            return namespaces.iter().map(caller).collect();
        }
        vec![Caller::default()]
    }

    fn of_principal(&mut self, principal: &Principal) -> Caller {
        let domain = principal.trust_domain().map(crate::identity::TrustDomain::as_str);
        let mut number = |name: Option<&str>| name.map_or(0, |name| self.number(name));
        Caller {
            identity: true,
            domain: number(domain),
            namespace: number(principal.namespace()),
            account: number(principal.service_account()),
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = self.names.len() as u32 + 1;
        self.names.insert(name.into(), number);
        number
    }

    /// The first rule that matches `request`.
    pub(super) fn first_match(&self, request: Request<'_>) -> Option<Rank> {
        if self.entries.is_empty() {
            return None;
        }
        let known = |name: &str| self.names.get(name).copied();
        let caller = request.source.map(|source| {
            let domain = known(source.trust_domain().as_str());
            (domain, known(source.namespace()), known(source.service_account()))
        });
        let mut best: Option<Rank> = None;
        for shape in &self.shapes {
            let Some(key) = shape.key(caller, request) else { continue };
            for candidate in self.entries.get(&key).into_iter().flatten() {
                if best.is_some_and(|best| best <= candidate.rank) {
                    break;
                }
                if candidate.rest.as_ref().is_none_or(|rest| rest.matches(self.action, request)) {
                    best = Some(candidate.rank);
                    break;
                }
            }
        }
        best
    }
}

/// Adds a candidate of a higher rank than those in the list, unless one of those always wins.
fn add(list: &mut Vec<Candidate>, new: Candidate) {
    /// How far back equal rests are looked for: building must not take quadratic time.
    const LOOK_BACK: usize = 64;
    let wins = |known: &Candidate| known.rest.is_none() || known.rest == new.rest;
    if !list.iter().rev().take(LOOK_BACK).any(wins) && !list.first().is_some_and(wins) {
        list.push(new);
    }
}

/// `operation` at the ports of `scope`; `None` where that leaves none.
fn scoped(operation: &Operation, scope: Option<&[u16]>) -> Option<Operation> {
    let Some(scope) = scope else { return Some(operation.clone()) };
    let is_meant = |port: &&u16| operation.ports.is_empty() || operation.ports.contains(port);
    let ports: Vec<u16> = scope.iter().filter(is_meant).copied().collect();
    let not_ports = operation.not_ports.clone();
    (!ports.is_empty()).then_some(Operation { ports, not_ports })
}

impl Key {
    fn shape(&self) -> Shape {
        Shape {
            identity: self.caller.identity,
            domain: self.caller.domain != 0,
            namespace: self.caller.namespace != 0,
            account: self.caller.account != 0,
            port: self.port != 0,
            block: self.block.map(|block| (block.is_ipv4(), block.prefix())),
        }
    }
}

/// The numbers of a caller's trust domain, namespace and account, where any rule names them.
type Numbers = (Option<u32>, Option<u32>, Option<u32>);

impl Shape {
    /// The key of this shape that `request` would be filed under.
    fn key(&self, caller: Option<Numbers>, request: Request<'_>) -> Option<Key> {
        let part = |asked: bool, number: Option<u32>| if asked { number } else { Some(0) };
        let caller = match (self.identity, caller) {
            (false, _) => Caller::default(),
            (true, None) => return None,
            (true, Some((domain, namespace, account))) => Caller {
                identity: true,
                domain: part(self.domain, domain)?,
                namespace: part(self.namespace, namespace)?,
                account: part(self.account, account)?,
            },
        };
        let block = match self.block {
            None => None,
            Some((is_ipv4, prefix)) => {
                let address: IpAddr = request.address.to_canonical();
                if address.is_ipv4() != is_ipv4 {
                    return None;
                }
                Some(IpBlock::around(address, prefix))
            }
        };
        Some(Key { caller, port: if self.port { request.port } else { 0 }, block })
    }
}

impl Rest {
    fn matches(&self, action: Action, request: Request<'_>) -> bool {
        operation_matches(&self.operation, request) && source_matches(&self.source, action, request)
    }
}
