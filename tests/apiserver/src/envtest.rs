//! A real kube-apiserver with its etcd, from the folder that envtest calls KUBEBUILDER_ASSETS: on
//! loopback ports, with all that it keeps in a folder of the test's. No controller runs beside it.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::pki::{Authority, Identity, kubeconfig};

/// A start takes some seconds; other tests want the machine, too.
const START: Duration = Duration::from_secs(120);

/// The running programs; dropping it ends them.
pub struct Envtest {
    kubeconfig: PathBuf,
    /// In the order in which they end.
    children: Vec<Child>,
}

impl Envtest {
    /// Starts `etcd` and `kube-apiserver` of the folder `assets`; `directory` has their files, and
    /// `admin.kubeconfig` of an administrator.
    pub fn start(assets: &Path, directory: &Path) -> Result<Self> {
        let [client, peer, secure] = ports()?;
        let kubeconfig = write_files(directory, secure)?;
        let mut this = Self { kubeconfig, children: Vec::new() };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = [
            format!("--data-dir={}", directory.join("etcd").display()),
            format!("--listen-client-urls={}", url(client)),
            format!("--advertise-client-urls={}", url(client)),
            format!("--listen-peer-urls={}", url(peer)),
            // What is lost with the machine is lost with the test.
            "--unsafe-no-fsync".to_owned(),
        ];
        this.spawn(assets, "etcd", &etcd, directory)?;
        this.wait(client, "etcd", directory)?;
        let file = |name: &str| directory.join(name).display().to_string();
        let server = [
            format!("--etcd-servers={}", url(client)),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={secure}"),
            format!("--cert-dir={}", directory.display()),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", file("server.crt")),
            format!("--service-account-signing-key-file={}", file("server.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // No controller makes the accounts that it would ask for.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        this.spawn(assets, "kube-apiserver", &server, directory)?;
        this.wait(secure, "kube-apiserver", directory)?;
        Ok(this)
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn spawn(
        &mut self,
        assets: &Path,
        name: &str,
        arguments: &[String],
        logs: &Path,
    ) -> Result<()> {
        let program = assets.join(name);
        let log = File::create(logs.join(format!("{name}.log")))?;
        let child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| {
            format!("{}: KUBEBUILDER_ASSETS is to name a folder with it", program.display())
        })?;
        self.children.insert(0, child);
        Ok(())
    }

    /// Waits until the child that was started last listens.
    fn wait(&mut self, port: u16, name: &str, logs: &Path) -> Result<()> {
        let end = Instant::now() + START;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while TcpStream::connect(address).is_err() {
            let is_over = match self.children.first_mut() {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if is_over || Instant::now() > end {
                let log = fs::read_to_string(logs.join(format!("{name}.log"))).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("{name} does not listen at {address}; its log ends with:\n{last}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Envtest {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended by itself is all right, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that were free a moment ago.
fn ports() -> Result<[u16; 3]> {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All are held until each is known.
    let listeners = [any()?, any()?, any()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn write_files(directory: &Path, port: u16) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let authority = Authority::new()?;
    let server = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    let admin = authority.client("admin", &["system:masters"])?;
    let address = format!("127.0.0.1:{port}");
    let certificate = authority.certificate();
    let config = kubeconfig(&address, &certificate, &Identity::Certificate(&admin));
    let path = directory.join("admin.kubeconfig");
    for (name, text) in [
        ("ca.crt", &certificate),
        ("server.crt", &server.certificate),
        ("server.key", &server.key),
        ("admin.kubeconfig", &config),
    ] {
        fs::write(directory.join(name), text)?;
    }
    Ok(path)
}
