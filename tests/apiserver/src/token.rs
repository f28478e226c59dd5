//! Tokens of service accounts: signed, for an audience, for a while.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Who signs, and the audience that the API server itself takes tokens for.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What signs tokens (ES256) and knows which are still good.
pub struct Tokens {
    key: EcdsaKeyPair,
    issued: AtomicU64,
    /// Tokens up to this number have been ended by a test.
    ended: AtomicU64,
}

/// The object that a token is for: it ends with it.
#[derive(Clone, Debug)]
pub struct Bound {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// A token that is good: what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Value);

impl Tokens {
    /// With a key of its own.
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let make = || {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?;
            EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).ok()
        };
        let key = make().context("making a key to sign tokens with")?;
        Ok(Self { key, issued: AtomicU64::new(0), ended: AtomicU64::new(0) })
    }

    /// Signs a token for an account; it and the second at which it ends.
    pub fn issue(
        &self,
        namespace: &str,
        account: &Value,
        audiences: &[String],
        seconds: i64,
        bound: Option<&Bound>,
    ) -> (String, OffsetDateTime) {
        let now = OffsetDateTime::now_utc();
        let end = now + time::Duration::seconds(seconds);
        let name = &account["metadata"]["name"];
        let mut private = json!({
            "namespace": namespace,
            "serviceaccount": { "name": name, "uid": account["metadata"]["uid"] },
        });
        if let Some(bound) = bound {
            private[bound.kind.to_lowercase()] = json!({ "name": bound.name, "uid": bound.uid });
        }
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{}", name.as_str().unwrap_or_default()),
            "aud": audiences,
            "iat": now.unix_timestamp(),
            "nbf": now.unix_timestamp(),
            "exp": end.unix_timestamp(),
            "jti": number.to_string(),
            "kubernetes.io": private,
        });
        (self.sign(&claims), end)
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": "1" })), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.expect("a key of its own and random bytes are all it takes");
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// Checks signature, time and audience; why it is no good.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, String> {
        let malformed = || "invalid bearer token".to_owned();
        let (text, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let signature = decode(signature)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(text.as_bytes(), &signature).map_err(|_| malformed())?;
        let (_, claims) = text.split_once('.').ok_or_else(malformed)?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| malformed())?;

        let now = OffsetDateTime::now_utc().unix_timestamp();
        let number: u64 = claims["jti"].as_str().and_then(|jti| jti.parse().ok()).unwrap_or(0);
        let is_ended = number <= self.ended.load(Ordering::Relaxed);
        if is_ended || claims["exp"].as_i64().is_none_or(|end| end <= now) {
            return Err("[invalid bearer token, service account token has expired]".to_owned());
        }
        let claims = Claims(claims);
        if claims.audiences().iter().any(|audience| audiences.contains(audience)) {
            return Ok(claims);
        }
        Err(format!(
            "[invalid bearer token, token audiences {:?} is invalid for the target audiences {:?}]",
            claims.audiences(),
            audiences
        ))
    }

    /// Ends every token that was issued until now.
    pub fn expire(&self) {
        self.ended.store(self.issued.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Claims {
    pub fn audiences(&self) -> Vec<String> {
        let all = self.0["aud"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn private(&self) -> &Value {
        &self.0["kubernetes.io"]
    }

    pub fn namespace(&self) -> &str {
        self.private()["namespace"].as_str().unwrap_or_default()
    }

    /// Name and uid of the account.
    pub fn account(&self) -> (&str, &str) {
        self.name_and_uid("serviceaccount").unwrap_or_default()
    }

    /// Name and uid of the pod that the token is bound to.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.name_and_uid("pod")
    }

    fn name_and_uid(&self, of: &str) -> Option<(&str, &str)> {
        let of = &self.private()[of];
        Some((of["name"].as_str()?, of["uid"].as_str()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_audience_until_its_end() -> Result<()> {
        let tokens = Tokens::new()?;
        let account = json!({ "metadata": { "name": "web", "uid": "u" } });
        let audience = |name: &str| vec![name.to_owned()];
        let issue = |seconds| tokens.issue("shop", &account, &audience("mesh"), seconds, None).0;
        let (good, old) = (issue(600), issue(0));
        let claims = tokens.verify(&good, &audience("mesh"));
        let claims = claims.map_err(anyhow::Error::msg)?;
        assert_eq!((claims.namespace(), claims.account()), ("shop", ("web", "u")));

        let error =
            |token: &str, of: &str| tokens.verify(token, &audience(of)).err().unwrap_or_default();
        assert!(error(&good, "other").contains("audiences"));
        assert!(error(&old, "mesh").contains("expired"));
        assert_eq!(error(&Tokens::new()?.sign(&claims.0), "mesh"), "invalid bearer token");
        assert_eq!(error("a.b.c", "mesh"), "invalid bearer token");
        tokens.expire();
        assert!(error(&good, "mesh").contains("expired"));
        assert!(tokens.verify(&issue(600), &audience("mesh")).is_ok());
        Ok(())
    }
}
