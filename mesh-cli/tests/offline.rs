//! `nodemesh` on files alone: the program as it is.

use std::{fs, process::Command};

#[path = "offline/routes.rs"]
mod routes;
#[path = "offline/validate.rs"]
mod validate;

use tempfile::TempDir;

/// A folder of manifests.
struct Folder(TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Self(folder)
    }

    /// Runs a command on the folder.
    fn run(&self, words: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodemesh"));
        let output = command.args(words).arg("-f").arg(self.0.path()).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// What a run said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}
