//! A siege: a pod that somebody has taken over, with NET_ADMIN and NET_RAW in it, and what he is
//! after.
//!
//! The attacker is in shop/batch, which is in the mesh, or in legacy/client, which is not. The
//! prize is what shop/vault says, on the attacker's own node, which is for shop/frontend alone;
//! and a connection to legacy/server, outside the mesh, past the proxy.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use mesh_harness::{
    Mesh, Seen, binaries,
    link::ip,
    mesh::READY,
    objects::{allow, identity},
    wait,
};

use crate::shop;

/// Who is in the mesh gets to the vault, and nobody else even gets an answer to a first packet.
const STRICT: &str = "\
apiVersion: nodemesh.dev/v1alpha1
kind: PeerPolicy
metadata: { name: vault, namespace: shop }
spec:
  selector: { matchLabels: { app: vault } }
  mode: STRICT
";
/// What the vault says.
pub const PRIZE: &str = "the prize";
/// What the server outside the mesh says.
pub const UNMESHED: &str = "unmeshed";
/// Where the vault listens.
pub const PORT: u16 = 8080;
/// Where the server outside the mesh listens.
pub const SERVER_PORT: u16 = 7000;
/// The delivery mark of the proxy, which anybody may read in its source.
pub const DELIVERY_MARK: &str = "1835365224";
/// How often `mesh-raw send` sends the first packet.
pub const TRIES: u64 = 3;
/// What a pod with NET_ADMIN and NET_RAW may do, and nothing else; root by name.
const SETPRIV: [&str; 3] =
    ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw"];

/// Of which kind addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The address that no socket cares for, and its port that none does.
    pub fn any(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0:0",
            Self::V6 => "[::]:0",
        }
    }
}

/// A mesh with an attacker in it.
pub struct Siege(pub Mesh);

impl Siege {
    /// Lays everything out and makes sure that it works for who may.
    pub fn lay(story: &str) -> Result<Self> {
        let mesh = shop(story).pod("node-1", "shop/vault").pod("node-1", "legacy/server");
        let mesh = mesh.lay_out()?;
        mesh.pod("shop/vault")
            .serve_nginx(PORT, &format!("return 200 \"{PRIZE} $remote_addr\";"))?;
        mesh.pod("legacy/server").serve_peer(SERVER_PORT, &["banner", UNMESHED])?;
        let policy = allow("shop/vault-callers", "vault", &[&identity("shop/frontend")]);
        mesh.objects().apply("policy.yaml", &policy)?;
        mesh.objects().apply("strict.yaml", STRICT)?;
        mesh.start_daemons()?;
        let siege = Self(mesh);
        siege.holds()?;
        Ok(siege)
    }

