//! Why the controller cannot be reached, in words that say what to do; logged once an outage.

use std::{
    error::Error as StdError,
    io,
    mem::{Discriminant, discriminant},
    path::PathBuf,
};

use tonic::{Code, Status};

/// What stands between the agent and the controller.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {error}; give the right file")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// The controller does not accept the token.
    #[error(
        "the controller refuses the join token ({0}); make a new one with `mesh-controller token \
         <node>` and give it with --join-token-file"
    )]
    Token(String),
    /// The controller's certificate is not what it should be.
    #[error(
        "the controller's certificate is not trusted ({0}); --controller-ca has to be the \
         root.crt of that controller"
    )]
    Certificate(String),
    /// Nobody answers.
    #[error(
        "the controller cannot be reached ({0}); look at its address, its process and the network"
    )]
    Unreachable(String),
    /// It answered something else.
    #[error("the controller ended the stream ({0})")]
    Ended(String),
}

impl Outage {
    /// What a failed attempt to connect means.
    pub fn of_connecting(error: &(dyn StdError + 'static)) -> Self {
        match find_tls(error) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                Self::Certificate(reason.to_string())
            }
            Some(other) => Self::Certificate(other.to_string()),
            None => Self::Unreachable(innermost(error)),
        }
    }

    /// What a failed call means.
    pub fn of_call(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::Token(status.message().to_owned())
            }
            Code::Unavailable => match status.source() {
                Some(source) => Self::of_connecting(source),
                None => Self::Unreachable(status.message().to_owned()),
            },
            code => Self::Ended(format!("{code}: {}", status.message())),
        }
    }
}

/// Remembers what was logged, so that an outage is one line a kind however often it is tried.
#[derive(Debug, Default)]
pub struct OutageLog {
    logged: Vec<Discriminant<Outage>>,
}

impl OutageLog {
    /// Logs `outage` unless one of its kind was logged since the last success.
    pub fn down(&mut self, outage: &Outage) {
        let kind = discriminant(outage);
        if !self.logged.contains(&kind) {
            tracing::warn!("{outage}; traffic goes on with what is known, trying again");
            self.logged.push(kind);
        }
    }

    /// Logs that it is over.
    pub fn up(&mut self) {
        if !self.logged.is_empty() {
            self.logged.clear();
            tracing::info!("the controller answers again");
        }
    }
}

/// The TLS error that caused `error`, if one did.
fn find_tls<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    // io::Error does not name what it wraps as its source.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => find_tls(inner),
        None => error.source().and_then(find_tls),
    }
}

/// The last cause, which is the one that says what happened.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
