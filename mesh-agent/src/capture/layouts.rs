//! What agents left whose maps had another layout: hooks that nobody serves any more.
//!
//! They go on to refuse for the pods that such an agent captured, until this agent has captured
//! each of them anew. Taken away at once, they would let everything pass until then.

use std::{collections::HashMap, io, sync::Arc};

use super::{pins::Pins, record::Record};
use crate::sys;

/// The hooks of other layouts, and the pods that they still stand for.
pub struct OtherLayouts {
    layouts: Vec<Layout>,
}

struct Layout {
    pins: Pins,
    /// Cookies of the namespaces that it captures.
    pods: Vec<u64>,
}

impl OtherLayouts {
    /// Those of the node of `pins`.
    pub fn find(pins: &Pins) -> io::Result<Self> {
        let layouts = pins.other_layouts()?.into_iter();
        let layouts = layouts.map(|pins| Layout { pods: pins.pods().unwrap_or_default(), pins });
        Ok(Self { layouts: layouts.collect() })
    }

    /// Takes away what stands for no pod of `waiting`, which wait to be captured anew.
    pub fn keep_only(&mut self, waiting: &HashMap<Arc<str>, Record>) -> io::Result<()> {
        let waits = |cookie: &u64| waiting.values().any(|record| record.cookie == *cookie);
        for layout in &mut self.layouts {
            for cookie in layout.pods.extract_if(.., |cookie| !waits(cookie)) {
                release(&layout.pins, cookie)?;
            }
        }
        for layout in self.layouts.extract_if(.., |layout| layout.pods.is_empty()) {
            layout.pins.remove_layout()?;
        }
        Ok(())
    }

    /// Takes away what stands for one pod.
    pub fn release(&self, cookie: u64) -> io::Result<()> {
        self.layouts.iter().try_for_each(|layout| release(&layout.pins, cookie))
    }
}

/// What captures the pod's outbound connections goes last, as with any release: the guards must not
/// see what is no longer captured.
fn release(pins: &Pins, cookie: u64) -> io::Result<()> {
    pins.remove_pod(cookie)?;
    sys::remove_key(&pins.map("PODS"), &cookie)
}
