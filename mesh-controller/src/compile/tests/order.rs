//! Neither order nor files nor a broken neighbour change what is compiled.

use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::*;

/// Documents that touch each other in many ways.
fn documents() -> Vec<String> {
    let text = [
        NAMESPACES.to_owned(),
        pod("shop/web-0", "10.0.0.1", ""),
        pod("shop/web-1", "10.0.0.1", ""),
        pod("shop/web-2", "10.0.0.3", "spec serviceAccountName: web"),
        pod("legacy/a", "10.0.0.4", "labels nodemesh.dev/mesh: enabled"),
        service("shop/web", "clusterIP: 10.96.0.1, ports: [{port: 80}]"),
        service("shop/web2", "clusterIP: 10.96.0.1, ports: [{port: 80}]"),
        slice(
            "shop/web-a",
            "web",
            "{port: 8080}",
            "{addresses: [10.0.0.1]}, {addresses: [10.0.0.3]}",
        ),
        slice(
            "shop/web-b",
            "web",
            "{port: 8081}",
            "{addresses: [10.0.0.1]}, {addresses: [10.9.0.1]}",
        ),
        policy("shop/web", "selector: {matchLabels: {app: web-2}}"),
        policy("nodemesh-system/mesh", "rules: [{}]"),
    ]
    .concat();
    text.split("\n---\n").map(str::to_owned).collect()
}

fn of_files(files: &[(String, String)]) -> Compiled {
    let parsed = files.iter().map(|(name, text)| {
        let file: Arc<Path> = Path::new(name).into();
        let documents = Ok(yaml::parse(&file, text));
        (Origin::File(file), documents)
    });
    let objects = Merger::default().merge(&parsed.collect());
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    compile(&index, &Captures::default(), &"cluster.local".parse().expect("a literal"))
}

fn in_files(documents: &[String], size: usize) -> Vec<(String, String)> {
    let file = |(at, chunk): (usize, &[String])| (format!("{at:03}.yaml"), chunk.join("\n---\n"));
    documents.chunks(size).enumerate().map(file).collect()
}

const BROKEN: [&str; 7] = [
    "{",
    "\tkind: Pod",
    "just text",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nspec: {typo: 1}",
    "apiVersion: v1\nkind: Wheel\nmetadata: {name: broken}",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nstatus: {podIP: 1.2.3}",
    "a: &a [x]\nb: [*a, *missing]",
];

proptest! {
    #[test]
    fn neither_order_nor_files_matter(
        (shuffled, size) in (
            proptest::sample::subsequence(documents(), 0..=documents().len()).prop_shuffle(),
            1_usize..6,
        ),
    ) {
        let mut sorted = shuffled.clone();
        sorted.sort();
        prop_assert_eq!(of_files(&in_files(&shuffled, size)), of_files(&in_files(&sorted, 100)));
    }

    #[test]
    fn a_broken_document_costs_nobody_else(
        broken in proptest::sample::select(BROKEN.to_vec()),
        at in 0..=documents().len(),
        size in 1_usize..20,
    ) {
        let mut documents = documents();
        let whole = of_files(&in_files(&documents, 100));
        documents.insert(at, broken.to_owned());
        prop_assert_eq!(of_files(&in_files(&documents, size)), whole);
    }
}
