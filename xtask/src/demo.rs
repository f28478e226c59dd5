//! `cargo xtask demo`: the mesh at work, six steps, one line each with what was seen.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use mesh_harness::{
    Mesh, cleanup,
    layout::Layout,
    ledger::Ledger,
    process::{Seen, tail},
};

use crate::{demo::report::Report, ebpf::repository, setup::this_program};

mod report;
mod steps;

/// The id of the demo's mesh: fixed, so that it is found again by people and by the next run.
pub const ID: &str = "demo";

/// The demo in a process of its own.
pub fn supervised(keep: bool) -> Command {
    let mut command = this_program();
    command.args(["demo", "--supervised"]);
    if keep {
        command.arg("--keep");
    }
    command
}

/// Lays out the mesh, shows the steps, cleans up or keeps.
pub fn run(keep: bool) -> Result<()> {
    let layout = Layout::new(ID)?;
    // Else what a crashed or kept demo left would count as there before.
    cleanup::make_room(&layout)?;
    let before = Ledger::of_host(&layout)?;
    println!("Laying out two nodes, six pods and two Services; starting the daemons.");
    let start = Instant::now();
    let mut mesh = lay_out()?;
    let pods_before = pod_ledgers(&mesh)?;
    mesh.start_daemons()?;
    println!("Ready in {:.1} s.\n", start.elapsed().as_secs_f32());

    let mut report = Report::default();
    report.step(1, "a Service's virtual IP, across nodes", || steps::call_service(&mesh));
    report.step(2, "what the link between the nodes carries", || steps::watch_link(&mesh));
    report.step(3, "a caller that no rule allows", || steps::refuse_stranger(&mesh));
    report.step(4, "a namespace enters the mesh and leaves it", || steps::enroll_namespace(&mesh));
    report.step(5, "kill -9 of an agent", || steps::kill_agent(&mesh));
    if report.failed() {
        println!("\n{}", mesh.last_words());
    }
    if keep {
        mesh.keep()?;
        print_ways_in(&mesh);
    } else {
        report.step(6, "cleaning up", || clean_up(mesh, &layout, &before, &pods_before));
    }
    if report.failed() {
        bail!("the demo did not show what it should");
    }
    Ok(())
}

/// Takes down the mesh that `--keep` left up.
pub fn take_down() -> Result<()> {
    let layout = Layout::new(ID)?;
    if !layout.run_dir().exists() {
        println!("No demo is up.");
        return Ok(());
    }
    cleanup::sweep(&layout)?;
    println!("The demo is gone.");
    Ok(())
}

fn lay_out() -> Result<Mesh> {
    let mesh = Mesh::two_nodes_called(ID)
        .quiet()
        .objects_from(&repository().join("deploy/demo"))
        .pod_at("node-1", "shop/frontend", 10)
        .pod_at("node-1", "shop/batch", 11)
        .pod_at("node-1", "legacy/client", 20)
        .pod_at("node-2", "shop/web", 10)
        .pod_at("node-2", "shop/redis", 11)
        .pod_at("node-2", "legacy/server", 20)
        .lay_out()?;
    // The path is part of the answer, so that whoever asks decides what crosses the link.
    for name in ["shop/web", "legacy/server"] {
        mesh.pod(name).serve_nginx(8080, &format!("return 200 \"{name} says $uri\\n\";"))?;
    }
    mesh.pod("shop/redis").serve_redis(6379)?;
    Ok(mesh)
}

/// The network of every pod as it is now, in the order of [`Mesh::pods`].
fn pod_ledgers(mesh: &Mesh) -> Result<Vec<Ledger>> {
    mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns)).collect()
}

/// Step 6: `mesh-agent cleanup` gives pods back as they were, then the layout itself goes.
fn clean_up(
    mesh: Mesh,
    layout: &Layout,
    before: &Ledger,
    pods_before: &[Ledger],
) -> Result<String> {
    let mut left = Vec::new();
    for node in mesh.nodes() {
        mesh.agent(&node.name).stop()?;
        mesh.clean_node(&node.name)?.success()?;
    }
    for (was, is) in pods_before.iter().zip(&pod_ledgers(&mesh)?) {
        left.extend(was.differences(is));
    }
    drop(mesh);
    left.extend(before.differences(&Ledger::of_host(layout)?));
    if !left.is_empty() {
        bail!("not as before:\n      {}", left.join("\n      "));
    }
    Ok("links, namespaces, pins, rules and sysctls are as before".to_owned())
}

fn print_ways_in(mesh: &Mesh) {
    let layout = mesh.layout();
    let pod = &mesh.pod("shop/frontend").place;
    let sockets: String = mesh
        .nodes()
        .iter()
        .map(|node| format!(" --socket {}", layout.socket(&node.name).display()))
        .collect();
    println!(
        "\nThe mesh stays up.\n\
         Enter a pod:   sh -c 'echo 0 > {}/cgroup.procs; exec nsenter --net={} bash'\n\
         then, say:     curl http://10.96.0.80/hello\n\
         Watch flows:   target/debug/nodemesh flows --follow{sockets}\n\
         Health:        target/debug/nodemesh status{sockets}\n\
         Edit objects:  {}\n\
         Take it down:  cargo xtask demo --down",
        pod.cgroup.display(),
        pod.netns.path().display(),
        layout.objects().display(),
    );
}

/// What a program said when it failed, on one line.
fn complaint(seen: &Seen) -> String {
    tail(seen.stderr.trim(), 1)
}

/// A time as people say it.
fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
