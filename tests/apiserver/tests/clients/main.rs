//! Clients that know nothing of this server, at work against it.

mod cluster;
mod kubectl;
mod reflectors;
