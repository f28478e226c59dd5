//! What is known to fail fails in connect(), at once and with the errno that it has without a mesh.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects, wait};
use mesh_stories::{WEB, python::python, shop};
use rustix::process::{Pid, Signal, kill_process};

/// What connect() alone says, and how many milliseconds it took.
const CONNECT: &str = "
s = tcp('10.0.0.1')
start = time.monotonic()
code = s.connect_ex(address(sys.argv[1]))
print(errno.errorcode.get(code, 'connected'), int((time.monotonic() - start) * 1000))
";
/// Far more than a refusal takes, far less than any timeout.
const AT_ONCE: u32 = 500;

/// The errno's name, or `connected`.
fn connect(mesh: &Mesh, address: &str) -> Result<String> {
    let seen = python(mesh.pod("shop/frontend"), CONNECT, &[address])?;
    let (answer, milliseconds) = seen.split_once(' ').context("two words")?;
    if answer == "ECONNREFUSED" {
        assert!(milliseconds.parse::<u32>()? < AT_ONCE, "it took {milliseconds} ms");
    }
    Ok(answer.to_owned())
}

fn becomes(mesh: &Mesh, address: &str, wanted: &str) -> Result<()> {
    let mut last = String::new();
    wait::until(&format!("connect() to {address} to say {wanted}"), READY, || {
        last = connect(mesh, address)?;
        Ok((last == wanted).then_some(()))
    })
    .with_context(|| format!("it said {last}; {}", mesh.last_words()))
}

#[test]
fn a_service_without_a_ready_endpoint_refuses() -> Result<()> {
    let mesh = shop("no-endpoint").start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "hello")?;
    let virtual_ip = format!("{WEB}:80");
    assert_eq!(connect(&mesh, &virtual_ip)?, "connected");

    let yaml = objects::service("shop/web", WEB, 80, 8080, &[web]);
    let unready = yaml.replace("ready: true", "ready: false");
    assert_ne!(yaml, unready);
    mesh.objects().apply("service-shop-web.yaml", &unready)?;
    becomes(&mesh, &virtual_ip, "ECONNREFUSED")?;
    let flow = mesh.flow(&[
        ("service", "shop/web"),
        ("reporter", "source"),
        ("source/pod", "shop/frontend"),
        ("verdict", "ERROR"),
    ])?;
    assert!(flow.to_string().contains("no ready endpoint"), "{flow}");

    mesh.objects().apply("service-shop-web.yaml", &yaml)?;
    becomes(&mesh, &virtual_ip, "connected")?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    Ok(())
}

#[test]
fn an_agent_that_is_stuck_refuses_until_it_goes_on_and_one_that_is_dead_as_well() -> Result<()> {
    let mesh = shop("stuck").start()?;
    let web = mesh.pod("shop/web");
    web.serve_http(8080, "hello")?;
    let address = format!("{}:8080", web.ipv4());
    assert_eq!(connect(&mesh, &address)?, "connected");

    let agent = mesh.agent("node-1");
    let pid = Pid::from_raw(i32::try_from(agent.pid().context("it runs")?)?).context("a pid")?;
    kill_process(pid, Signal::STOP)?;
    let outcome = becomes(&mesh, &address, "ECONNREFUSED");
    kill_process(pid, Signal::CONT)?;
    outcome?;
    becomes(&mesh, &address, "connected")?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{address}/"))?, "hello\n");
    let flow = mesh.flow(&[("source/pod", "shop/frontend"), ("verdict", "ERROR")])?;
    assert!(flow.to_string().contains("no sign of life"), "{flow}");

    agent.kill();
    assert_eq!(connect(&mesh, &address)?, "ECONNREFUSED");
    agent.start()?;
    mesh.wait_ready("node-1")?;
    becomes(&mesh, &address, "connected")
}
