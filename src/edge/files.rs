//! The data folder: that it is there, the server's id in it, and files that are either whole or not there.
//!
//! Everything in it is for its owner only (0700 and 0600). Who may use it is settled where the log is opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{entropy, format};

/// The file with the server's id.
const SERVER_ID_FILE: &str = "server-id";
/// A server's id is a UUID.
const SERVER_ID_BYTES: usize = 36;

/// The data folder.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Removed with the value (`--dev`).
    temporary: bool,
}

impl DataFolder {
    /// Opens a folder, or makes it with all that lead to it.
    ///
    /// # Errors
    /// A sentence that names the path, when it cannot be made, or is of a later format than this build knows.
    pub fn open(path: &Path) -> Result<DataFolder, String> {
        make_private_folder(path).map_err(|error| format!("data_dir {}: {error}", path.display()))?;
        format::check(path)?;
        Ok(DataFolder { path: path.to_owned(), temporary: false })
    }

    /// A new folder among the system's temporary ones; it is removed with the value.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    pub fn temporary() -> Result<DataFolder, String> {
        let path = std::env::temp_dir().join(format!("holdfast-dev-{}", entropy::uuid()?));
        // Not recursive: a folder that is there already is somebody else's.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("temporary data folder {}: {error}", path.display()))?;
        Ok(DataFolder { path, temporary: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of this server, made and kept at the first start.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn server_id(&self) -> Result<String, String> {
        let path = self.path.join(SERVER_ID_FILE);
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => {
                let id = text.trim();
                let fits = id.len() == SERVER_ID_BYTES && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                if fits { Ok(id.to_owned()) } else { Err(wrong(&"it holds no UUID")) }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let id = entropy::uuid()?;
                write_whole(&path, format!("{id}\n").as_bytes()).map_err(|error| wrong(&error))?;
                Ok(id)
            }
            Err(error) => Err(wrong(&error)),
        }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            log::warn!("temporary data folder is left behind: path={} error=\"{error}\"", self.path.display());
        }
    }
}

/// Makes a folder for its owner only, unless it is there.
///
/// # Errors
/// Whatever the system says.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file so that it is either whole and on disk, or as it was before: beside it, synced, renamed, and the
/// folder synced too. For its owner only.
///
/// # Errors
/// Whatever the system says; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // The error to tell is the first one; a file that is left beside is overwritten by the next try.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_made_for_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        DataFolder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::write(path.join("file"), "").unwrap();
        let error = DataFolder::open(&path.join("file/c")).unwrap_err();
        assert!(error.starts_with(&format!("data_dir {}/file/c: ", path.display())), "{error}");
    }

    #[test]
    fn the_id_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let id = folder.server_id().unwrap();
        assert_eq!(folder.server_id().unwrap(), id);
        assert_eq!(mode(&parent.path().join("server-id")), 0o600);
        fs::write(parent.path().join("server-id"), "no id").unwrap();
        assert!(folder.server_id().unwrap_err().ends_with("server-id: it holds no UUID"));
    }

    #[test]
    fn a_temporary_folder_goes_with_its_value() {
        let folder = DataFolder::temporary().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(mode(&path), 0o700);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        write_whole(&path, b"one").unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write_whole(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(mode(&path), 0o600);
    }
}
