//! `nodemesh bypass`: lets pods around the mesh for a while.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use mesh_common::api::v1::{self, bypass_request};

use crate::{
    agents::{self, PATIENCE, Place, Whereabouts},
    output,
};

/// The longest time that agents accept.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Lets pods around the mesh for a while, when the mesh is what is wrong.
///
/// Connections that the pods open and get from now on are not captured: they are neither encrypted
/// nor judged by policies, and no flow tells of them. Those that the proxy carries go on. The agent
/// alone decides, without the controller and, on its own machine, without an API server; it
/// remembers over a restart, and takes the pods back when the time is over. Until then `nodemesh
/// status` shows a problem, and the metric nodemesh_bypassed_pods counts the pods.
///
/// Calls of bypassed pods to strict ones are refused there. Pods that are strict themselves, or that
/// policies govern, need --insecure: whoever reaches their address may call them meanwhile.
///
/// Exit status: 0 where it was done, 1 where not, 2 for wrong usage.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    whereabouts: Whereabouts,
    #[command(flatten)]
    scope: Scope,
    /// How long, such as 30m or 1h30m, at most 24h; a new time replaces an earlier one
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, required_unless_present = "end")]
    lasting: Option<Duration>,
    /// End it now
    #[arg(long, conflicts_with_all = ["lasting", "insecure"])]
    end: bool,
    /// Also pods that are strict or that policies govern
    #[arg(long)]
    insecure: bool,
}

/// Which pods.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Scope {
    /// One pod
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod)]
    pod: Option<(String, String)>,
    /// The pods of a namespace, those to come as well
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Every pod of this machine, or of this node of the cluster
    #[arg(long, value_name = "NODE", num_args = 0..=1)]
    node: Option<Option<String>>,
}

/// Runs the command.
///
/// # Errors
/// Where no agent is found, or none could do it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = agents::runtime().context("cannot start")?;
    let (mut done, mut refused, mut unknown) = (false, Vec::new(), Vec::new());
    let answers = runtime.block_on(async {
        let places = args.places().await?;
        let ask = |place| {
            let request = args.request();
            async move { ask(&place, request).await }
        };
        anyhow::Ok(agents::each(places, ask).await)
    })?;
    for answer in answers {
        match answer {
            Ok(Answer::Done(answer)) => {
                done = true;
                output::print(&args.said(&answer))?;
            }
            // Each agent has pods of its own.
            Ok(Answer::Unknown(reason)) => unknown.push(reason),
            Err(error) => refused.push(format!("{error:#}")),
        }
    }
    if !done && refused.is_empty() {
        refused = unknown;
    }
    for reason in &refused {
        eprintln!("nodemesh: {reason}");
    }
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    /// The agents to tell. One word is not to let a whole cluster around the mesh.
    async fn places(&self) -> anyhow::Result<Vec<Place>> {
        let node = self.scope.node.as_ref();
        let places = self.whereabouts.find(node.and_then(Option::as_deref)).await?;
        if matches!(node, Some(None)) && places.iter().any(|it| matches!(it, Place::Pod { .. })) {
            bail!("--node: which node of the cluster? write --node NODE");
        }
        Ok(places)
    }

    fn request(&self) -> v1::BypassRequest {
        let Scope { pod, namespace, node: _ } = &self.scope;
        let scope = match (pod.clone(), namespace) {
            (Some((namespace, name)), _) => {
                bypass_request::Scope::Pod(v1::NamespacedName { namespace, name })
            }
            (None, Some(namespace)) => bypass_request::Scope::Namespace(namespace.clone()),
            (None, None) => bypass_request::Scope::Node(true),
        };
        v1::BypassRequest {
            scope: Some(scope),
            seconds: self.lasting.map_or(0, |lasting| lasting.as_secs()),
            insecure: self.insecure,
        }
    }

    fn said(&self, answer: &v1::BypassResponse) -> String {
        let v1::BypassResponse { node, pods, until } = answer;
        if self.end {
            return format!("{node}: the bypass has ended; its pods come back into the mesh\n");
        }
        let until = output::timestamp(until.saturating_mul(1_000_000_000));
        let mut text = format!("{node}: bypasses the mesh until {until}\n");
        for pod in pods {
            text += &format!("  {}/{}\n", pod.namespace, pod.name);
        }
        text
    }
}

