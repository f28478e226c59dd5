//! `routes` and `routes match` by files.

use super::{Ended, Folder};

fn shop() -> Folder {
    Folder::of(&[("routes.yaml", include_str!("routes.yaml"))])
}

fn asked(folder: &Folder, words: &str) -> Ended {
    let words: Vec<_> = ["routes"].into_iter().chain(words.split(' ')).collect();
    folder.run(&words)
}

#[test]
fn a_service_is_shown_with_what_decides_at_each_port() {
    let folder = shop();
    let ended = asked(&folder, "web -n shop");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "port 80 (http): HTTP (name `http`); 1 of 2 endpoints ready\n",
        "  HTTPRoute desk/web, for clients of namespace desk in place of others\n",
        "    rule canary: path under /api, header canary = 1\n",
        "      to      shop/web:80, 90 %, 1 of 2 endpoints ready\n",
        "      to      shop/web-v2:80, 10 %, no endpoint known\n",
        "      to  nowhere: Service shop/nobody does not exist, 100 %\n",
        "port 9000 (grpc-api): HTTP/2 (name `grpc-api`)",
        "port 7000 (main): not declared (HTTP if a client's first bytes are, else bytes)",
        "port 6379 (redis): bytes (name `redis`)",
        "HTTPRoute shop/beaten  port 9000: Accepted=false Conflicted: ",
        "HTTPRoute shop/lost    port 81: Accepted=false NoMatchingParent: ",
        "HTTPRoute shop/web     port 80: ResolvedRefs=false BackendNotFound: ",
    ] {
        assert!(ended.out.contains(part), "{part:?} in {}", ended.out);
    }
    let json = asked(&folder, "shop/web -o json");
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["ports"][0]["routes"][1]["rules"][1]["backends"][1]["percent"], 10.0);
    assert!(asked(&folder, "web.shop -o yaml").out.starts_with("service: shop/web\n"));
}

#[test]
fn a_request_is_told_which_rule_decides_and_why() {
    let folder = shop();
    for (words, code, parts) in [
        (
            "--service web.shop:80 --path /api/x?a=1",
            0,
            &["sent on as /v1/x?a=1\ndecided by HTTPRoute shop/web rule api: path under /api\n"][..],
        ),
        (
            "--service web.shop:80 --path /api/x --header canary:1",
            0,
            &["rule canary: path under", "is for it too, but it asks for fewer headers\n"],
        ),
        ("--service web.shop:80 --path /old", 0, &["answered with 301 to http://web/new\n"]),
        (
            "--service web.shop:80 --path /old --host a.example",
            0,
            &["answered with 301 to http://a.example/new\n"],
        ),
        ("--service web.shop:80 --path /gone", 1, &["answered with 500: no backend is valid"]),
        ("--service web.shop:80 --path /", 1, &["answered with 404", "not path under /api\n"]),
        (
            "--service web.shop:80 --path / --from desk",
            0,
            &["decided by HTTPRoute desk/web", "routes of the client's namespace desk take"],
        ),
        (
            "--service web.shop:80 --path /api --pod legacy/outside",
            0,
            &["no route: the client is not in the mesh"],
        ),
        (
            "--service web.shop:9000 --grpc shop.Api/Get",
            0,
            &["POST /shop.Api/Get to", "GRPCRoute shop/api rule 0: service = shop.Api\n"],
        ),
        ("--service web.shop:9000 --grpc shop.Other/Get", 1, &["gRPC call with status 12"]),
        ("--service web.shop:6379 --path /", 0, &["no route: the port carries bytes"]),
        ("--service web.shop:7000 --path /", 0, &["no route is for it; to the Service itself"]),
    ] {
        let ended = asked(&folder, &format!("match {words}"));
        assert_eq!(ended.code, Some(code), "{words}: {ended:?}");
        for part in parts {
            assert!(ended.out.contains(part), "{words}: {part:?} in {}", ended.out);
        }
    }
}

