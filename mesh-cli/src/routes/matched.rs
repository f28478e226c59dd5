//! `nodemesh routes match`: which rule decides over a request, and why no other does.

use anyhow::{Context, ensure};
use http::{HeaderValue, Method, header::CONTENT_TYPE, uri::PathAndQuery};
use mesh_common::{
    matching::{
        protocol,
        route::{Request, path},
    },
    model::NamespacedName,
};
use serde::Serialize;

use super::{
    Format,
    judged::Asked,
    request,
    seen::{Objects, Seen},
    shown::{Out, Rule},
    table,
};

/// A request that nobody has sent.
#[derive(Debug, clap::Args)]
pub struct Question {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, and :PORT where it has
    /// several
    #[arg(long, value_name = "SERVICE[:PORT]")]
    service: String,
    /// The namespace of names that have none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The path, perhaps with a query
    #[arg(
        long, value_name = "PATH", conflicts_with = "grpc",
        required_unless_present_any = ["grpc", "server_name"]
    )]
    path: Option<String>,
    /// A call of gRPC: POST, with its content-type
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with = "method")]
    grpc: Option<String>,
    /// The server that a TLS client asks for, which TLSRoutes go by
    #[arg(long, value_name = "NAME", conflicts_with_all = ["path", "grpc"])]
    server_name: Option<String>,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header, `name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// The host, which no route of a mesh asks for; redirects keep it [default: the Service's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The namespace of the client [default: that of the Service]
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "pod")]
    from: Option<String>,
    /// The client: its namespace counts, and whether it is in the mesh
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    pod: Option<String>,
    #[command(flatten)]
    objects: Objects,
    /// How the answer is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// What becomes of a request.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The request, for people.
    pub request: String,
    /// Whose objects say so.
    pub source: String,
    /// The namespace of the client.
    pub client_namespace: String,
    /// What the port speaks, and what says so.
    pub protocol: String,
    /// What becomes of it, in a sentence.
    pub outcome: String,
    /// Whether the proxy answers it with an error.
    pub error: bool,
    /// The route that decides: kind, namespace and name.
    pub route: Option<String>,
    /// The match that decides.
    pub matched: Option<String>,
    /// The rule that decides.
    pub rule: Option<Rule>,
    /// The other matches, in the order in which they are asked, and why they do not decide.
    pub others: Vec<Other>,
    /// Routes that are attached and not for this client, or refused.
    pub out: Vec<Out>,
}

/// A match that does not decide.
#[derive(Debug, Serialize)]
pub struct Other {
    /// Kind, namespace and name of its route.
    pub route: String,
    /// The name or index of its rule.
    pub rule: String,
    /// What it asks for.
    pub matched: String,
    /// Why it does not decide.
    pub reason: String,
}

impl Question {
    /// Whether the request gets somewhere, and what is to be printed.
    ///
    /// # Errors
    /// Where the question makes no sense, or nobody is there to answer.
    pub fn answer(&self) -> anyhow::Result<(bool, String)> {
        let (name, port) =
            request::service_name(&self.service, &self.namespace).context("--service")?;
        let target = match (&self.grpc, &self.path) {
            (Some(call), _) => {
                let is_call = path::grpc(&format!("/{call}"))
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
                ensure!(is_call, "--grpc `{call}`: write package.Service/Method");
                request::path(&format!("/{call}"))?
            }
            (None, Some(path)) => request::path(path)?,
            (None, None) => PathAndQuery::from_static("/"),
        };
        let mut headers = request::headers(&self.headers)?;
        let mut method = request::method(&self.method)?;
        if self.grpc.is_some() {
            method = Method::POST;
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
        }
        let seen = self.objects.look()?;
        let service = seen.service(&name)?;
        let port = request::port(service, port)?;
        let (client, is_outside) = self.client(&seen, &name)?;
        let request = Request {
            method: &method,
            path: target.path(),
            query: target.query(),
            headers: &headers,
        };
        let host = self.host.clone().unwrap_or_else(|| format!("{}:{}", name.name, port.port));
        let server_name = self.server_name.as_deref();
        let (client, host, target) = (&*client, &*host, &target);
        let is_grpc = protocol::is_grpc(&headers);
        let asked = Asked { service: &name, port, client, host, target, server_name, is_grpc };
        let answer = asked.answer(&seen, request, is_outside);
        Ok((!answer.error, self.output.print(&answer, table::matched)?))
    }

    /// The client's namespace, and whether it is a pod outside the mesh.
    fn client(&self, seen: &Seen, service: &NamespacedName) -> anyhow::Result<(String, bool)> {
        let Some(pod) = &self.pod else {
            let namespace = self.from.as_deref().unwrap_or(&service.namespace);
            return Ok((namespace.to_owned(), false));
        };
        let (namespace, name) = pod.split_once('/').unwrap_or((&self.namespace, pod));
        let workload = seen.compiled.workload(&NamespacedName::new(namespace, name));
        let workload = workload.with_context(|| {
            format!(
                "--pod: {} has no running pod {namespace}/{name}; where it is yet to run, give its \
                 namespace with --from",
                seen.source
            )
        })?;
        Ok((namespace.to_owned(), !workload.enrolled))
    }
}
