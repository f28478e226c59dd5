//! Maps of another size than an earlier agent pinned: made anew, with what was in them.
//!
//! No connection gets around the mesh meanwhile. The programs that an earlier agent attached keep
//! their old maps until those of this one take their place, at the node's hooks at once and at a
//! pod's when that is captured again. Each new map is complete before its pin takes the place of
//! the old one, in one step, so that whoever is interrupted leaves nothing half done.
//!
//! Until their pod is captured again, a pod's old programs look at old maps that nobody writes to
//! any more: they let nothing through, not even probes.

use std::{fs, io};

use super::{
    CaptureConfig,
    kernel::KernelError,
    pins::Pins,
    sizes::{Content, SIZED_MAPS, SizedMap},
};
use crate::sys::table::{Keys, Table};

/// The maps that have another size now.
pub struct Resized(Vec<Moved>);

struct Moved {
    map: &'static SizedMap,
    old: Table,
    new: Table,
    copied: Option<Keys>,
}

/// Gives every pinned map the size that `config` says, before any program is loaded.
///
/// # Errors
/// Where there is more in a map than it shall have room for, before anything is changed; and where
/// the kernel refuses.
pub fn resize(config: &CaptureConfig, pins: &Pins) -> Result<Resized, KernelError> {
    let mut outgrown = Vec::new();
    for map in SIZED_MAPS {
        let error = |source| KernelError::Map { name: map.name, source };
        let path = pins.map(map.name);
        if !path.exists() {
            continue;
        }
        let table = Table::open(&path).map_err(error)?;
        let size = (map.size)(config);
        if table.shape().max_entries == size {
            continue;
        }
        let entries = match map.content {
            Content::Forgotten => 0,
            Content::Kept | Content::Followed => table.count().map_err(error)?,
        };
        if let Some(flag) = map.flag
            && entries > size as usize
        {
            return Err(KernelError::TooSmall { name: map.name, flag, size, entries });
        }
        outgrown.push((map, table, size));
    }
    let moved = outgrown.into_iter().map(|(map, old, size)| {
        move_over(map, old, size, pins)
            .map_err(|source| KernelError::Map { name: map.name, source })
    });
    Ok(Resized(moved.collect::<Result<_, _>>()?))
}

fn move_over(map: &'static SizedMap, old: Table, size: u32, pins: &Pins) -> io::Result<Moved> {
    let new = old.create_like(map.name, size)?;
    let copied = match map.content {
        Content::Forgotten => None,
        Content::Kept | Content::Followed => Some(old.copy_to(&new)?),
    };
    // A name that no map has, and that bpffs takes. What is there was left by a crash.
    let beside = pins.map(&format!("{}-new", map.name));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    new.pin(&beside)?;
    fs::rename(&beside, pins.map(map.name))?;
    let from = old.shape().max_entries;
    let entries = copied.as_ref().map_or(0, |keys| keys.iter().count());
    tracing::info!(map = map.name, from, to = size, entries, "changed the size of a kernel map");
    Ok(Moved { map, old, new, copied })
}

impl Resized {
    /// Forgets what ended while it was copied. To be called once the programs at the node's hooks
    /// use the new maps.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn finish(self) -> Result<(), KernelError> {
        for Moved { map, old, new, copied } in self.0 {
            if map.content != Content::Followed {
                continue;
            }
            let finish = || {
                for key in copied.iter().flat_map(Keys::iter) {
                    if !old.has(key)? {
                        new.remove(key)?;
                    }
                }
                // What nobody takes out any more must not go on to let connections through.
                old.clear()
            };
            finish().map_err(|source| KernelError::Map { name: map.name, source })?;
        }
        Ok(())
    }
}