#[test]
fn what_cannot_be_answered_says_what_to_do() {
    let folder = shop();
    for (words, says) in [
        ("nobody -n shop", "has no Service shop/nobody: is the name right"),
        ("web", "there is shop/web: name its namespace with -n"),
        ("web.shop:80", "leave `:PORT` out"),
        ("match --service web.shop --path /", "several ports, 80 (http), 9000 (grpc-api)"),
        ("match --service web.shop:81 --path /", "has no TCP port 81; it has 80 (http)"),
        ("match --service web.shop:x --path /", "`x` is no port"),
        ("match --service web.shop:80 --path x", "a path begins with a slash"),
        ("match --service web.shop:80 --path / --header canary", "write 'name: value'"),
        ("match --service web.shop:80 --path / --header Host:a", "write --host"),
        ("match --service web.shop:80 --grpc Get", "write package.Service/Method"),
        ("match --service web.shop:80 --path / --pod a/b", "give its namespace with --from"),
        ("match --service web.shop:80", "--path"),
    ] {
        let ended = asked(&folder, words);
        assert_eq!(ended.code, Some(2), "{words}: {ended:?}");
        assert!(ended.err.contains(says), "{words}: {ended:?}");
        assert_eq!(ended.out, "", "{words}");
    }
}

#[test]
fn connections_are_told_their_route_too() {
    let folder = shop();
    let ended = asked(&folder, "door -n shop");
    for part in [
        "port 443 (https): bytes (a TLSRoute holds); no endpoint known\n  TLSRoute shop/door, for all",
        "    rule 0: server name *.example.com\n      to  shop/web:80, 100 %,",
        "port 80 (http): bytes (a TCPRoute holds)",
        "    rule 0: connections\n",
    ] {
        assert!(ended.out.contains(part), "{part:?} in {}", ended.out);
    }
    for (words, code, part) in [
        (
            "--service door.shop:443 --server-name a.example.com",
            0,
            "carried as bytes\ndecided by TLSRoute shop/door rule 0: server name *.example.com\n",
        ),
        ("--service door.shop:443 --server-name b.test", 1, "reset: no TLSRoute is for b.test\n"),
        ("--service door.shop:443 --path /", 1, "reset: no TLSRoute is for what names no server\n"),
        (
            "--service door.shop:80 --path /",
            0,
            "the share of what is not valid is reset\ndecided by TCPRoute shop/door rule 0: every",
        ),
        ("--service web.shop:7000 --server-name a.test", 0, "no route: TLS is carried as it is"),
        (
            "--service web.shop:80 --server-name a.test",
            1,
            "answered with 400: the port speaks HTTP",
        ),
    ] {
        let ended = asked(&folder, &format!("match {words}"));
        assert_eq!(ended.code, Some(code), "{words}: {ended:?}");
        assert!(ended.out.contains(part), "{words}: {part:?} in {}", ended.out);
    }
}

#[test]
fn a_service_without_ready_endpoints_is_no_way_out() {
    let folder = shop();
    for (words, code, part) in [
        ("--service idle.shop:80 --path /", 1, "connect() is refused (ECONNREFUSED)"),
        ("--service idle.shop:80 --server-name a.test", 1, "connect() is refused"),
        ("--service idle.shop:81 --path /", 1, "answered with 503, since no endpoint is ready"),
        ("--service idle.shop:81 --grpc a.B/C", 1, "as a gRPC call with status 14, since no"),
        ("--service idle.shop:82 --path /", 1, "the port carries bytes; reset, since no endpoint"),
        ("--service idle.shop:81 --path / --from desk", 0, "sent on as /\n"),
        // Of files that are yet to be applied nobody knows the endpoints.
        ("--service web.shop:7000 --path /", 0, "to the Service itself, no endpoint known\n"),
    ] {
        let ended = asked(&folder, &format!("match {words}"));
        assert_eq!(ended.code, Some(code), "{words}: {ended:?}");
        assert!(ended.out.contains(part), "{words}: {part:?} in {}", ended.out);
    }
}

#[test]
fn errors_of_grpc_calls_are_told_as_their_statuses() {
    let folder = shop();
    for (words, part) in [
        ("--grpc shop.Other/Get", "answered as a gRPC call with status 12: "),
        ("--grpc shop.Gone/Get", "answered as a gRPC call with status 14: no backend is valid"),
        ("--grpc shop.Idle/Get", "answered as a gRPC call with status 14, since no endpoint"),
        // What says nothing of gRPC is told as HTTP is.
        ("--path /shop.Gone/Get", "answered with 500: no backend is valid"),
    ] {
        let ended = asked(&folder, &format!("match --service calls.shop {words}"));
        assert_eq!(ended.code, Some(1), "{words}: {ended:?}");
        assert!(ended.out.contains(part), "{words}: {part:?} in {}", ended.out);
    }
}
