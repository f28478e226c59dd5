//! Folders as they come: links, pipes, strange bytes, files half-written.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().expect("within")).expect("made");
    fs::write(path, content).expect("written");
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

fn names(objects: &Objects) -> Vec<String> {
    objects.in_use.keys().map(|key| key.name.name.to_string()).collect()
}

fn refusals(objects: &Objects, dir: &TempDir) -> Vec<String> {
    let prefix = format!("{}/", dir.path().display());
    objects.refusals.iter().map(|refusal| refusal.to_string().replace(&prefix, "")).collect()
}

#[test]
fn reads_yaml_in_folders_and_through_links() {
    let (dir, elsewhere) = (folder(), folder());
    write(&dir, "a.yaml", node("a"));
    write(&dir, "deep/er/b.yml", node("b"));
    write(&dir, "c.txt", node("c"));
    write(&dir, ".hidden.yaml", node("d"));
    write(&dir, "..data/a.yaml", node("a"));
    write(&elsewhere, "e.yaml", node("e"));
    symlink(elsewhere.path(), dir.path().join("linked")).expect("linked");
    symlink(dir.path(), dir.path().join("deep/circle")).expect("linked");
    let (_, objects) = Folder::load(dir.path());
    assert_eq!(names(&objects), ["a", "b", "e"]);
    assert_eq!(refusals(&objects, &dir), [] as [&str; 0]);
}

#[test]
fn what_cannot_be_read_is_named_and_costs_nothing_else() {
    let dir = folder();
    write(&dir, "a.yaml", node("a"));
    write(&dir, "b.yaml", b"kind: Pod\n# \xff\n");
    write(&dir, "c.yaml", vec![b'#'; FILE_BYTES as usize + 1]);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("d.yaml"), 0o600.into()).expect("a pipe");
    symlink("nowhere", dir.path().join("e.yaml")).expect("linked");
    let (_, objects) = Folder::load(dir.path());
    assert_eq!(names(&objects), ["a"]);
    assert_eq!(
        refusals(&objects, &dir),
        [
            "b.yaml: line 2 is not UTF-8; save the file as UTF-8",
            "c.yaml: larger than 8 MiB; split it into several files",
            "d.yaml: neither a file nor a folder; not read",
            "e.yaml: cannot be read: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn a_file_is_used_once_it_holds_still() {
    let dir = folder();
    write(&dir, "a.yaml", node("a"));
    let (mut folder, _) = Folder::load(dir.path());
    assert_eq!(folder.look(), None);

    write(&dir, "b.yaml", &node("b")[..20]);
    assert_eq!(folder.look(), None);
    write(&dir, "b.yaml", node("b"));
    assert_eq!(folder.look(), None, "still being written");
    assert_eq!(folder.look().map(|objects| names(&objects)), Some(vec!["a".into(), "b".into()]));
    assert_eq!(folder.look(), None);
}

#[test]
fn an_editor_that_moves_a_file_away_and_back_loses_nothing() {
    let dir = folder();
    write(&dir, "a.yaml", node("a"));
    let (mut folder, _) = Folder::load(dir.path());
    fs::rename(dir.path().join("a.yaml"), dir.path().join("a.bak")).expect("moved");
    assert_eq!(folder.look(), None);
    fs::rename(dir.path().join("a.bak"), dir.path().join("a.yaml")).expect("moved back");
    assert_eq!(folder.look(), None);

    fs::remove_file(dir.path().join("a.yaml")).expect("removed");
    assert_eq!(folder.look(), None);
    assert_eq!(folder.look().map(|objects| names(&objects)), Some(Vec::new()));
    assert!(folder.unsettled.is_empty());
}

#[test]
fn a_file_that_never_holds_still_is_used_in_the_end() {
    let dir = folder();
    let (mut folder, _) = Folder::load(dir.path());
    let used = (0..2 * PATIENCE).find(|round| {
        write(&dir, "a.yaml", format!("{}# {round}\n", node("a")));
        folder.look().is_some()
    });
    assert_eq!(used, Some(PATIENCE));
}

#[test]
fn a_folder_that_goes_away_loses_nothing() {
    let dir = folder();
    write(&dir, "in/a.yaml", node("a"));
    let root = dir.path().join("in");
    let (mut folder, _) = Folder::load(&root);
    fs::rename(&root, dir.path().join("out")).expect("moved");
    folder.look();
    let objects = folder.look().expect("changed");
    assert_eq!(names(&objects), ["a"]);
    assert_eq!(
        refusals(&objects, &dir),
        ["in: cannot be read: No such file or directory (os error 2)"]
    );
}
