//! Each capability of the agent's manifest is needed: what it is for is refused without it, though
//! all the others are there.

#[path = "support/world.rs"]
mod world;

use std::{
    env,
    fs::File,
    path::Path,
    process::{Child, Command},
};

use mesh_agent::capture::{netns::Netns, routing};
use world::{World, eventually};

/// The netns to work on and the process to look at, for the half of the test that has few rights.
const NETNS: &str = "NODEMESH_TEST_NETNS";
const PROCESS: &str = "NODEMESH_TEST_PROCESS";
/// What is done.
const ACT: &str = "NODEMESH_TEST_ACT";

/// A capability, and something that the agent cannot do without.
const NEEDS: [(&str, &str); 3] =
    [("net_admin", "route"), ("sys_admin", "enter"), ("sys_ptrace", "open")];

fn act(act: &str) -> Result<(), String> {
    let netns =
        || Netns::open(Path::new(&env::var(NETNS).expect("set"))).map_err(|it| it.to_string());
    match act {
        "route" => {
            routing::add(&netns()?, &[[10, 99, 0, 1].into()]).map(drop).map_err(|it| it.to_string())
        }
        "enter" => netns().map(drop),
        _ => File::open(env::var(PROCESS).expect("set")).map(drop).map_err(|it| it.to_string()),
    }
}

/// A process of another user than root, as containers have.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_capability_is_superfluous() {
    if let Ok(what) = env::var(ACT) {
        act(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
        return;
    }
    let world = World::new();
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "sleep", "100"])
        .spawn()
        .expect("setpriv of util-linux");
    let stranger = Stranger(stranger);
    let pid = stranger.0.id();
    eventually("the stranger is one", || {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(b"sleep\0")
    });
    let succeeds = |what: &str, without: Option<&str>| {
        let kept = NEEDS.iter().filter(|(name, _)| Some(*name) != without);
        let kept: String = kept.map(|(name, _)| format!(",+{name}")).collect();
        Command::new("setpriv")
            .args(["--no-new-privs", &format!("--bounding-set=-all{kept}")])
            .arg(env::current_exe().expect("this test"))
            .args(["--exact", "no_capability_is_superfluous"])
            .env(ACT, what)
            .env(NETNS, Path::new("/run/netns").join(world.netns_name("a")))
            .env(PROCESS, format!("/proc/{pid}/ns/net"))
            .output()
            .expect("setpriv of util-linux")
            .status
            .success()
    };
    for (capability, what) in NEEDS {
        assert!(succeeds(what, None), "{what} with all");
        assert!(!succeeds(what, Some(capability)), "{what} without {capability}");
    }
    let manifest = include_str!("../../deploy/base/agent.yaml");
    for line in manifest.lines().skip_while(|line| line.trim() != "add:").skip(1) {
        match line.trim().split_at_checked(2) {
            Some(("- ", name)) => {
                let is_known = NEEDS.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
                assert!(is_known, "nothing shows what {name} is for");
            }
            Some(("# ", _)) => {}
            _ => break,
        }
    }
}
