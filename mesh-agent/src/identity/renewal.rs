//! Getting certificates and renewing them, at half of their life, for as long as they are wanted.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_common::identity::SpiffeId;
use rustls::pki_types::CertificateDer;
use tokio::{sync::watch, time::Instant};

use super::{
    Certificates, IdentityError,
    certificate::{CertificateProblem, SigningRequest, Svid},
};
use crate::backoff::{Backoff, fraction};

/// The first wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after failures. A day of life leaves hundreds of tries.
const RETRY_CAP: Duration = Duration::from_secs(60);
/// The longest sleep: wall clocks are set, and suspended machines wake up.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Someone who signs certificates.
pub trait Authority: Send + Sync {
    /// Has `csr` (PKCS #10, DER) signed.
    fn sign(&self, csr: Vec<u8>) -> impl Future<Output = Result<Signed, IdentityError>> + Send;
}

/// What an authority gives back.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The chain, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots to trust.
    pub trust_bundle: Vec<CertificateDer<'static>>,
}

impl Certificates {
    /// Has a certificate for `id` signed by `authority`, if there is none or it is to be renewed.
    ///
    /// # Errors
    /// Where the authority refuses or its answer is of no use. An old certificate stays in use
    /// until it ends.
    pub async fn ensure(
        self: &Arc<Self>,
        authority: &impl Authority,
        id: &SpiffeId,
    ) -> Result<(), IdentityError> {
        if SystemTime::now() < self.renew_at(id) {
            return Ok(());
        }
        let result = self.renew(authority, id).await;
        match &result {
            Ok(()) => tracing::info!(%id, "has a new certificate"),
            Err(error) => self.fail(id, error),
        }
        result
    }

    async fn renew(
        self: &Arc<Self>,
        authority: &impl Authority,
        id: &SpiffeId,
    ) -> Result<(), IdentityError> {
        let request = SigningRequest::new(id)?;
        let signed = authority.sign(request.csr.clone()).await?;
        let svid = request.complete(signed.chain)?;
        if svid.identity() != id {
            let presented = svid.identity().clone();
            return Err(
                CertificateProblem::OtherIdentity { expected: id.clone(), presented }.into()
            );
        }
        let certificates = Arc::clone(self);
        let installed =
            tokio::task::spawn_blocking(move || certificates.install(svid, signed.trust_bundle));
        installed.await.map_err(|error| IdentityError::Authority(error.to_string()))?
    }
}

/// Keeps `certificates` those of `wanted`, which is `None` until that is known. Whenever `retry`
/// changes, what failed is tried again at once.
pub async fn keep(
    certificates: Arc<Certificates>,
    authority: impl Authority,
    mut wanted: watch::Receiver<Option<BTreeSet<SpiffeId>>>,
    mut retry: watch::Receiver<u64>,
) {
    let mut waits: HashMap<SpiffeId, (Backoff, Instant)> = HashMap::new();
    loop {
        let ids = wanted.borrow_and_update().clone();
        if let Some(ids) = &ids {
            certificates.retain(ids);
            waits.retain(|id, _| ids.contains(id));
        }
        for id in ids.iter().flatten() {
            if waits.get(id).is_some_and(|(_, until)| Instant::now() < *until) {
                continue;
            }
            if let Err(error) = certificates.ensure(&authority, id).await {
                let first = || (Backoff::new(RETRY_FIRST, RETRY_CAP), Instant::now());
                let (backoff, until) = waits.entry(id.clone()).or_insert_with(first);
                let wait = backoff.wait();
                *until = Instant::now() + wait;
                tracing::warn!(%id, %error, ?wait, "cannot get a certificate; will try again");
            } else {
                waits.remove(id);
            }
        }
        let sleep = next_sleep(&certificates, ids.iter().flatten(), &waits);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            Ok(()) = retry.changed() => waits.clear(),
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// When `svid` is to be renewed: at half of its life, give or take a twentieth.
pub(super) fn renew_at(svid: &Svid) -> SystemTime {
    svid.at_fraction_of_life(0.45 + fraction() / 10.0)
}

fn next_sleep<'a>(
    certificates: &Certificates,
    ids: impl Iterator<Item = &'a SpiffeId>,
    waits: &HashMap<SpiffeId, (Backoff, Instant)>,
) -> Duration {
    let now = SystemTime::now();
    let until = |id: &SpiffeId| match waits.get(id) {
        Some((_, until)) => until.saturating_duration_since(Instant::now()),
        None => certificates.renew_at(id).duration_since(now).unwrap_or_default(),
    };
    ids.map(until).fold(LONGEST_SLEEP, Duration::min)
}
