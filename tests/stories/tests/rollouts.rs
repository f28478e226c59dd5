//! New versions: the examples of deploy/examples, applied and changed by Debian's kubectl as their
//! README says, and the script that promotes or rolls back by what the agents' metrics say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_harness::{Background, mesh::READY, process::Seen, wait};
use mesh_stories::{WEB, cluster::Cluster, python::serve_python, shop};
use rustix::process::Signal;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const README: &str = include_str!("../../../deploy/examples/README.md");
/// What a slow machine may need for a few requests a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// Versions of shop/web as Services, which routes of shop/web lead to.
fn versions(story: &str) -> Result<Cluster> {
    let mesh = shop(story)
        .pod("node-2", "shop/web-v1")
        .pod("node-1", "shop/web-v2")
        .service_with("shop/web-v1", "10.96.0.81", "http", 80, 8080)
        .service_with("shop/web-v2", "10.96.0.82", "http", 80, 8080);
    let cluster = Cluster::start(mesh)?;
    for (pod, says) in [("shop/web", "no route"), ("shop/web-v1", "v1"), ("shop/web-v2", "v2")] {
        cluster.mesh.pod(pod).serve_nginx(8080, &format!("return 200 \"{says} \";"))?;
    }
    Ok(cluster)
}

/// Runs the one command of the README that has these words, as it stands there.
fn as_written(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let is_meant =
        |line: &&str| line.starts_with("    kubectl") && words.iter().all(|it| line.contains(it));
    let command = README.lines().find(is_meant).with_context(|| format!("no command {words:?}"))?;
    let command = format!("cd {REPOSITORY} && {command}");
    cluster.run(&["sh", "-c", &command])?.success().map(drop)
}

/// What each of `count` requests to shop/web was answered.
fn ask(cluster: &Cluster, count: usize, flags: &[&str]) -> Result<Vec<String>> {
    let urls = format!("http://{WEB}/[1-{count}]");
    let curl = ["curl", "-sS", "-m", "10", "-w", "%{http_code}\\n", &urls];
    let seen = cluster.mesh.pod("shop/frontend").run(&[&curl[..], flags].concat())?.success()?;
    Ok(seen.lines().map(str::to_owned).collect())
}

/// Waits until requests are answered by these versions, all of them and no other.
fn until_answered_by(cluster: &Cluster, versions: &[&str], flags: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    wait::until(&format!("answers of {versions:?}"), READY, || {
        // Of 40 coins one side stays away once in 10^12; with 10 of 100, once in 68: asked again.
        seen = ask(cluster, 40, flags)?;
        seen.sort();
        seen.dedup();
        let expected = versions.iter().map(|version| format!("{version} 200"));
        Ok(expected.eq(seen.iter().cloned()).then_some(()))
    })
    .with_context(|| format!("{seen:?}\n{}", cluster.mesh.last_words()))
}

#[test]
fn the_examples_do_what_their_readme_says() -> Result<()> {
    let cluster = versions("examples")?;
    let answers = |versions: &[&str], flags: &[&str]| until_answered_by(&cluster, versions, flags);
    answers(&["no route"], &[])?;
    as_written(&cluster, &["apply", "canary.yaml"])?;
    answers(&["v1", "v2"], &[])?;
    let status =
        ["-n", "shop", "get", "httproute", "web", "-o", "jsonpath={.status.parents[*].conditions}"];
    wait::until("the route's status", READY, || {
        Ok(cluster.kubectl(&status)?.contains("\"reason\":\"Accepted\"").then_some(()))
    })?;
    as_written(&cluster, &["0/weight\",\"value\":0}"])?;
    answers(&["v2"], &[])?;
    as_written(&cluster, &["0/weight\",\"value\":50}"])?;
    answers(&["v1", "v2"], &[])?;
    as_written(&cluster, &["0/weight\",\"value\":100}"])?;
    answers(&["v1"], &[])?;

    as_written(&cluster, &["0/weight\",\"value\":0}"])?;
    as_written(&cluster, &["apply", "blue-green.yaml"])?;
    answers(&["v1"], &[])?;
    as_written(&cluster, &["replace", "0/name", "web-v2"])?;
    answers(&["v2"], &[])?;
    as_written(&cluster, &["replace", "0/name", "web-v1"])?;
    answers(&["v1"], &[])?;

    as_written(&cluster, &["apply", "ab-header.yaml"])?;
    answers(&["v2"], &["-H", "x-version: v2"])?;
    for other in ["x-version: v3", "x-other: v2"] {
        answers(&["v1"], &["-H", other])?;
    }
    as_written(&cluster, &["apply", "ab-cookie.yaml"])?;
    for mine in ["version=v2", "a=b; version=v2", "version=v2; a=b", "a=b; version=v2; c=d"] {
        answers(&["v2"], &["-H", &format!("cookie: {mine}")])?;
    }
    for other in ["version=v1", "version=v22", "subversion=v2", "a=version"] {
        answers(&["v1"], &["-H", &format!("cookie: {other}")])?;
    }
    as_written(&cluster, &["remove"])?;
    answers(&["v2"], &[])
}

