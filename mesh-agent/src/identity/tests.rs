//! Certificates that come, are renewed, are kept and end.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    renewal::{Authority, Signed, keep},
    testing::{Ca, Hours},
    *,
};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";

fn id(text: &str) -> SpiffeId {
    text.parse().expect("an identity")
}

/// An authority that signs everything, after it has failed a number of times.
struct Signer {
    ca: Arc<Ca>,
    hours: Hours,
    failures: AtomicUsize,
    asked: Arc<AtomicUsize>,
}

impl Signer {
    fn new(ca: &Arc<Ca>, hours: Hours, failures: usize) -> Self {
        let (failures, asked) = (AtomicUsize::new(failures), Arc::default());
        Self { ca: Arc::clone(ca), hours, failures, asked }
    }
}

impl Authority for Signer {
    async fn sign(&self, csr: Vec<u8>) -> Result<Signed, IdentityError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let failing = self.failures.load(Ordering::Relaxed);
        if failing > 0 {
            self.failures.store(failing - 1, Ordering::Relaxed);
            return Err(IdentityError::Authority("no such pod".to_owned()));
        }
        Ok(self.ca.sign(csr, self.hours))
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[tokio::test]
async fn certificates_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("node-1");
    let ca = Arc::new(Ca::new());
    let certificates = Arc::new(Certificates::new(Some(Store::new(&state))));
    assert!(certificates.reload().is_empty(), "nothing is there yet");
    let signer = Signer::new(&ca, Hours::CURRENT, 0);
    certificates.ensure(&signer, &id(WEB)).await.expect("signed");
    let file = state.join("svids/shop_web.pem");
    assert_eq!((mode(&file), mode(&state.join("svids"))), (0o600, 0o700));
    assert_eq!(mode(&state.join("trust-bundle.pem")), 0o600);

    let again = Certificates::new(Some(Store::new(&state)));
    assert_eq!(again.reload(), [""; 0]);
    assert!(again.has(&id(WEB)));
    assert_eq!(again.list()[0].serial, certificates.list()[0].serial);

    let text = std::fs::read_to_string(&file).expect("PEM");
    std::fs::write(&file, &text[text.len() / 2..]).expect("write");
    let damaged = Certificates::new(Some(Store::new(&state)));
    let problems = damaged.reload();
    assert!(problems[0].contains("shop_web.pem"), "{problems:?}");
    assert!(!damaged.has(&id(WEB)));

    certificates.retain(&BTreeSet::new());
    assert!(!file.exists() && !certificates.has(&id(WEB)));
}

#[tokio::test]
async fn an_expired_or_foreign_certificate_is_not_taken_up_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::new(directory.path());
    let (ca, other) = (Ca::new(), Ca::new());
    store.save_bundle(&[ca.der()]).expect("save");
    for (svid, reason) in [
        (ca.svid(WEB, Hours::PAST), "not valid now"),
        (other.svid(WEB, Hours::CURRENT), "does not vouch"),
    ] {
        store.svid_file(&svid).save().expect("save");
        let certificates = Certificates::new(Some(store.clone()));
        let problems = certificates.reload();
        assert!(problems[0].contains(reason) && problems[0].contains(WEB), "{problems:?}");
        assert!(!certificates.has(&id(WEB)));
    }
}

#[tokio::test]
async fn what_is_young_is_not_asked_for_again_and_what_is_old_is() {
    let ca = Arc::new(Ca::new());
    let certificates = Arc::new(Certificates::new(None));
    for (hours, asked) in [
        // A quarter of its life is over, then three quarters.
        (Hours { since: -1, until: 3 }, 1),
        (Hours { since: -3, until: 1 }, 2),
    ] {
        let certificates =
            if asked == 1 { &certificates } else { &Arc::new(Certificates::new(None)) };
        let signer = Signer::new(&ca, hours, 0);
        certificates.ensure(&signer, &id(WEB)).await.expect("signed");
        certificates.ensure(&signer, &id(WEB)).await.expect("signed");
        assert_eq!(signer.asked.load(Ordering::Relaxed), asked);
    }
}

