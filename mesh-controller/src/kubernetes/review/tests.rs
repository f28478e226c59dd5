//! Tokens that are believed, and those that are not.

use serde_json::{Value, json};

use super::*;

fn token(claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.signature", part(&json!({"alg": "RS256"})), part(claims))
}

#[test]
fn what_a_token_says_of_itself_spares_asking() {
    let good = token(&json!({"aud": [TOKEN_AUDIENCE], "exp": 100}));
    assert_eq!(precheck(&good, 99), Ok(100));
    assert_eq!(precheck(&good, 100), Err(BadToken::Expired));
    let single = token(&json!({"aud": TOKEN_AUDIENCE, "exp": 100}));
    assert_eq!(precheck(&single, 0), Ok(100));
    let other = token(&json!({"aud": ["https://kubernetes.default.svc"], "exp": 100}));
    let expected = BadToken::Audience("https://kubernetes.default.svc".into());
    assert_eq!(precheck(&other, 0), Err(expected));
    for nonsense in ["", "node-1.0011", "a.b.c", "..", &token(&json!({"exp": 1}))] {
        assert_eq!(precheck(nonsense, 0), Err(BadToken::Malformed), "{nonsense}");
    }
}

fn answer(
    authenticated: bool,
    username: &str,
    extra: Value,
    audiences: Value,
) -> TokenReviewStatus {
    serde_json::from_value(json!({
        "authenticated": authenticated,
        "user": {"username": username, "extra": extra},
        "audiences": audiences,
    }))
    .expect("a status")
}

#[test]
fn only_the_agents_account_in_a_pod_is_believed() {
    let agent = "system:serviceaccount:nodemesh-system:mesh-agent";
    let pod = json!({
        "authentication.kubernetes.io/pod-name": ["mesh-agent-x"],
        "authentication.kubernetes.io/pod-uid": ["u-1"],
    });
    let caller =
        judge(answer(true, agent, pod.clone(), json!([TOKEN_AUDIENCE]))).expect("believed");
    assert_eq!(
        (caller.pod.to_string(), &*caller.uid),
        ("nodemesh-system/mesh-agent-x".into(), "u-1")
    );
    assert_eq!(caller.node, None);

    let mut with_node = pod.clone();
    with_node["authentication.kubernetes.io/node-name"] = json!(["node-1"]);
    let caller = judge(answer(true, agent, with_node, json!([TOKEN_AUDIENCE]))).expect("believed");
    assert_eq!(caller.node.as_deref(), Some("node-1"));

    let error = |answer| judge(answer).expect_err("refused");
    assert!(matches!(
        error(answer(false, agent, pod.clone(), json!([TOKEN_AUDIENCE]))),
        BadToken::Refused(_)
    ));
    assert!(matches!(error(answer(true, agent, pod.clone(), json!(null))), BadToken::Audience(_)));
    let other = "system:serviceaccount:default:default";
    assert_eq!(
        error(answer(true, other, pod, json!([TOKEN_AUDIENCE]))),
        BadToken::Account(other.into())
    );
    assert_eq!(error(answer(true, agent, json!({}), json!([TOKEN_AUDIENCE]))), BadToken::Unbound);
}
