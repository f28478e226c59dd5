//! The real captor: kernel programs and proxy, each told what concerns it, in the right order.

use std::sync::Arc;

use mesh_common::model::Workload;

use super::{enrolment::Captor, plaintext::Plaintext};
use crate::{
    capture::{Capture, CaptureError, HookState, InboundModes, MapUse, enroll::Pod},
    denials::Denials,
    observe::{
        Observer,
        unmeshed::{self, UnmeshedTable},
    },
    proxy::Proxy,
    snapshot::Snapshot,
    status::Hook,
};

/// The kernel's counter of plaintext that an application got without the proxy.
const PASSED: &str = "inbound_passed";

/// Capture and proxy together.
pub struct Kernel {
    capture: Capture,
    proxy: Arc<Proxy>,
    told: Told,
}

/// Who is told what was found when a pod was captured.
pub struct Told {
    /// The node's name.
    pub node: Arc<str>,
    /// Where flows go.
    pub observer: Arc<Observer>,
    /// What was open before.
    pub unmeshed: Arc<UnmeshedTable>,
    /// What is judged without the proxy.
    pub plaintext: Arc<Plaintext>,
    /// Who is where.
    pub snapshot: Arc<Snapshot>,
    /// What the kernel refuses for pods that are captured now.
    pub denials: Arc<Denials>,
}

impl Kernel {
    /// A captor of what `capture` and `proxy` do, who tells `told`.
    pub fn new(capture: Capture, proxy: Arc<Proxy>, told: Told) -> Self {
        Self { capture, proxy, told }
    }
}

/// How it is known what a pod has open from before it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Everything that is open is from before.
    Listed,
    /// An earlier agent wrote it down: connections of the mesh may be open as well.
    Recalled,
    /// The pod still drains, and this agent knows.
    Known,
}

impl Captor for Kernel {
    fn capture(&mut self, pod: &Workload, modes: &InboundModes) -> Result<(), String> {
        let before = if self.capture.adopted().contains(&pod.uid) {
            Before::Recalled
        } else if self.proxy.is_serving(&pod.uid) {
            Before::Known
        } else {
            Before::Listed
        };
        let mut listed = None;
        let (proxy, addresses, sockets) = (&self.proxy, &pod.addresses, self.capture.sockets());
        let serve = |pod: Arc<Pod>, listeners| {
            if before == Before::Listed {
                // Between the hooks and the proxy: what is opened from now on is the mesh's.
                let passed = sockets.passed(pod.netns.cookie()).unwrap_or_default();
                listed = unmeshed::list(&pod.netns, addresses, &passed)
                    .inspect_err(|error| {
                        tracing::warn!(pod = %pod.name, %error, "cannot tell what is from before");
                    })
                    .ok();
            }
            proxy.serve(pod, listeners);
            Ok(())
        };
        let captured = self.capture.capture(pod, modes.clone(), serve);
        let captured = captured.map_err(|error| error.to_string())?;
        let Told { node, observer, unmeshed, plaintext, snapshot, denials: _ } = &self.told;
        if let Some(listed) = listed {
            unmeshed.note(&pod.uid, &captured.netns, &listed);
            unmeshed::report(&listed, observer, snapshot, node, pod);
        } else if before == Before::Recalled {
            unmeshed.recall(&pod.uid, &captured.netns);
        }
        plaintext.watch(captured);
        Ok(())
    }

    fn set_inbound_modes(&mut self, uid: &str, modes: &InboundModes) -> Result<(), String> {
        self.capture.set_inbound_modes(uid, modes.clone()).map_err(|error| error.to_string())?;
        self.told.plaintext.modes_changed(uid);
        Ok(())
    }

    fn bypass(&mut self, uid: &str) -> Result<(), String> {
        self.capture.release(uid).map_err(|error| error.to_string())?;
        self.told.denials.flush();
        Ok(())
    }

    fn release(&mut self, uid: &str) -> Result<(), String> {
        self.capture.release(uid).map_err(|error| error.to_string())?;
        self.proxy.drain(uid);
        // Nobody is judged for this pod from here on.
        self.told.denials.flush();
        Ok(())
    }

    fn finish_release(&mut self, uid: &str) -> Result<(), String> {
        self.proxy.forget(uid);
        match self.capture.finish_release(uid) {
            Ok(()) | Err(CaptureError::Unknown(_)) => {
                self.told.unmeshed.forget(uid);
                self.told.plaintext.forget(uid);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn connections(&self, uid: &str) -> usize {
        self.proxy.connections(uid)
    }

    fn is_drained(&self, uid: &str) -> bool {
        !self.proxy.is_serving(uid)
    }

    fn is_gone(&self, uid: &str) -> bool {
        self.capture.is_gone(uid)
    }

    fn adopted(&self) -> Vec<Arc<str>> {
        self.capture.adopted()
    }

    fn inspect(&mut self) -> (Vec<Hook>, Vec<(&'static str, u64)>) {
        let hooks = self.capture.verify_and_repair().into_iter().map(hook).collect();
        let counters = self.capture.counters();
        let passed = counters.iter().find(|(name, _)| *name == PASSED);
        if let Some((_, passed)) = passed {
            self.told.observer.share().passed(*passed);
        }
        (hooks, counters)
    }

    fn notes(&self, uid: &str) -> Vec<String> {
        self.capture.notes(uid).to_vec()
    }

    fn look_around(&mut self) {
        self.capture.look_around();
    }

    fn map_use(&self) -> Result<Vec<MapUse>, String> {
        self.capture.map_use().map_err(|error| error.to_string())
    }
}

/// A hook as it is after it was looked at.
fn hook(state: HookState) -> Hook {
    let HookState { name, attached, repairs, error } = state;
    Hook { name, attached: attached || error.is_none(), repairs, error }
}