/// What an agent made of the request.
enum Answer {
    Done(v1::BypassResponse),
    /// It knows no such pods.
    Unknown(String),
}

async fn ask(place: &Place, request: v1::BypassRequest) -> anyhow::Result<Answer> {
    let mut agent = place.connect().await?;
    match tokio::time::timeout(PATIENCE, agent.bypass(request)).await {
        Ok(Ok(answer)) => Ok(Answer::Done(answer.into_inner())),
        Ok(Err(status)) => match status.code() {
            tonic::Code::NotFound => Ok(Answer::Unknown(status.message().to_owned())),
            tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
                bail!("{}", status.message())
            }
            tonic::Code::Unimplemented => {
                bail!("{place} is older than this command: upgrade it")
            }
            _ => bail!("{place} says: {}", status.message()),
        },
        Err(_) => bail!("{place} does not answer; look at its log"),
    }
}

fn pod(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => bail!("write NAMESPACE/POD"),
    }
}

/// Hours, minutes and seconds, each a number with its unit.
fn duration(text: &str) -> anyhow::Result<Duration> {
    const HOW: &str = "write a number with h, m or s, such as 30m or 1h30m";
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).context(HOW)?;
        let (number, unit) = rest.split_at(end);
        let number: u64 = number.parse().context(HOW)?;
        let unit_seconds = match unit.chars().next() {
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => bail!(HOW),
        };
        seconds = seconds.saturating_add(number.saturating_mul(unit_seconds));
        rest = &unit[1..];
    }
    ensure!(seconds > 0, HOW);
    let longest = LONGEST.as_secs();
    ensure!(seconds <= longest, "at most 24h; take pods out of the mesh by their labels instead");
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, String> {
        let cli = Cli::try_parse_from(["bypass"].iter().chain(words));
        cli.map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_those_that_people_write() -> anyhow::Result<()> {
        for (text, seconds) in [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("24h", 86400)] {
            assert_eq!(duration(text)?, Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "30", "m", "0s", "-5m", "1.5h", "30 m", "1d", "5m3", "9é", "24h1s"] {
            duration(text).expect_err(text);
        }
        assert!(duration("25h").expect_err("too long").to_string().contains("at most 24h"));
        let huge = format!("{}h", u64::MAX);
        duration(&huge).expect_err("too long");
        Ok(())
    }

    #[test]
    fn a_request_is_about_one_scope_and_begins_or_ends() {
        let asked = parse(&["--pod", "shop/web", "--for", "30m"]).expect("good").request();
        let pod = v1::NamespacedName { namespace: "shop".into(), name: "web".into() };
        assert_eq!(asked.scope, Some(bypass_request::Scope::Pod(pod)));
        assert_eq!((asked.seconds, asked.insecure), (1800, false));
        let asked = parse(&["-n", "shop", "--for", "1h", "--insecure"]).expect("good").request();
        assert_eq!(asked.scope, Some(bypass_request::Scope::Namespace("shop".into())));
        assert!(asked.insecure);
        let asked = parse(&["--node", "--end"]).expect("good").request();
        assert_eq!((asked.scope, asked.seconds), (Some(bypass_request::Scope::Node(true)), 0));
        for (wrong, why) in [
            (&["--for", "30m"][..], "required"),
            (&["--node"], "--for"),
            (&["--node", "--pod", "a/b", "--for", "1m"], "cannot be used with"),
            (&["--node", "--end", "--for", "1m"], "cannot be used with"),
            (&["--pod", "web", "--for", "1m"], "write NAMESPACE/POD"),
            (&["--node", "--for", "soon"], "such as 30m"),
        ] {
            let error = parse(wrong).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
