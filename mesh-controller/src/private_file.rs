//! Files of the state directory: readable by their owner only, and never half-written.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Why a file of the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The system says no.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others may read it.
    #[error(
        "{path} has mode {mode:04o}: others may have read it; run `chmod {wanted:04o} {path}`, or remove it where it may have leaked"
    )]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// It makes no sense.
    #[error(
        "{path} makes no sense: {reason}; restore it from a backup, or remove it to start anew"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl PrivateFileError {
    /// That the content of `path` makes no sense.
    pub fn content(path: &Path, reason: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Makes sure that `dir` exists with mode 0700, and refuses one that others may enter.
///
/// # Errors
/// Where it cannot be made, or others may enter it.
pub fn directory(dir: &Path) -> Result<(), PrivateFileError> {
    make_directory(dir)?;
    check_mode(dir, &fs::metadata(dir).map_err(io_error(dir))?, 0o700)
}

/// Makes sure that `dir` exists; a new one has mode 0700.
///
/// # Errors
/// Where it cannot be made.
pub fn make_directory(dir: &Path) -> Result<(), PrivateFileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))
}

/// The content of `path`; `None` where there is no such file.
///
/// # Errors
/// Where it cannot be read, or others than its owner may read it.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    check_mode(path, &file.metadata().map_err(io_error(path))?, 0o600)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).map_err(io_error(path))?;
    Ok(Some(bytes))
}

/// Writes `path` with mode 0600: it has the old content or the new, whenever the power fails.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // One that a crash left behind may have any mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&temporary)(error));
        }
        _ => {}
    }
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(io_error(path))
}

/// Writes `path` with mode 0600 unless it exists; whether it did.
///
/// # Errors
/// Where it cannot be written.
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool, PrivateFileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    write(&temporary, bytes)?;
    // A link, unlike a rename, does not replace what another process made meanwhile.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(io_error(&temporary))?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn check_mode(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), PrivateFileError> {
    let mode = metadata.mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(PrivateFileError::Mode { path: path.to_owned(), mode, wanted }),
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> PrivateFileError {
    move |error| PrivateFileError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
