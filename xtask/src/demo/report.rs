//! One line a step.

use std::io::{IsTerminal, stdout};

use anyhow::Result;

/// Prints steps as they end and remembers whether one failed.
#[derive(Debug, Default)]
pub struct Report {
    failed: bool,
}

impl Report {
    /// Runs a step and prints what was seen, or what went wrong.
    pub fn step(&mut self, number: u8, title: &str, step: impl FnOnce() -> Result<String>) {
        match step() {
            Ok(seen) => println!("{} {number}. {title}: {seen}", mark("32", '✓')),
            Err(error) => {
                self.failed = true;
                println!("{} {number}. {title}: {error:#}", mark("31", '✗'));
            }
        }
    }

    /// Whether a step has failed.
    pub fn failed(&self) -> bool {
        self.failed
    }
}

/// A mark, coloured on a terminal unless NO_COLOR says otherwise (no-color.org).
fn mark(colour: &str, mark: char) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !stdout().is_terminal() {
        return mark.to_string();
    }
    format!("\x1b[{colour}m{mark}\x1b[0m")
}
