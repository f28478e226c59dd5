//! Which version of an object is in use, edit by edit.

use super::*;

fn merge(merger: &mut Merger, files: &[(&str, &str)]) -> Objects {
    let parsed = files.iter().map(|(name, text)| {
        let file: Arc<Path> = Path::new(name).into();
        let documents = match *text {
            "unreadable" => Err("cannot be read".to_owned()),
            text => Ok(yaml::parse(&file, text)),
        };
        (Origin::File(file), documents)
    });
    merger.merge(&parsed.collect())
}

fn keys(objects: &Objects) -> Vec<String> {
    objects.in_use.keys().map(|key| key.name.name.to_string()).collect()
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n")
}

fn bad(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\ntypo: 1\n---\n")
}

#[test]
fn what_becomes_bad_stays_as_it_was_and_what_is_gone_is_gone() {
    let (a, b, bad_a) = (node("a"), node("b"), bad("a"));
    let mut merger = Merger::default();
    assert_eq!(keys(&merge(&mut merger, &[("1", &format!("{a}{b}"))])), ["a", "b"]);

    let objects = merge(&mut merger, &[("1", &format!("{bad_a}{b}"))]);
    assert_eq!(keys(&objects), ["a", "b"]);
    assert_eq!(
        objects.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["1:4: Node a: typo: no such field; remove it or correct its name (its last good version \
          stays in use)"]
    );
    assert_eq!(keys(&merge(&mut merger, &[("1", &b)])), ["b"]);
    assert_eq!(keys(&merge(&mut merger, &[("1", &format!("{bad_a}{b}"))])), ["b"], "never good");
}

#[test]
fn a_file_that_cannot_be_understood_loses_nothing() {
    let (a, b) = (node("a"), node("b"));
    for broken in ["unreadable", "{", "kind: Wheel\napiVersion: v1\n"] {
        let mut merger = Merger::default();
        merge(&mut merger, &[("d/1", &a), ("d/2", &b)]);
        assert_eq!(keys(&merge(&mut merger, &[("d/1", broken), ("d/2", &b)])), ["a", "b"]);
        assert_eq!(keys(&merge(&mut merger, &[("d/1", broken)])), ["a"], "the other file is gone");
        assert_eq!(keys(&merge(&mut merger, &[("d/1", "")])), [] as [&str; 0]);
    }
    let mut merger = Merger::default();
    merge(&mut merger, &[("d/1", &a)]);
    assert_eq!(keys(&merge(&mut merger, &[("d", "unreadable")])), ["a"], "the folder, too");
}

#[test]
fn of_two_versions_the_first_is_in_use() {
    let (a, bad_a) = (node("a"), bad("a"));
    let mut merger = Merger::default();
    let objects = merge(&mut merger, &[("1", &a), ("2", &a)]);
    assert_eq!(
        objects.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["2:1: Node a: a second version; the first, at 1:1, is in use: remove one"]
    );
    let objects = merge(&mut Merger::default(), &[("1", &bad_a), ("2", &a)]);
    assert_eq!(keys(&objects), ["a"], "a bad first costs the good second nothing");
    assert_eq!(objects.refusals.len(), 1);
}
