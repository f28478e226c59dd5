//! Hash maps of the kernel as nothing but bytes: counted and copied, many entries to a system call
//! (Linux 5.6).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use super::{Command, ElementAttr, MapShape, bpf, found, open_pin, pin};

/// How many entries a system call gives. What they take in memory is some tens of KiB, and much
/// more than any bucket of a map ever holds.
const BATCH: usize = 1024;

/// A hash map of any layout.
#[derive(Debug)]
pub struct Table {
    fd: OwnedFd,
    shape: MapShape,
}

/// Keys of a map.
#[derive(Debug)]
pub struct Keys {
    bytes: Vec<u8>,
    size: usize,
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

    /// Makes a map of the same layout with room for `max_entries`, and nothing in it.
    pub fn create_like(&self, name: &str, max_entries: u32) -> io::Result<Self> {
        /// `BPF_OBJ_NAME_LEN`, of which the last byte is zero.
        const NAME: usize = 16;
        #[repr(C)]
        struct Attr {
            kind: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            flags: u32,
            inner_map: u32,
            numa_node: u32,
            name: [u8; NAME],
        }
        let MapShape { kind, key_size, value_size, flags, .. } = self.shape;
        let mut attr = Attr {
            kind,
            key_size,
            value_size,
            max_entries,
            flags,
            inner_map: 0,
            numa_node: 0,
            name: [0; NAME],
        };
        for (to, from) in attr.name[..NAME - 1].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the attribute holds no pointers.
        let fd = unsafe { bpf(Command::MapCreate, &mut attr) }?;
        // SAFETY: the kernel has just given us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let shape = MapShape::of(fd.as_fd())?;
        Ok(Self { fd, shape })
    }

    /// Gives it a name on a bpffs.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    /// Puts every entry into `other`, a map of the same layout; the keys of what was there.
    pub fn copy_to(&self, other: &Self) -> io::Result<Keys> {
        if (self.shape.key_size, self.shape.value_size)
            != (other.shape.key_size, other.shape.value_size)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "maps of different layouts"));
        }
        let mut keys = Keys { bytes: Vec::new(), size: self.shape.key_size as usize };
        self.for_each_batch(|batch| {
            keys.bytes.extend_from_slice(&batch.keys[..batch.count * keys.size]);
            other.insert(batch)
        })?;
        Ok(keys)
    }

    /// Whether there is such a key, which is one of a map of the same layout.
    pub fn has(&self, key: &[u8]) -> io::Result<bool> {
        let mut value = vec![0; self.shape.value_size as usize];
        self.element(Command::MapLookup, key, &mut value)
    }

    /// Removes a key; one that is not there is no error.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.element(Command::MapDelete, key, &mut []).map(drop)
    }

    /// Removes everything.
    pub fn clear(&self) -> io::Result<()> {
        let mut keys = Keys { bytes: Vec::new(), size: self.shape.key_size as usize };
        self.for_each_batch(|batch| {
            keys.bytes.extend_from_slice(&batch.keys[..batch.count * keys.size]);
            Ok(())
        })?;
        keys.iter().try_for_each(|key| self.remove(key))
    }

    /// Whether the key was there.
    fn element(&self, command: Command, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        let is_whole = key.len() == self.shape.key_size as usize;
        let has_room = value.is_empty() || value.len() == self.shape.value_size as usize;
        if !is_whole || !has_room {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a key of another layout"));
        }
        let mut attr = ElementAttr {
            map: self.fd.as_raw_fd() as u32,
            padding: 0,
            key: key.as_ptr() as u64,
            // Commands that take none refuse to be given one.
            value: if value.is_empty() { 0 } else { value.as_mut_ptr() as u64 },
            flags: 0,
        };
        // SAFETY: key and value outlive the call and have the sizes that the kernel gave; only a
        // lookup, which comes with a value, writes to it.
        found(unsafe { bpf(command, &mut attr) }.map(drop))
    }

    fn insert(&self, batch: &Batch) -> io::Result<()> {
        if batch.count == 0 {
            return Ok(());
        }
        let mut attr = BatchAttr {
            from: 0,
            next: 0,
            keys: batch.keys.as_ptr() as u64,
            values: batch.values.as_ptr() as u64,
            count: batch.count as u32,
            map: self.fd.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: both arrays outlive the call and hold `count` keys and values of this map's
        // sizes, which `copy_to` has compared; the kernel only reads them.
        unsafe { bpf(Command::MapUpdateBatch, &mut attr) }?;
        Ok(())
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

impl Keys {
    /// Each key.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.size)
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
