//! The certificate authority of a cluster: a Secret that all controllers sign with (`tls.crt`,
//! `tls.key`, and `ca.crt` where the first is no root), and a ConfigMap that tells agents whom to
//! believe.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use mesh_common::{
    SYSTEM_NAMESPACE,
    identity::TrustDomain,
    names::{CA_SECRET, TRUST_BUNDLE, TRUST_BUNDLE_KEY},
};

use super::{ApiError, Verb, backoff::Backoff, health::Health};
use crate::ca::{Authority, CaError, Supplied};

const SECRET_NAME: &str = "secrets/nodemesh-ca in nodemesh-system";
const BUNDLE_NAME: &str = "configmaps/nodemesh-trust-bundle in nodemesh-system";
/// How often the Secret is read again: cert-manager renews it a third of its life ahead.
const AGAIN: Duration = Duration::from_secs(60);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The API server does not give it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What it gives is of no use.
    #[error(
        "Secret {SYSTEM_NAMESPACE}/{CA_SECRET}: {0}; correct it, or delete it to have a new root made"
    )]
    Content(#[from] CaError),
}

/// Opens and keeps the authority.
#[derive(Clone)]
pub struct Keeper {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl Keeper {
    /// Asks through `client`.
    pub fn new(client: Client) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), SYSTEM_NAMESPACE),
            config_maps: Api::namespaced(client, SYSTEM_NAMESPACE),
        }
    }

    /// The authority of the Secret, made where there is none, and its bundle published. Waits for
    /// the API server as long as it takes.
    ///
    /// # Errors
    /// Where the Secret holds what cannot be used.
    pub async fn open(
        &self,
        health: &Health,
        trust_domain: TrustDomain,
        svid_lifetime: Duration,
    ) -> Result<Authority, CaError> {
        health.expect(SECRET_NAME);
        let mut backoff = Backoff::default();
        loop {
            let error = match self.supplied(&trust_domain).await {
                Ok(supplied) => {
                    let authority =
                        Authority::of_supplied(supplied, trust_domain.clone(), svid_lifetime)?;
                    match self.publish(&authority).await {
                        Ok(()) => {
                            health.is_well(SECRET_NAME, None);
                            health.listed(SECRET_NAME, 1);
                            return Ok(authority);
                        }
                        Err(error) => error,
                    }
                }
                Err(OpenError::Api(error)) => error,
                Err(OpenError::Content(error)) => return Err(error),
            };
            health.is_well(SECRET_NAME, Some(&error));
            tokio::time::sleep(backoff.next(Duration::ZERO, error.retry_after())).await;
        }
    }

    /// Takes renewed certificates and published roots, for ever.
    pub async fn keep(&self, health: &Health, authority: &Arc<Authority>) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(AGAIN.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            let result = self.renew(authority).await;
            let new = match result {
                Ok(()) => {
                    health.is_well(SECRET_NAME, None);
                    None
                }
                Err(OpenError::Api(error)) => {
                    health.is_well(SECRET_NAME, Some(&error));
                    continue;
                }
                Err(error @ OpenError::Content(_)) => Some(error.to_string()),
            };
            if let Some(text) = new.as_ref().filter(|new| complaint.as_ref() != Some(*new)) {
                tracing::error!("{text}; the certificates known before stay in use");
            }
            complaint = new;
        }
    }

    async fn renew(&self, authority: &Authority) -> Result<(), OpenError> {
        // One that was deleted is not made anew while its root is in use everywhere.
        let Some(secret) = self.read().await? else { return Ok(()) };
        if authority.replace(supplied(secret)?)? {
            tracing::info!("the certificate authority was renewed from its Secret");
        }
        Ok(self.publish(authority).await?)
    }

    /// What the Secret holds. Of several controllers that find none, the API server lets one make
    /// it, and the others read what that one made.
    async fn supplied(&self, trust_domain: &TrustDomain) -> Result<Supplied, OpenError> {
        loop {
            if let Some(secret) = self.read().await? {
                return Ok(supplied(secret)?);
            }
            let (crt, key) = Supplied::generate(trust_domain)?;
            let data = [("tls.crt", crt.clone()), ("tls.key", key), ("ca.crt", crt)];
            let data = data.map(|(key, pem)| (key.to_owned(), ByteString(pem.into_bytes())));
            let secret = Secret {
                metadata: metadata(CA_SECRET),
                type_: Some("kubernetes.io/tls".to_owned()),
                data: Some(data.into()),
                ..Secret::default()
            };
            match self.secrets.create(&PostParams::default(), &secret).await {
                Ok(_) => tracing::info!("Secret {SYSTEM_NAMESPACE}/{CA_SECRET} made: a new root"),
                Err(error) => match ApiError::new(Verb::Create, SECRET_NAME, &error) {
                    ApiError::Conflict { .. } => {}
                    error => return Err(error.into()),
                },
            }
        }
    }

    async fn read(&self) -> Result<Option<Secret>, ApiError> {
        let secret = self.secrets.get_opt(CA_SECRET).await;
        secret.map_err(|error| ApiError::new(Verb::Get, SECRET_NAME, &error))
    }

    async fn publish(&self, authority: &Authority) -> Result<(), ApiError> {
        let failed = |verb| move |error: kube::Error| ApiError::new(verb, BUNDLE_NAME, &error);
        let pem = |certificate: rustls_pki_types::CertificateDer<'_>| {
            let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
            pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), config)
        };
        let bundle: String = authority.trust_bundle().into_iter().map(pem).collect();
        let parameters = PostParams::default();
        loop {
            let known = self.config_maps.get_opt(TRUST_BUNDLE).await.map_err(failed(Verb::Get))?;
            let mut new = known.unwrap_or_else(|| ConfigMap {
                metadata: metadata(TRUST_BUNDLE),
                ..ConfigMap::default()
            });
            let data = new.data.get_or_insert_default();
            if data.insert(TRUST_BUNDLE_KEY.to_owned(), bundle.clone()).as_ref() == Some(&bundle) {
                return Ok(());
            }
            let written = match new.metadata.resource_version {
                None => self.config_maps.create(&parameters, &new).await,
                Some(_) => self.config_maps.replace(TRUST_BUNDLE, &parameters, &new).await,
            };
            let verb = match new.metadata.resource_version {
                None => Verb::Create,
                Some(_) => Verb::Update,
            };
            match written.map_err(failed(verb)) {
                Ok(_) => return Ok(()),
                // Another controller was first, and most likely wrote the same.
                Err(ApiError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn supplied(secret: Secret) -> Result<Supplied, CaError> {
    let data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
    let part = |key: &str| data.get(key).map(|bytes| bytes.0.as_slice());
    let (crt, key) = (part("tls.crt").unwrap_or_default(), part("tls.key").unwrap_or_default());
    Ok(Supplied::parse(crt, key, part("ca.crt").filter(|ca| !ca.is_empty()))?)
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(SYSTEM_NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    }
}
