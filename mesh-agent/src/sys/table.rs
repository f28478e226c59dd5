//! Hash maps of the kernel as nothing but bytes: how many entries they have, many of them to a
//! system call (Linux 5.6).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use super::{Command, MapShape, bpf, open_pin};

/// How many entries a system call gives. What they take in memory is some tens of KiB, and much
/// more than any bucket of a map ever holds.
const BATCH: usize = 1024;

/// A hash map of any layout.
#[derive(Debug)]
pub struct Table {
    fd: OwnedFd,
    shape: MapShape,
}

/// Some entries, one after the other.
struct Batch {
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Table {
    /// Opens a pinned map.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pin(path)?;
        let shape = MapShape::of(fd.as_fd())?;
        Ok(Self { fd, shape })
    }

    /// What the kernel says about it.
    pub fn shape(&self) -> MapShape {
        self.shape
    }

    /// How many entries there are. A map that changes meanwhile is counted roughly.
    pub fn count(&self) -> io::Result<usize> {
        let mut count = 0;
        self.for_each_batch(|batch| {
            count += batch.count;
            Ok(())
        })?;
        Ok(count)
    }

    fn for_each_batch(&self, mut f: impl FnMut(&Batch) -> io::Result<()>) -> io::Result<()> {
        let mut batch = Batch {
            keys: vec![0; BATCH * self.shape.key_size as usize],
            values: vec![0; BATCH * self.shape.value_size as usize],
            count: 0,
        };
        // Where the kernel is in a hash map is 32 bits to it; null asks for the beginning.
        let mut position = 0_u32;
        let mut from = 0_u64;
        loop {
            let mut attr = BatchAttr {
                from,
                next: (&raw mut position) as u64,
                keys: batch.keys.as_mut_ptr() as u64,
                values: batch.values.as_mut_ptr() as u64,
                count: BATCH as u32,
                map: self.fd.as_raw_fd() as u32,
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: both arrays outlive the call and have room for `count` keys and values of
            // the sizes that the kernel gave; the position is as wide as it is for a hash map.
            let is_last = match unsafe { bpf(Command::MapLookupBatch, &mut attr) } {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            batch.count = attr.count as usize;
            f(&batch)?;
            if is_last {
                return Ok(());
            }
            from = (&raw const position) as u64;
        }
    }
}

#[repr(C)]
struct BatchAttr {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}
