//! Routes, to messages and from them.

mod from_wire;
mod to_wire;

#[cfg(test)]
mod tests;
