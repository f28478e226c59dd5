//! Clients that know nothing of this server, at work against it.

mod access;
mod apply;
mod cluster;
mod custom;
mod kubectl;
mod objects;
mod overlays;
mod reflectors;