#[tokio::test]
async fn an_answer_for_someone_else_is_not_used() {
    struct Wrong(Ca);
    impl Authority for Wrong {
        async fn sign(&self, _csr: Vec<u8>) -> Result<Signed, IdentityError> {
            let chain = self.0.svid(FRONTEND, Hours::CURRENT).chain().to_vec();
            Ok(Signed { chain, trust_bundle: vec![self.0.der()] })
        }
    }
    let certificates = Arc::new(Certificates::new(None));
    let error = certificates.ensure(&Wrong(Ca::new()), &id(WEB)).await.expect_err("refused");
    assert!(error.to_string().contains("the key does not fit"), "{error}");
    let state = &certificates.list()[0];
    assert!(state.alarming && state.failure.as_ref() == Some(&error.to_string()));
}

#[test]
fn configurations_are_cached_and_made_anew_with_a_certificate_or_a_bundle() {
    let (ca, other) = (Ca::new(), Ca::new());
    let certificates = Certificates::new(None);
    assert!(certificates.server_config(&id(WEB)).is_none());
    certificates.install(ca.svid(WEB, Hours::CURRENT), vec![ca.der()]).expect("install");
    let first = certificates.generation();
    let both = || {
        let server = certificates.server_config(&id(WEB)).expect("a certificate");
        (server, certificates.client_config(&id(WEB), &id(FRONTEND)).expect("a certificate"))
    };
    let same = |one: &(Arc<ServerConfig>, Arc<ClientConfig>),
                two: &(Arc<ServerConfig>, Arc<ClientConfig>)| {
        (Arc::ptr_eq(&one.0, &two.0), Arc::ptr_eq(&one.1, &two.1))
    };
    let before = both();
    assert_eq!(same(&before, &both()), (true, true));

    certificates.install(ca.svid(WEB, Hours::CURRENT), vec![ca.der()]).expect("renewed");
    let renewed = both();
    assert_eq!(same(&before, &renewed), (false, false));
    assert_eq!(certificates.generation(), first);

    // Another account's certificate brings a bundle with one root more.
    let svid = ca.svid(FRONTEND, Hours::CURRENT);
    certificates.install(svid, vec![other.der(), ca.der()]).expect("install");
    assert_eq!(same(&renewed, &both()), (false, false));
    assert_eq!(certificates.generation(), first + 1);
}

#[test]
fn a_certificate_that_has_ended_is_not_used() {
    let ca = Ca::new();
    let certificates = Certificates::new(None);
    let error = certificates.install(ca.svid(WEB, Hours::PAST), vec![ca.der()]);
    assert!(error.is_err_and(|error| error.to_string().contains("not valid now")));
    assert_eq!(certificates.generation(), 0, "nothing changed");
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let ca = Ca::new();
    let certificates = Certificates::new(None);
    certificates.install(ca.svid(WEB, Hours::CURRENT), vec![ca.der()]).expect("install");
    let server = certificates.server_config(&id(WEB)).expect("a certificate");
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache());
    assert_eq!(server.alpn_protocols, [b"h2"]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_and_what_is_not_wanted_goes() {
    let ca = Arc::new(Ca::new());
    let certificates = Arc::new(Certificates::new(None));
    let (wanted, wanted_rx) = watch::channel(None);
    let (_retry, retry_rx) = watch::channel(0);
    let signer = Signer::new(&ca, Hours { since: -1, until: 100 }, 3);
    let asked = Arc::clone(&signer.asked);
    let task = tokio::spawn(keep(Arc::clone(&certificates), signer, wanted_rx, retry_rx));
    let mut changed = certificates.changed();
    wanted.send_replace(Some(BTreeSet::from([id(WEB)])));
    let minutes = Duration::from_secs(300);
    while !certificates.has(&id(WEB)) {
        timeout(minutes, changed.changed()).await.expect("in time").expect("it lives");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert!(certificates.failure(&id(WEB)).is_none());

    wanted.send_replace(Some(BTreeSet::new()));
    timeout(minutes, changed.changed()).await.expect("in time").expect("it lives");
    assert!(!certificates.has(&id(WEB)));
    task.abort();
}
