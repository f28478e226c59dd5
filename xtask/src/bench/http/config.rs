//! The other proxies' configurations: no access log, connections kept, nothing else than what
//! carries the requests.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use serde_json::{Value, json};

use super::Protocol;

/// The name in every certificate that mesh-bench writes.
const SERVER_NAME: &str = "relay.bench";
/// Threads of each proxy: the cores of the machine that figures are published of.
const THREADS: u32 = 2;

/// A proxy listens here and leads there.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub protocol: Protocol,
    pub listen: SocketAddr,
    pub connect: SocketAddr,
    pub side: Side,
}

/// Where a leg has mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Nowhere,
    /// Towards where it leads.
    Client,
    /// Where it listens.
    Server,
}

impl Side {
    fn name(self) -> &'static str {
        if self == Self::Server { "server" } else { "client" }
    }
}

/// Envoy's bootstrap.
pub fn envoy(legs: &[Leg], certificates: &Path) -> Value {
    let listeners: Vec<Value> = legs.iter().map(|leg| envoy_listener(*leg, certificates)).collect();
    let clusters: Vec<Value> = legs.iter().map(|leg| envoy_cluster(*leg, certificates)).collect();
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

fn envoy_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

fn envoy_name(leg: Leg) -> String {
    leg.listen.to_string()
}

fn envoy_listener(leg: Leg, certificates: &Path) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    });
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": if leg.protocol == Protocol::Grpc { "HTTP2" } else { "HTTP1" },
            "http_filters": [router],
            "route_config": {
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "prefix": "/" },
                        "route": { "cluster": envoy_name(leg) },
                    }],
                }],
            },
        },
    });
    let mut chain = json!({ "filters": [manager] });
    if leg.side == Side::Server {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": envoy_tls(leg, certificates),
            },
        });
    }
    json!({
        "name": envoy_name(leg),
        "address": envoy_address(leg.listen),
        "filter_chains": [chain],
    })
}

fn envoy_cluster(leg: Leg, certificates: &Path) -> Value {
    let mut cluster = json!({
        "name": envoy_name(leg),
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": envoy_name(leg),
            "endpoints": [{
                "lb_endpoints": [{ "endpoint": { "address": envoy_address(leg.connect) } }],
            }],
        },
    });
    if leg.protocol == Protocol::Grpc {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    if leg.side == Side::Client {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": SERVER_NAME,
                "common_tls_context": envoy_tls(leg, certificates),
            },
        });
    }
    cluster
}

fn envoy_tls(leg: Leg, certificates: &Path) -> Value {
    let file = |name: String| json!({ "filename": certificates.join(name) });
    let side = leg.side.name();
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": [alpn(leg)],
        "tls_certificates": [{
            "certificate_chain": file(format!("{side}.crt")),
            "private_key": file(format!("{side}.key")),
        }],
        "validation_context": { "trusted_ca": file("root.crt".to_owned()) },
    })
}

fn alpn(leg: Leg) -> &'static str {
    if leg.protocol == Protocol::Grpc { "h2" } else { "http/1.1" }
}

/// HAProxy's configuration; a side's certificate and key are in one file there.
pub fn haproxy(legs: &[Leg], certificates: &Path) -> String {
    let at = certificates.display();
    let mut text = format!(
        "global\n  nbthread {THREADS}\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\n  http-reuse always\n"
    );
    for (number, leg) in legs.iter().enumerate() {
        let proto = if leg.protocol == Protocol::Grpc { " proto h2" } else { "" };
        let tls = |which: Side| {
            let side = which.name();
            let common = format!(" ssl crt {at}/{side}.pem ca-file {at}/root.crt verify required");
            let named = match which {
                Side::Client => format!(" sni str({SERVER_NAME}) verifyhost {SERVER_NAME}"),
                _ => String::new(),
            };
            let tls = format!("{common}{named} alpn {} ssl-min-ver TLSv1.3", alpn(*leg));
            if leg.side == which { tls } else { String::new() }
        };
        text += &format!(
            "frontend in{number}\n  bind {}{proto}{}\n  default_backend out{number}\n\
             backend out{number}\n  server one {}{proto}{}\n",
            leg.listen,
            tls(Side::Server),
            leg.connect,
            tls(Side::Client),
        );
    }
    text
}

/// nginx's configuration: one process, as that is how it is without its master.
pub fn nginx(legs: &[Leg], certificates: &Path, directory: &Path) -> String {
    let (at, tls) = (directory.display(), certificates.display());
    let mut servers = String::new();
    for (number, leg) in legs.iter().enumerate() {
        let is_grpc = leg.protocol == Protocol::Grpc;
        let (module, scheme) = if is_grpc { ("grpc", "grpc") } else { ("proxy", "http") };
        let mut inside = String::new();
        if !is_grpc {
            inside += "proxy_http_version 1.1; proxy_set_header Connection \"\";\n";
        }
        if leg.side == Side::Client {
            inside += &format!(
                "{module}_ssl_certificate {tls}/client.crt;\n\
                 {module}_ssl_certificate_key {tls}/client.key;\n\
                 {module}_ssl_trusted_certificate {tls}/root.crt;\n{module}_ssl_verify on;\n\
                 {module}_ssl_name {SERVER_NAME};\n{module}_ssl_server_name on;\n\
                 {module}_ssl_protocols TLSv1.3;\n"
            );
        }
        let mut listen = String::new();
        if leg.side == Side::Server {
            listen += " ssl";
            inside += &format!(
                "ssl_certificate {tls}/server.crt;\nssl_certificate_key {tls}/server.key;\n\
                 ssl_client_certificate {tls}/root.crt;\nssl_verify_client on;\n\
                 ssl_protocols TLSv1.3;\n"
            );
        }
        if is_grpc {
            listen += " http2";
        }
        let secure = if leg.side == Side::Client { "s" } else { "" };
        servers += &format!(
            "upstream out{number} {{ server {}; keepalive 64; keepalive_requests 100000000; }}\n\
             server {{\nlisten {}{listen};\n{inside}\
             location / {{ {module}_pass {scheme}{secure}://out{number}; }}\n}}\n",
            leg.connect, leg.listen,
        );
    }
    format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\n\
         keepalive_requests 100000000;\n\
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n{servers}}}\n"
    )
}

/// Envoy's command line.
pub fn envoy_command<'a>(binary: &'a str, config: &'a str) -> Vec<String> {
    let threads = THREADS.to_string();
    let words = [binary, "-c", config, "--concurrency", &threads, "--disable-hot-restart", "-l"];
    words.into_iter().chain(["warn"]).map(str::to_owned).collect()
}

/// An address and a port of it.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