/// A client that does not stop, a request every 10 ms, over connections that stay.
fn traffic(cluster: &Cluster) -> Result<Background> {
    let urls = format!("http://{WEB}/[1-1000000]");
    let rate = ["--rate", "100/s", "-m", "10", "-w", "%{http_code}\\n", &urls];
    cluster
        .mesh
        .pod("shop/frontend")
        .spawn(&[&["curl", "-sS", "--no-progress-meter"][..], &rate].concat())
}

/// What it was answered so far.
fn answers(traffic: &Background) -> Vec<String> {
    let log = traffic.log();
    // The first line is the command; the last one may be half of one yet.
    let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
    whole.lines().skip(1).map(str::to_owned).collect()
}

/// The script, in steps of a few seconds.
fn command_line<'w>(flags: &[&'w str]) -> Vec<&'w str> {
    const SCRIPT: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/examples/rollout/rollout --namespace shop --route web --stable web-v1 \
         --canary web-v2 --step-seconds 2 --poll 1 --min-requests 30 --max-wait 60"
    );
    let words = SCRIPT.split(' ').chain(["--steps", "20 60 100"]);
    words.chain(flags.iter().copied()).collect()
}

fn rollout(cluster: &Cluster, flags: &[&str]) -> Result<Seen> {
    cluster.run(&command_line(flags))
}

fn weights(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={.spec.rules[*].backendRefs[*].weight}";
    cluster.kubectl(&["-n", "shop", "get", "httproute", "web", "-o", path])
}

#[test]
fn a_good_version_is_promoted_without_a_request_that_fails() -> Result<()> {
    let cluster = versions("rollout-good")?;
    as_written(&cluster, &["apply", "canary.yaml"])?;
    until_answered_by(&cluster, &["v1", "v2"], &[])?;
    let traffic = traffic(&cluster)?;
    let seen = rollout(&cluster, &["--max-latency", "10"])?;
    ensure!(seen.code == 0, "{seen}\n{}", cluster.mesh.last_words());
    for line in
        ["20 % to web-v2, 80 % to web-v1", "60 % to web-v2", "PROMOTED: all requests to web-v2"]
    {
        assert!(seen.stdout.contains(line), "{seen}");
    }
    assert_eq!(weights(&cluster)?, "0 100");
    let answers = answers(&traffic);
    let failed: Vec<_> = answers.iter().filter(|it| !it.ends_with(" 200")).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for version in ["v1 200", "v2 200"] {
        assert!(answers.iter().any(|it| it == version), "{version} in {answers:?}");
    }
    until_answered_by(&cluster, &["v2"], &[])
}

/// Answers every request after half a second.
const SLOW: &str = "
from http.server import *
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        time.sleep(0.5)
        self.send_response(200)
        self.send_header('content-length', '3')
        self.end_headers()
        self.wfile.write(b'v2 ')
ThreadingHTTPServer(('', int(sys.argv[1])), Handler).serve_forever()
";

