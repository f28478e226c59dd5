//! Links between namespaces: veth pairs, addresses and routes, by iproute2.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Runs `ip` with `arguments`, split at blanks; its complaint is the error.
pub fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("running ip (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs many `ip` commands inside `netns` in one process, one a line.
pub fn batch(netns: &Netns, commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", netns.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (package iproute2)")?;
    child.stdin.take().context("ip without a standard input")?.write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("ip -n {} -batch: {}\n{commands}", netns.name(), complaint.trim());
    }
    Ok(())
}

/// Joins two namespaces by a veth pair of MTU 1500 with both ends up; no addresses yet.
pub fn veth(a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
    let ((a, a_name), (b, b_name)) = (a, b);
    ip(&format!(
        "link add {a_name} netns {} mtu 1500 type veth peer name {b_name} netns {} mtu 1500",
        a.name(),
        b.name()
    ))?;
    ip(&format!("-n {} link set {a_name} up", a.name()))?;
    ip(&format!("-n {} link set {b_name} up", b.name()))?;
    Ok(())
}
