//! Captures outlive the controller.

use super::*;

#[test]
fn a_report_replaces_what_the_node_said_before() {
    let mut captures = Captures::default();
    assert!(captures.report("a", ["1".to_owned(), "2".to_owned()]));
    assert!(!captures.report("a", ["2".to_owned(), "1".to_owned()]), "the same");
    assert!(captures.report("b", ["3".to_owned()]));
    assert!(captures.report("a", ["2".to_owned()]));
    assert!(!captures.holds("a", "1"));
    assert!(captures.holds("a", "2"));
    assert!(!captures.holds("b", "2"));
    assert!(captures.report("b", []));
    assert!(!captures.report("b", []));
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = CapturesFile::new(dir.path());
    assert_eq!(file.load().expect("no file is no captures"), Captures::default());
    let mut captures = Captures::default();
    captures.report("node-1", ["u-1".to_owned()]);
    file.save(&captures).expect("saved");
    assert_eq!(file.load().expect("loaded"), captures);

    private_file::write(&dir.path().join("captures.json"), b"{").expect("written");
    let error = file.load().expect_err("nonsense").to_string();
    assert!(error.contains("captures.json makes no sense"), "{error}");
}
