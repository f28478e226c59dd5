//! The Unix socket that `nodemesh` connects to. Only root may: it is in a directory of mode 0700
//! and has mode 0600 itself.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mesh_common::api::v1::agent_server::AgentServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::Admin;
use crate::files;

/// A socket at its place; removed when dropped, unless a successor has replaced it.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    inode: u64,
}

impl AdminSocket {
    /// Serves `admin` at `path`. A socket that an earlier agent left there is replaced in one
    /// step, so that no call finds none.
    ///
    /// # Errors
    /// Where the directory cannot be made, or holds something else of that name.
    pub fn serve(path: &Path, admin: Admin) -> io::Result<Self> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        files::create_directory(directory)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = directory.join(name);
        let listener = UnixListener::bind(&temporary)?;
        let placed = fs::set_permissions(&temporary, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| fs::metadata(path));
        if placed.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        let socket = Self { path: path.to_owned(), inode: placed?.ino() };
        tokio::spawn(async move {
            let connections = UnixListenerStream::new(listener);
            let service = AgentServer::new(admin);
            let served = Server::builder().serve_with_incoming(service, connections).await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin socket is closed; restart the agent");
            }
        });
        Ok(socket)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            // At the end of the process there is nobody to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}
