//! The controller of nodemesh: turns Kubernetes objects into what agents need, and signs
//! certificates. It never touches traffic.
//!
//! [`source`] reads [`object`]s, [`index`] arranges them, [`compile`] makes resources of them,
//! [`view`] and [`delta`] choose what a node gets, [`serve`] sends it, [`ca`] signs.

#![forbid(unsafe_code)]

pub mod ca;
pub mod captured;
pub mod compile;
pub mod crd;
pub mod delta;
pub mod health;
pub mod index;
pub mod kubernetes;
pub mod mesh;
pub mod object;
pub mod private_file;
pub mod run;
pub mod serve;
pub mod source;
pub mod token;
pub mod view;
