//! Routes for people.

use super::{
    matched,
    service::{self, Attached, Port},
    shown::{Out, Rule},
    words,
};
use crate::output::columns;

/// A Service and its routes.
pub fn service(answer: &service::Answer) -> String {
    let addresses = match answer.addresses.is_empty() {
        true => "no cluster IP".to_owned(),
        false => answer.addresses.join(", "),
    };
    let mut text = format!("{} ({addresses}), as {} has it\n", answer.service, answer.source);
    for port in &answer.ports {
        text += &of_port(port);
    }
    text + &outs("refused or partly wrong here", &answer.refused)
}

fn of_port(port: &Port) -> String {
    let Port { protocol, because, ready, endpoints, .. } = port;
    let name = match port.name.as_str() {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    let mut text = format!(
        "\nport {}{name}: {protocol} ({because}); {}\n",
        port.port,
        words::endpoints(*ready, *endpoints)
    );
    if port.routes.is_empty() {
        text += "  no route: to the Service's own endpoints\n";
    }
    for Attached { route, clients, ignored, rules } in &port.routes {
        let ignored = ignored.as_ref().map(|it| format!("; not followed: {it}"));
        text += &format!("  {route}, for {clients}{}\n", ignored.unwrap_or_default());
        for rule in rules {
            text += &of_rule(rule);
        }
    }
    text
}

fn of_rule(rule: &Rule) -> String {
    let matches = match rule.matches.is_empty() {
        true => "connections".to_owned(),
        false => rule.matches.join("; or "),
    };
    format!("    rule {}: {matches}\n", rule.name) + &columns("      ", &rows(rule))
}

/// What a rule does, a row a thing.
fn rows(rule: &Rule) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows: Vec<_> = rule.filters.iter().map(|it| row("filter", it.clone())).collect();
    for it in &rule.backends {
        let mut text = format!("{}, {} %", it.to, it.percent);
        if it.valid {
            text += &format!(", {}", words::endpoints(it.ready, it.endpoints));
        }
        for filter in &it.filters {
            text += &format!("; {filter}");
        }
        rows.push(row("to", text));
    }
    rows.extend(rule.bounds.iter().map(|it| row("bound", it.clone())));
    rows
}

/// A request and what decides over it.
pub fn matched(answer: &matched::Answer) -> String {
    let mut text = format!(
        "{}, of clients of namespace {}, as {} has it\n",
        answer.request, answer.client_namespace, answer.source
    );
    text += &format!("protocol: {}\n{}\n", answer.protocol, answer.outcome);
    if let (Some(route), Some(by), Some(rule)) = (&answer.route, &answer.matched, &answer.rule) {
        text += &format!("decided by {route} rule {}: {by}\n", rule.name);
        text += &columns("  ", &rows(rule));
    }
    if !answer.others.is_empty() {
        text += "\nother matches, in the order in which they are asked\n";
        let row = |it: &matched::Other| {
            let name = format!("{} rule {}", it.route, it.rule);
            vec![name, it.matched.clone(), it.reason.clone()]
        };
        text += &columns("  ", &answer.others.iter().map(row).collect::<Vec<_>>());
    }
    text + &outs("not for this client, refused or partly wrong", &answer.out)
}

fn outs(title: &str, outs: &[Out]) -> String {
    if outs.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = outs.iter().map(|it| vec![it.route.clone(), it.reason.clone()]).collect();
    format!("\n{title}\n{}", columns("  ", &rows))
}
