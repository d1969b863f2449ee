//! A file that only its owner may read, and that has its name only once it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// A file that is being written. Dropped before [`PrivateFile::keep`], it leaves nothing.
pub(crate) struct PrivateFile {
    file: File,
    /// Its name until it is whole; `None` for what is no regular file, as a pipe, and is written as it is.
    part: Option<PathBuf>,
    name: PathBuf,
}

impl PrivateFile {
    /// Begins it.
    ///
    /// # Errors
    /// A place where no file can be made.
    pub(crate) fn create(name: &Path) -> Result<PrivateFile, Failure> {
        PrivateFile::create_for(name, 0o600)
    }

    /// Begins one that everybody may read, as far as the caller's umask lets them: for certificates.
    ///
    /// # Errors
    /// As [`PrivateFile::create`].
    pub(crate) fn create_readable(name: &Path) -> Result<PrivateFile, Failure> {
        PrivateFile::create_for(name, 0o644)
    }

    fn create_for(name: &Path, mode: u32) -> Result<PrivateFile, Failure> {
        let failed = |error: io::Error| Failure::Usage(format!("{}: {error}", name.display()));
        if fs::metadata(name).is_ok_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(name).map_err(failed)?;
            return Ok(PrivateFile { file, part: None, name: name.to_owned() });
        }
        let mut part = name.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        // New, so that nobody else has opened it, and not at the end of somebody's link.
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).map_err(failed)?;
        Ok(PrivateFile { file, part: Some(part), name: name.to_owned() })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// A full disk, and the like.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// It is whole: gives it its name, on the disk.
    ///
    /// # Errors
    /// As [`PrivateFile::write_all`].
    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        if let Some(part) = &self.part {
            let kept = self.file.sync_all().and_then(|()| fs::rename(part, &self.name));
            kept.map_err(|error| self.failed(&error))?;
            self.part = None;
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::Other(format!("{}: {error}", self.name.display()))
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // What is left of it harms nobody.
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_whole_and_private_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("secret.txt");
        fs::write(&name, "old, and longer than the new one").unwrap();
        fs::set_permissions(&name, fs::Permissions::from_mode(0o644)).unwrap();

        let mut left = PrivateFile::create(&name).unwrap();
        left.write_all(b"half").unwrap();
        drop(left);
        assert_eq!(fs::read_to_string(&name).unwrap(), "old, and longer than the new one");

        let mut kept = PrivateFile::create(&name).unwrap();
        kept.write_all(b"new").unwrap();
        kept.keep().unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), "new");
        assert_eq!(fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");

        PrivateFile::create(Path::new("/dev/null")).unwrap().keep().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        for nowhere in [folder.path().join("no/where"), folder.path().to_owned()] {
            assert!(matches!(PrivateFile::create(&nowhere), Err(Failure::Usage(_))), "{}", nowhere.display());
        }
    }
}