#[test]
fn a_bad_version_is_rolled_back_and_says_why() -> Result<()> {
    let cluster = versions("rollout-bad")?;
    as_written(&cluster, &["apply", "canary.yaml"])?;
    until_answered_by(&cluster, &["v1", "v2"], &[])?;
    let traffic = traffic(&cluster)?;
    let next = cluster.mesh.pod("shop/web-v2");
    let rolled_back = |seen: &Seen, code: i32, why: &[&str]| -> Result<()> {
        ensure!(seen.code == code, "{seen}\n{}", cluster.mesh.last_words());
        for words in why.iter().chain(&["ROLLED BACK: all requests to web-v1"]) {
            ensure!(seen.stdout.contains(words), "{words}: {seen}");
        }
        ensure!(!seen.stdout.contains("60 %"), "it went on: {seen}");
        assert_eq!(weights(&cluster)?, "100 0");
        until_answered_by(&cluster, &["v1"], &[])
    };

    // It answers one of three requests with 500.
    next.stop_servers();
    next.serve_nginx(
        8080,
        "if ($request_uri ~ [147]$) { return 500 \"v2 \"; } return 200 \"v2 \";",
    )?;
    rolled_back(&rollout(&cluster, &[])?, 1, &["failed (", "at most 1 % may fail"])?;
    let answers = answers(&traffic);
    assert!(answers.iter().any(|it| it == "v2 500"), "it was tried");
    let others: Vec<_> =
        answers.iter().filter(|it| it.starts_with("v1") && *it != "v1 200").collect();
    assert!(others.is_empty(), "only the new version failed: {others:?}");

    // It answers well, and too late.
    next.stop_servers();
    serve_python(next, 8080, SLOW)?;
    let seen = rollout(&cluster, &["--max-latency", "0.25"])?;
    rolled_back(&seen, 1, &["took longer than 0.25 s", "99 % have to end in that time"])?;

    // Nobody is there.
    next.stop_servers();
    rolled_back(&rollout(&cluster, &[])?, 1, &["at most 1 % may fail"])?;

    // Nobody calls: it cannot be judged.
    drop(traffic);
    next.serve_http(8080, "hello")?;
    let seen = rollout(&cluster, &["--max-wait", "4"])?;
    rolled_back(&seen, 3, &["0 requests, 0 failed", "30 are needed to judge it"])
}

#[test]
fn what_cannot_be_rolled_out_is_refused_and_nothing_is_changed() -> Result<()> {
    let cluster = versions("rollout-refused")?;
    as_written(&cluster, &["apply", "canary.yaml"])?;
    for (flags, why) in [
        (&["--route", "other"][..], "HTTPRoute shop/other cannot be read"),
        (&["--canary", "web-v3"], "no rule of HTTPRoute shop/web has a backend web-v3"),
        (&["--stable", "web-v0"], "needs web-v0 beside it"),
        (&["--agents", "http://127.0.0.1:1/metrics"], "no metrics of an agent can be read"),
        (&["--steps", "50"], "has to be 100"),
    ] {
        let seen = rollout(&cluster, flags)?;
        assert_eq!(seen.code, 2, "{seen}");
        assert!(seen.stderr.contains(why), "{seen}");
    }
    assert_eq!(weights(&cluster)?, "90 10");
    Ok(())
}

#[test]
fn who_intervenes_has_it_rolled_back() -> Result<()> {
    let cluster = versions("rollout-intervention")?;
    as_written(&cluster, &["apply", "canary.yaml"])?;
    until_answered_by(&cluster, &["v1", "v2"], &[])?;
    let traffic = traffic(&cluster)?;
    let started = |log: &str| -> Result<Background> {
        let mut running = cluster.spawn(&command_line(&[]), log)?;
        running.wait_for_line("20 % to web-v2", READY)?;
        Ok(running)
    };
    let rolled_back = |mut running: Background, why: &str| -> Result<()> {
        let code = wait::until("the rollout to end", PATIENCE, || running.ended())?;
        assert_eq!(code, 3, "{}", running.log());
        assert!(running.log().contains(why), "{}", running.log());
        assert_eq!(weights(&cluster)?, "100 0");
        Ok(())
    };
    let running = started("changed")?;
    as_written(&cluster, &["0/weight\",\"value\":50}"])?;
    rolled_back(running, "somebody else has changed it")?;

    let running = started("ended")?;
    running.signal(Signal::TERM)?;
    rolled_back(running, "interrupted")?;
    drop(traffic);
    Ok(())
}