    /// A pod's address.
    pub fn address(&self, pod: &str, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.0.pod(pod).ipv4(),
            Family::V6 => self.0.pod(pod).ipv6(),
        }
    }

    /// A port of a pod.
    pub fn at(&self, pod: &str, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(pod, family), port)
    }

    /// Where the prize is.
    pub fn vault(&self, family: Family) -> SocketAddr {
        self.at("shop/vault", family, PORT)
    }

    /// Outside the mesh.
    pub fn server(&self, family: Family) -> SocketAddr {
        self.at("legacy/server", family, SERVER_PORT)
    }

    /// The prize for curl.
    pub fn url(&self, family: Family) -> String {
        format!("http://{}/", self.vault(family))
    }

    /// Runs a command in a pod, with NET_ADMIN and NET_RAW alone.
    pub fn try_in(&self, pod: &str, command: &[&str]) -> Result<Seen> {
        self.0.pod(pod).run(&[&SETPRIV[..], command].concat())
    }

    /// The same for commands that the attacker may run.
    pub fn run_in(&self, pod: &str, commands: &[&str]) -> Result<()> {
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            self.try_in(pod, &words)?.success()?;
        }
        Ok(())
    }

    /// Opens a connection by hand; what came of it.
    pub fn by_hand(
        &self,
        pod: &str,
        from: SocketAddr,
        to: SocketAddr,
        how: &[&str],
    ) -> Result<String> {
        let command = self.sending(pod, from, to)?;
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        self.try_in(pod, &[&command, how].concat())?.success()
    }

    /// The command that does.
    pub fn sending(&self, pod: &str, from: SocketAddr, to: SocketAddr) -> Result<[String; 6]> {
        let own = self.mac(self.0.pod(pod).place.netns.name(), "eth0")?;
        let node = &self.0.node(&self.0.pod(pod).node).place.netns;
        let gateway = self.mac(node.name(), &self.link(pod)?)?;
        Ok([raw()?, "send".to_owned(), own, gateway, from.to_string(), to.to_string()])
    }

    /// Connects with an ordinary socket with unusual options; what came of it.
    pub fn dial(&self, pod: &str, from: &str, to: SocketAddr, how: &[&str]) -> Result<String> {
        let command = self.dialing(from, to)?;
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        self.try_in(pod, &[&command, how].concat())?.success()
    }

    /// The command that does.
    pub fn dialing(&self, from: &str, to: SocketAddr) -> Result<[String; 4]> {
        Ok([raw()?, "dial".to_owned(), from.to_owned(), to.to_string()])
    }

    /// The node's end of a pod's link.
    pub fn link(&self, pod: &str) -> Result<String> {
        let ipv4 = self.address(pod, Family::V4).to_string();
        let host = ipv4.rsplit('.').next().context("an IPv4 address")?;
        Ok(format!("pod{host}"))
    }

    /// Has the pod's node send it what is for `address`, which its kernel does not know.
    pub fn route_to(&self, pod: &str, address: IpAddr) -> Result<()> {
        let of = self.0.pod(pod);
        let node = self.0.node(&of.node).place.netns.name();
        let (device, mac) = (self.link(pod)?, self.mac(of.place.netns.name(), "eth0")?);
        let length = if address.is_ipv4() { 32 } else { 128 };
        ip(&format!("-n {node} route replace {address}/{length} dev {device}"))?;
        ip(&format!("-n {node} neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
        Ok(())
    }

    /// The address of an interface on its link.
    pub fn mac(&self, netns: &str, interface: &str) -> Result<String> {
        let shown = ip(&format!("-n {netns} -o link show dev {interface}"))?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "link/ether").context("no Ethernet")?;
        Ok(words.next().context("no address")?.to_owned())
    }

    /// A kernel counter of the attacker's node, as the agent read it last.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let (status, _) = self.0.status("node-1")?;
        let value = &status["counters"][name];
        let value = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        value.with_context(|| format!("no counter {name} in {status}"))
    }

    /// Waits until a counter has got to a number: the agent reads them every two seconds.
    pub fn counts_to(&self, name: &str, number: u64) -> Result<()> {
        let mut last = 0;
        let counted = wait::until(&format!("{name} to be {number} or more"), READY, || {
            last = self.counter(name)?;
            Ok((last >= number).then_some(()))
        });
        counted.with_context(|| format!("it is {last}"))
    }

    /// The vault is open to whom it is for and to nobody else, and nobody has been there.
    pub fn holds(&self) -> Result<()> {
        for family in FAMILIES {
            let (frontend, url) = (self.address("shop/frontend", family), self.url(family));
            let seen = self.0.pod("shop/frontend").curl(&url)?;
            ensure!(seen == format!("{PRIZE} {frontend}"), "the frontend hears {seen:?}");
            for pod in ["shop/batch", "legacy/client"] {
                let seen = self.try_in(pod, &["curl", "-sS", "-m", "5", &url])?;
                ensure!(seen.code != 0 && !seen.stdout.contains(PRIZE), "{pod}: {seen}");
            }
        }
        for flow in self.0.flows()? {
            let vault = identity("shop/vault");
            let got_in = flow.has(&[("destination/identity", &vault), ("verdict", "FORWARDED")]);
            let is_frontend = flow.has(&[("source/identity", &identity("shop/frontend"))]);
            ensure!(!got_in || is_frontend, "somebody got in: {flow}");
        }
        Ok(())
    }
}

fn raw() -> Result<String> {
    Ok(binaries::find("mesh-raw")?.to_string_lossy().into_owned())
}

/// Nobody said anything that is not for the attacker.
///
/// # Panics
/// Where somebody did.
pub fn assert_nothing(outcome: &str) {
    assert!(!outcome.contains(PRIZE) && !outcome.contains(UNMESHED), "{outcome}");
}
