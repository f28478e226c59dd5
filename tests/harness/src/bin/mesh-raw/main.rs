//! A client for what an attacker in a pod does: frames of its own making, marks, sources that
//! are not its own.
//!
//! `mesh-raw send` opens a TCP connection by hand, past the kernel's TCP, and prints `answer:
//! none`, `reset` or `syn-ack`, and then what it heard. `mesh-raw dial` uses an ordinary socket
//! with unusual options and prints `failed: why` or what it heard.

use std::{env, process::ExitCode};

mod dial;
mod hand;
mod packet;
mod shape;

const USAGE: &str = "\
usage: mesh-raw send FROM-MAC TO-MAC FROM:PORT TO:PORT [bypass] [late] [WRAPPING] [SEGMENT]
       mesh-raw dial FROM:PORT TO:PORT [mark MARK] [transparent] [mptcp] [fastopen]

WRAPPING of the first packet: fragments | options | tag | tags,
         IPv6 alone: hops | destination | routing | chain | atomic
SEGMENT that is sent first: data | fastopen | mptcp | flags HEX";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["send", from_mac, to_mac, from, to, how @ ..] => {
            hand::send(from_mac, to_mac, from, to, how)
        }
        ["dial", from, to, how @ ..] => dial::dial(from, to, how),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-raw: {error:#}");
            ExitCode::FAILURE
        }
    }
}
