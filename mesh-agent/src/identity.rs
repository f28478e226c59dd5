//! Who the pods of this node are: their keys and certificates (SVIDs), and the TLS configurations
//! made of them.
//!
//! Configurations are cached, and made anew when a certificate is renewed or the trust bundle
//! changes. TLS sessions are never resumed: a resumed session would carry the peer certificate of
//! an earlier handshake, which may have expired, or whose root may be gone from the bundle, since.
//! Tunnels are pooled, so full handshakes are rare anyway.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use mesh_common::identity::SpiffeId;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::CertificateDer};
use tokio::sync::watch;

pub mod certificate;
pub mod renewal;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod verify;

pub use certificate::{CertificateProblem, Svid, peer_identity, trusted_until};
pub use store::Store;
pub use verify::{PeerRefused, peer_refused};

/// Why there is no (new) certificate for an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority refused.
    #[error("{0}")]
    Authority(String),
    /// The authority was not asked, or did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The authority's answer cannot be used.
    #[error("the controller's answer cannot be used: {0}")]
    Answer(#[from] CertificateProblem),
    /// No key or request could be made.
    #[error("cannot make a key and a signing request: {0}")]
    Request(#[from] rcgen::Error),
    /// A TLS configuration could not be made.
    #[error("cannot make a TLS configuration of the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why an identity has no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCertificate {
    /// For people.
    pub reason: String,
    /// Whether it was refused for a reason of its own, so that waiting alone will not help.
    pub is_refused: bool,
}

/// A certificate as status and metrics show it.
#[derive(Clone, Debug)]
pub struct CertificateState {
    /// Whose it is.
    pub identity: SpiffeId,
    /// Its serial number, hexadecimal; `None` where there is no certificate yet.
    pub serial: Option<String>,
    /// When it ends.
    pub not_after: Option<SystemTime>,
    /// Why the last attempt to get or renew it failed.
    pub failure: Option<String>,
    /// Whether it failed to be renewed for so long that someone has to look: it is missing, or
    /// less than a quarter of its life is left.
    pub alarming: bool,
}

/// The certificates of this node's pods and the roots that it trusts.
#[derive(Debug)]
pub struct Certificates {
    state: RwLock<State>,
    store: Option<Store>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<SpiffeId, Held>,
    failures: BTreeMap<SpiffeId, NoCertificate>,
    bundle: Bundle,
}

#[derive(Debug)]
struct Bundle {
    roots: Arc<RootCertStore>,
    /// Sorted, each once.
    certificates: Vec<CertificateDer<'static>>,
    generation: u64,
}

impl Default for Bundle {
    fn default() -> Self {
        let roots = Arc::new(RootCertStore::empty());
        Self { roots, certificates: Vec::new(), generation: 0 }
    }
}

#[derive(Debug)]
struct Held {
    svid: Svid,
    renew_at: SystemTime,
    server: Arc<ServerConfig>,
    clients: HashMap<SpiffeId, Arc<ClientConfig>>,
}

impl Certificates {
    /// No certificates, kept in `store` as they come; without a store they die with the process.
    pub fn new(store: Option<Store>) -> Self {
        Self { state: RwLock::default(), store, changed: watch::Sender::new(0) }
    }

    /// Takes up again what the store holds; what is expired, damaged or not trusted is left out.
    /// Gives back what was wrong, one text a file.
    pub fn reload(&self) -> Vec<String> {
        let Some(store) = &self.store else { return Vec::new() };
        let mut problems = Vec::new();
        let bundle = match store.load_bundle() {
            Ok(bundle) if bundle.is_empty() => return problems,
            Ok(bundle) => bundle,
            Err(error) => return vec![error.to_string()],
        };
        let (svids, unreadable) = store.load_svids();
        problems.extend(unreadable.iter().map(ToString::to_string));
        for svid in svids {
            let identity = svid.identity().clone();
            if let Err(error) = self.adopt(svid, bundle.clone()) {
                problems.push(format!("the stored certificate of {identity}: {error}"));
            }
        }
        problems
    }

    /// TLS 1.3 with ALPN `h2` as server `id`, for clients of its trust domain; `None` where `id`
    /// has no valid certificate.
    pub fn server_config(&self, id: &SpiffeId) -> Option<Arc<ServerConfig>> {
        let state = self.read();
        let held = state.held.get(id)?;
        held.svid.is_valid_at(SystemTime::now()).then(|| Arc::clone(&held.server))
    }

    /// TLS 1.3 with ALPN `h2` as client `id`, for a server that is `expected` and nobody else;
    /// `None` where `id` has no valid certificate. The server name given to rustls is not used.
    pub fn client_config(&self, id: &SpiffeId, expected: &SpiffeId) -> Option<Arc<ClientConfig>> {
        let now = SystemTime::now();
        {
            let state = self.read();
            let held = state.held.get(id)?;
            if !held.svid.is_valid_at(now) {
                return None;
            }
            if let Some(config) = held.clients.get(expected) {
                return Some(Arc::clone(config));
            }
        }
        let mut state = self.write();
        let roots = Arc::clone(&state.bundle.roots);
        let held = state.held.get_mut(id)?;
        let config = tls::client_config(&held.svid, expected, roots)
            .inspect_err(|error| tracing::error!(%id, %expected, %error, "no client TLS"))
            .ok()?;
        held.clients.insert(expected.clone(), Arc::clone(&config));
        Some(config)
    }

    /// Grows when the trust bundle changes: what was verified before may no longer hold.
    pub fn generation(&self) -> u64 {
        self.read().bundle.generation
    }

    /// Tells of every certificate that comes, is renewed or goes, and of every failure.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether `id` has a certificate that is valid now.
    pub fn has(&self, id: &SpiffeId) -> bool {
        self.server_config(id).is_some()
    }

    /// Why the last attempt to get a certificate for `id` failed.
    pub fn failure(&self, id: &SpiffeId) -> Option<String> {
        self.read().failures.get(id).map(|failure| failure.reason.clone())
    }

    /// Whether `id` has a certificate that is valid now, or why not.
    ///
    /// # Errors
    /// Why not.
    pub fn require(&self, id: &SpiffeId) -> Result<(), NoCertificate> {
        if self.has(id) {
            return Ok(());
        }
        Err(match self.read().failures.get(id) {
            Some(NoCertificate { reason, is_refused }) => NoCertificate {
                reason: format!("no certificate for {id}: {reason}"),
                is_refused: *is_refused,
            },
            None => NoCertificate {
                reason: format!("waits for the certificate of {id}"),
                is_refused: false,
            },
        })
    }

    /// Every certificate that is held or was asked for, by identity.
    pub fn list(&self) -> Vec<CertificateState> {
        let state = self.read();
        let ids: BTreeSet<_> = state.held.keys().chain(state.failures.keys()).collect();
        let now = SystemTime::now();
        let show = |id: &SpiffeId| {
            let svid = state.held.get(id).map(|held| &held.svid);
            let failure = state.failures.get(id).map(|failure| failure.reason.clone());
            let late = svid.is_none_or(|svid| now >= svid.at_fraction_of_life(0.75));
            CertificateState {
                identity: id.clone(),
                serial: svid.map(|svid| svid.serial().to_owned()),
                not_after: svid.map(Svid::not_after),
                alarming: late && failure.is_some(),
                failure,
            }
        };
        ids.into_iter().map(show).collect()
    }

    /// Uses `svid` from now on, and `bundle` as the roots to trust.
    ///
    /// # Errors
    /// Where `svid` is not valid now or `bundle` does not vouch for it; nothing changes then.
    pub fn install(
        &self,
        svid: Svid,
        bundle: Vec<CertificateDer<'static>>,
    ) -> Result<(), IdentityError> {
        let stored = self.store.as_ref().map(|store| {
            let file = store.svid_file(&svid);
            (store, file)
        });
        let roots = bundle.clone();
        self.adopt(svid, bundle)?;
        if let Some((store, file)) = stored
            && let Err(error) = store.save_bundle(&roots).and_then(|()| file.save())
        {
            tracing::warn!(
                %error,
                "cannot keep a certificate on disk; it serves until the agent restarts"
            );
        }
        Ok(())
    }

    /// Forgets every certificate but those of `wanted`, on disk too.
    pub fn retain(&self, wanted: &BTreeSet<SpiffeId>) {
        let mut state = self.write();
        state.failures.retain(|id, _| wanted.contains(id));
        let gone: Vec<_> = state.held.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        state.held.retain(|id, _| wanted.contains(id));
        drop(state);
        for id in &gone {
            if let Some(Err(error)) = self.store.as_ref().map(|store| store.remove(id)) {
                tracing::warn!(%id, %error, "cannot remove a certificate that is not needed");
            }
        }
        if !gone.is_empty() {
            self.notify();
        }
    }

    /// When `id` is to be asked for (again); the epoch where there is no certificate.
    fn renew_at(&self, id: &SpiffeId) -> SystemTime {
        self.read().held.get(id).map_or(SystemTime::UNIX_EPOCH, |held| held.renew_at)
    }

    fn fail(&self, id: &SpiffeId, error: &IdentityError) {
        let is_refused = !matches!(error, IdentityError::Unreachable(_));
        let failure = NoCertificate { reason: error.to_string(), is_refused };
        self.write().failures.insert(id.clone(), failure);
        self.notify();
    }

    fn adopt(
        &self,
        svid: Svid,
        mut certificates: Vec<CertificateDer<'static>>,
    ) -> Result<(), IdentityError> {
        let now = SystemTime::now();
        certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other));
        certificates.dedup();
        let mut state = self.write();
        let roots = if certificates == state.bundle.certificates {
            Arc::clone(&state.bundle.roots)
        } else {
            Arc::new(certificate::roots(&certificates)?)
        };
        svid.check(&roots, now)?;
        let server = tls::server_config(&svid, Arc::clone(&roots))?;
        if certificates != state.bundle.certificates {
            state.replace_bundle(Arc::clone(&roots), certificates);
        }
        state.failures.remove(svid.identity());
        let held =
            Held { renew_at: renewal::renew_at(&svid), svid, server, clients: HashMap::new() };
        state.held.insert(held.svid.identity().clone(), held);
        drop(state);
        self.notify();
        Ok(())
    }

    fn notify(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Trusts `certificates` alone; an SVID that no TLS can be made of any more is dropped.
    fn replace_bundle(
        &mut self,
        roots: Arc<RootCertStore>,
        certificates: Vec<CertificateDer<'static>>,
    ) {
        self.held.retain(|id, held| {
            held.clients.clear();
            match tls::server_config(&held.svid, Arc::clone(&roots)) {
                Ok(config) => {
                    held.server = config;
                    true
                }
                Err(error) => {
                    tracing::error!(%id, %error, "a new trust bundle leaves no TLS for it");
                    false
                }
            }
        });
        let generation = self.bundle.generation + 1;
        self.bundle = Bundle { roots, certificates, generation };
    }
}

#[cfg(test)]
mod tests;
