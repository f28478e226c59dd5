//! Captures outlive the controller, and old news is no news.

use super::*;

fn report(stream: u64, uids: &[&str]) -> Report {
    let uids = uids.iter().map(|&uid| uid.to_owned()).collect();
    Report { stamp: Stamp { stream, report: 0 }, uids, ..Report::default() }
}

#[test]
fn a_report_replaces_what_the_node_said_before() {
    let mut captures = Captures::default();
    assert!(captures.report("a", report(1, &["1", "2"])));
    assert!(!captures.report("a", report(1, &["2", "1"])), "the same");
    assert!(captures.report("b", report(1, &["3"])));
    assert!(captures.report("a", report(2, &["2"])));
    assert!(!captures.holds("a", "1"));
    assert!(captures.holds("a", "2"));
    assert!(!captures.holds("b", "2"));
    assert!(captures.report("b", report(2, &[])));
    assert!(!captures.report("b", report(3, &[])));
}

#[test]
fn of_two_reports_the_later_is_true_in_whatever_order_they_are_heard() {
    let (older, newer) = (report(1, &["gone", "stays"]), report(2, &["stays"]));
    let emptied = report(3, &[]);
    for order in
        [[&older, &newer, &emptied], [&emptied, &newer, &older], [&newer, &emptied, &older]]
    {
        let mut captures = Captures::default();
        for report in order {
            captures.report("a", report.clone());
        }
        assert!(!captures.holds("a", "gone") && !captures.holds("a", "stays"), "{order:?}");
    }
    let first = Stamp::now();
    assert!(first < first.next());
    assert_eq!(first.next().to_string().parse(), Ok(first.next()));
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = CapturesFile::new(dir.path());
    assert_eq!(file.load().expect("no file is no captures"), Captures::default());
    let mut captures = Captures::default();
    captures.report("node-1", report(0, &["u-1"]));
    file.save(&captures).expect("saved");
    assert_eq!(file.load().expect("loaded"), captures);

    private_file::write(&dir.path().join("captures.json"), b"{").expect("written");
    let error = file.load().expect_err("nonsense").to_string();
    assert!(error.contains("captures.json makes no sense"), "{error}");
}
