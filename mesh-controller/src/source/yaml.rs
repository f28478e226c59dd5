//! From YAML text to objects, document by document.

use std::{borrow::Cow, collections::BTreeMap, path::Path, sync::Arc};

use serde_saphyr::{
    DefaultMessageFormatter, Localizer, Location, Options, SnippetMode, budget, options,
    render_options,
};

use super::{
    Parsed, Place,
    decode::{self, Fields},
    node::{Node, Value},
};

/// No Kubernetes object needs aliases; this many let people save some typing in a file, and keep
/// a document from growing by more than a few hundred kilobytes.
const ALIASES: usize = 256;
/// How many values aliases may add to a document.
const ALIASED_EVENTS: usize = 10_000;
/// How many values a document may have: etcd's 1.5 MiB limit on an object lets in fewer.
const NODES: usize = 250_000;

/// The objects of `text`, the content of `file`. Empty documents are no objects.
pub fn parse(file: &Arc<Path>, text: &str) -> Vec<Parsed> {
    read(file, text, |node, place| Some(decode::one(node, Fields::Written, &place)))
}

/// The same of what is yet to be applied; `skipped` counts what no mesh reads.
pub fn manifests(
    file: &Arc<Path>,
    text: &str,
    skipped: &mut BTreeMap<String, usize>,
) -> Vec<Parsed> {
    read(file, text, |node, place| match decode::unread(node) {
        Some(kind) => {
            *skipped.entry(kind).or_default() += 1;
            None
        }
        None => Some(decode::one(node, Fields::Unapplied, &place)),
    })
}

fn read(
    file: &Arc<Path>,
    text: &str,
    mut one: impl FnMut(&Node, &dyn Fn(u64) -> Place) -> Option<Parsed>,
) -> Vec<Parsed> {
    let mut parsed = Vec::new();
    for (at, document) in documents(text).into_iter().enumerate() {
        let place = |line: u64| Place::File {
            file: file.clone(),
            document: at + 1,
            line: line.max(1) + document.lines_before,
        };
        match tree(&document) {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => {
                parsed.extend(items(&node).into_iter().filter_map(|item| one(item, &place)));
            }
            Err((line, reason)) => {
                let reason = format!("not YAML: {reason}");
                parsed.push(Parsed { place: place(line), key: None, object: Err(reason) });
            }
        }
    }
    parsed
}

struct Document<'t> {
    text: &'t str,
    lines_before: u64,
}

/// Splits at `---` and `...` at the start of a line. YAML forbids both within any value (rule
/// 206, c-forbidden), so the split is exact however broken the documents themselves are.
fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let number = number as u64;
        if is_marker(line, "---") {
            let before = &text[start..offset];
            if !is_blank(before) {
                documents.push(Document { text: before, lines_before: start_line });
            }
            (start, start_line) = (offset, number);
        } else if is_marker(line, "...") {
            documents.push(Document { text: &text[start..offset], lines_before: start_line });
            (start, start_line) = (offset + line.len(), number + 1);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before: start_line });
    documents.retain(|document| !is_blank(document.text));
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether `text` holds nothing but blank lines, comments and directives such as `%YAML 1.2`.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let content = line.trim_start();
        content.is_empty()
            || content.starts_with('#')
            || line.starts_with('%')
            || line.strip_prefix("---").is_some_and(|rest| {
                let rest = rest.trim();
                rest.is_empty() || rest.starts_with('#')
            })
    })
}

struct WithoutLocation;

impl Localizer for WithoutLocation {
    // The place is printed before the message, in lines of the file and not of the document.
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }
}

fn tree(document: &Document<'_>) -> Result<Node, (u64, String)> {
    serde_saphyr::from_str_with_options(document.text, parser_options()).map_err(|error| {
        let formatter = DefaultMessageFormatter;
        let formatter = formatter.with_localizer(&WithoutLocation);
        let line = error.location().map_or(1, |location| location.line());
        let reason = error.render_with_options(render_options! {
            formatter: &formatter,
            snippets: SnippetMode::Off,
            line_offset: document.lines_before,
        });
        (line, reason)
    })
}

fn parser_options() -> Options {
    let mut options = options! {
        budget: budget! { max_aliases: ALIASES, max_anchors: ALIASES, max_nodes: NODES },
        with_snippet: false,
        // Kubernetes reads YAML 1.1 with its yes and no only where a field is a bool; none of the
        // fields used here is written so, and a label `no` has to stay a text.
        strict_booleans: true,
    };
    options.alias_limits.max_total_replayed_events = ALIASED_EVENTS;
    options
}

/// The items of the List that `node` is, or else itself.
fn items(node: &Node) -> Vec<&Node> {
    let kind = node.get("kind").and_then(Node::as_text);
    let items = node.get("items").map(|items| &items.value);
    match (kind, items) {
        // Lists do not nest: an item of kind List is an unknown kind.
        (Some("List"), Some(Value::List(items))) => items.iter().collect(),
        (Some("List"), None | Some(Value::Null)) => Vec::new(),
        _ => vec![node],
    }
}

#[cfg(test)]
mod tests;
