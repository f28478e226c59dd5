//! What checks print: sections, a line a check with a tick, a warning or a cross, and what to do
//! below.

use std::fmt::Write;

use crate::output::{Palette, Tone};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

/// Checks and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checklist {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Section(String),
    Check { outcome: Outcome, what: String, hint: String },
}

impl Checklist {
    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        self.lines.push(Line::Section(title.to_owned()));
    }

    /// Something is as it should be.
    pub fn good(&mut self, what: impl Into<String>) {
        self.check(Outcome::Good, what.into(), String::new());
    }

    /// Something is worth a look; `hint` says what to do.
    pub fn warning(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.check(Outcome::Warning, what.into(), hint.into());
    }

    /// Something is wrong; `hint` says what to do.
    pub fn bad(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.check(Outcome::Bad, what.into(), hint.into());
    }

    /// Something could not be looked at, where that is so: no reason to look at nothing else.
    pub fn looked(&mut self, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            self.warning(format!("not looked at: {error:#}"), "ask as somebody who may");
        }
    }

    fn check(&mut self, outcome: Outcome, what: String, hint: String) {
        self.lines.push(Line::Check { outcome, what, hint });
    }

    /// Whether nothing is wrong; warnings are not.
    pub fn is_good(&self) -> bool {
        self.count(Outcome::Bad) == 0
    }

    /// How many checks ended so.
    pub fn count(&self, wanted: Outcome) -> usize {
        let is_it =
            |line: &&Line| matches!(line, Line::Check { outcome, .. } if *outcome == wanted);
        self.lines.iter().filter(is_it).count()
    }

    /// The text for people.
    pub fn text(&self, palette: Palette) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let written = match line {
                Line::Section(title) if text.is_empty() => writeln!(text, "{title}"),
                Line::Section(title) => writeln!(text, "\n{title}"),
                Line::Check { outcome, what, hint } => {
                    let (sign, tone) = match outcome {
                        Outcome::Good => ("✓", Tone::Good),
                        Outcome::Warning => ("!", Tone::Notable),
                        Outcome::Bad => ("✗", Tone::Bad),
                    };
                    let hint = match hint.is_empty() {
                        true => String::new(),
                        false => format!("    {hint}\n"),
                    };
                    write!(text, "  {} {what}\n{hint}", palette.paint(tone, sign))
                }
            };
            written.expect("a String takes everything");
        }
        text
    }

    /// What did not end well, as plain lines; for tests.
    #[cfg(test)]
    pub fn complaints(&self) -> Vec<(Outcome, &str)> {
        let complaints = self.lines.iter().filter_map(|line| match line {
            Line::Check { outcome, what, .. } if *outcome > Outcome::Good => {
                Some((*outcome, what.as_str()))
            }
            _ => None,
        });
        complaints.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_check_and_a_hint_where_one_fails() {
        let mut list = Checklist::default();
        list.section("cluster");
        list.good("answers");
        assert!(list.is_good());
        list.warning("old", "renew it");
        assert!(list.is_good(), "a warning is no failure");
        list.section("rights");
        list.bad("may not", "ask");
        assert!(!list.is_good());
        let text = list.text(Palette::plain());
        let expected =
            "cluster\n  ✓ answers\n  ! old\n    renew it\n\nrights\n  ✗ may not\n    ask\n";
        assert_eq!(text, expected);
    }
}
