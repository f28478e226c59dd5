//! Modes, and that nothing is half-written.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn files_are_private_and_replaced_as_a_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    assert_eq!(read(&path).expect("absent is fine"), None);
    fs::write(dir.path().join("key.new"), "left by a crash").expect("written");
    write(&path, b"one").expect("written");
    write(&path, b"two").expect("replaced");
    assert_eq!(read(&path).expect("read"), Some(b"two".to_vec()));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!create(&path, b"three").expect("tried"));
    assert_eq!(read(&path).expect("read"), Some(b"two".to_vec()));
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
}

#[test]
fn what_others_may_read_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    write(&path, b"one").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
    let error = read(&path).expect_err("refused").to_string();
    assert!(error.contains(&format!("run `chmod 0600 {}`", path.display())), "{error}");

    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("changed");
    let error = directory(dir.path()).expect_err("refused").to_string();
    assert!(error.contains(&format!("run `chmod 0700 {}`", dir.path().display())), "{error}");
}
