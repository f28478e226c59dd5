//! The ring in which the kernel programs tell of connections that the proxy does not see.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::maps::{Map, MapData, RingBuf};
use mesh_common::bpf::Event;

use super::pins::Pins;
use crate::sys;

/// What the kernel programs tell, each event once. The descriptor is readable when there is one.
pub struct Events(RingBuf<MapData>);

impl Events {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        let data = MapData::from_pin(pins.map("EVENTS")).map_err(io::Error::other)?;
        RingBuf::try_from(Map::RingBuf(data)).map(Self).map_err(io::Error::other)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.next().and_then(|bytes| sys::read(&bytes))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
