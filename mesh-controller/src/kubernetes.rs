//! The API server: how it is reached, watched, and what its refusals mean.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub mod authority;
pub mod backoff;
pub mod captures;
pub mod error;
pub mod events;
pub mod health;
pub mod lease;
pub mod notices;
pub mod resource;
pub mod review;
pub mod route_status;
mod routes;
pub mod status;
pub mod watch;
pub mod writer;

pub use error::{ApiError, Verb};
pub use resource::Resource;

/// Who owns the fields that the controller applies.
pub const FIELD_MANAGER: &str = "nodemesh-controller";
/// How long a connection to the API server may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The named file is of no use.
    #[error("kubeconfig {path}: {error}")]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        error: kube::config::KubeconfigError,
    },
    /// Nothing says where the API server is.
    #[error(
        "no API server is known: neither --kubeconfig nor KUBECONFIG names a file, ~/.kube/config \
         is not there, and this is no pod with a service account: {0}"
    )]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The settings cannot be used.
    #[error("the client of the API server cannot be made: {0}")]
    Client(#[from] kube::Error),
}

/// A client of the API server that `kubeconfig` names, or KUBECONFIG, or that this pod's service
/// account is of. A token that its file rotates is read anew within a minute.
///
/// # Errors
/// Where none is known, or the settings make no sense.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let error = |error| ClientError::Kubeconfig { path: path.to_owned(), error };
            let file = Kubeconfig::read_from(path).map_err(error)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(error)?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT);
    // Who calls decides when to try again: a second layer that does would hide refusals and
    // multiply load on a server that comes back.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
