//! Programs in Python, for what only a raw socket can ask of the kernel: options, flags and calls
//! that no ordinary client makes.

use anyhow::Result;
use mesh_harness::{Background, Pod, process::Place};

/// Debian's own, whatever else is called `python3` here.
pub const PYTHON: &str = "/usr/bin/python3";

/// What every program starts with.
pub const PRELUDE: &str = "
import ctypes, errno, hashlib, os, select, socket, struct, sys, time
from socket import *
def tcp(host, proto=0):
    s = socket(AF_INET6 if ':' in host else AF_INET, SOCK_STREAM, proto)
    s.settimeout(20)
    return s
def address(text):
    host, port = text.rsplit(':', 1)
    return host.strip('[]'), int(port)
def talk(s, text=b'hello\\n'):
    s.sendall(text)
    got = b''
    while len(got) < len(text):
        part = s.recv(65536)
        if not part: raise Exception('closed after %r' % got)
        got += part
    return got.decode().strip()
def name(addr):
    return addr[0] + ' ' + str(addr[1])
";

/// Runs a program in a pod; what it printed.
pub fn python(pod: &Pod, program: &str, arguments: &[&str]) -> Result<String> {
    python_in(&pod.place, program, arguments)
}

/// The same in any place.
pub fn python_in(place: &Place, program: &str, arguments: &[&str]) -> Result<String> {
    let program = format!("{PRELUDE}\n{program}");
    let mut command = vec![PYTHON, "-c", &program];
    command.extend(arguments);
    Ok(place.run(&command)?.success()?.trim_end().to_owned())
}

/// Starts a program in a pod.
pub fn spawn_python(pod: &Pod, program: &str, arguments: &[&str]) -> Result<Background> {
    let program = format!("{PRELUDE}\n{program}");
    let mut command = vec![PYTHON, "-u", "-c", &program];
    command.extend(arguments);
    pod.spawn(&command)
}

/// Starts a program that listens on `port`, which is its first argument.
pub fn serve_python(pod: &Pod, port: u16, program: &str) -> Result<()> {
    let program = format!("{PRELUDE}\n{program}");
    pod.serve(port, &[PYTHON, "-u", "-c", &program, &port.to_string()])
}
