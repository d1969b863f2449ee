//! The private keys that sign identities and seal variables, one file each in the data folder. They are never in the
//! log, where only the public half is: servers of a cluster give them to each other over their links.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

use crate::api::identity::Signer;
use crate::api::seal::{Sealer, SealingKey};

use super::entropy;
use super::files::{make_private_folder, write_whole};
use super::inbox::{Post, Told};

/// The folder below the data folder.
const FOLDER: &str = "keyring";
/// `<key id>.pk8`: an Ed25519 key in PKCS#8 version 2 form (RFC 8410, RFC 5958).
const EXTENSION: &str = "pk8";
/// What a deleted key's file ends with.
const LAID_ASIDE: &str = "pk8.deleted";

/// Makes and loads signing keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    folder: PathBuf,
}

impl Keyring {
    /// The keyring of a data folder. Touches no file.
    pub fn new(data_folder: &Path) -> Keyring {
        Keyring { folder: data_folder.join(FOLDER) }
    }

    /// Loads the key with this id, else the first one on disk, else makes one. Blocks on the disk.
    ///
    /// A key that is wanted and not here was made by another server: this one then needs a key of its own.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn load_or_make(&self, wanted: Option<&str>) -> Result<Signer, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", self.folder.display());
        make_private_folder(&self.folder).map_err(|error| wrong(&error))?;
        match wanted {
            Some(key_id) if is_key_id(key_id) => {
                if let Some(signer) = self.load(key_id)? {
                    return Ok(signer);
                }
                log::warn!("signing key is not on this server, making another: key_id={key_id}");
            }
            Some(_) => log::warn!("signing key has an id that is no UUID, making another"),
            None => {
                if let Some(key_id) = self.first()? {
                    return self.load(&key_id)?.ok_or_else(|| wrong(&"a key has vanished"));
                }
            }
        }
        self.make()
    }

    /// The same on a thread of its own; the loop is told when it is done.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn fetch(&self, wanted: Option<String>, fresh: bool, post: &Post) -> std::io::Result<()> {
        let (keyring, post) = (self.clone(), post.clone());
        thread::Builder::new().name("signing-key".to_owned()).spawn(move || {
            let signer = if fresh { keyring.make_another() } else { keyring.load_or_make(wanted.as_deref()) };
            let result = signer.and_then(|signer| {
                let sealer = keyring.sealer(signer.key_id())?;
                Ok((Arc::new(signer), Arc::new(sealer)))
            });
            post.tell(Told::SigningKey { wanted, fresh, result });
        })?;
        Ok(())
    }

    /// Makes a key in any case. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn make_another(&self) -> Result<Signer, String> {
        make_private_folder(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        self.make()
    }

    /// Renames a deleted key's file, on a thread of its own: it is loaded no more, and not lost either, as an older
    /// snapshot may hold variables under it.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn lay_aside(&self, key_id: String) -> std::io::Result<()> {
        let keyring = self.clone();
        thread::Builder::new().name("signing-key".to_owned()).spawn(move || match keyring.rename_deleted(&key_id) {
            Ok(to) => log::info!("key was deleted: key_id={key_id} laid_aside={}", to.display()),
            Err(error) => log::error!("deleted key stays on disk: key_id={key_id} error=\"{error}\""),
        })?;
        Ok(())
    }

    /// The bytes of a key's file, checked to be a key; `None` when it is not here. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(&self, key_id: &str) -> Result<Option<Vec<u8>>, String> {
        if !is_key_id(key_id) {
            return Err("its id is no UUID".to_owned());
        }
        let path = self.path_of(key_id);
        match fs::read(&path) {
            Ok(bytes) => match Signer::new(key_id, &bytes) {
                Ok(_) => Ok(Some(bytes)),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Keeps a key that another server made: it is on disk when this returns. One that is here already is never
    /// replaced by another. Blocks on the disk.
    ///
    /// # Errors
    /// The bytes are no key, or not those that are here under this id; or a sentence that names the file.
    pub fn keep(&self, key_id: &str, bytes: &[u8]) -> Result<(), String> {
        if !is_key_id(key_id) {
            return Err("its id is no UUID".to_owned());
        }
        Signer::new(key_id, bytes)?;
        let path = self.path_of(key_id);
        match self.read(key_id)? {
            Some(held) if held == bytes => return Ok(()),
            Some(_) => return Err(format!("{}: another key is here under this id", path.display())),
            None => {}
        }
        make_private_folder(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        write_whole(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn rename_deleted(&self, key_id: &str) -> Result<PathBuf, String> {
        if !is_key_id(key_id) {
            return Err("its id is no UUID".to_owned());
        }
        let from = self.path_of(key_id);
        let to = from.with_extension(LAID_ASIDE);
        fs::rename(&from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        let synced = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| format!("{}: {error}", self.folder.display()))?;
        Ok(to)
    }

    fn path_of(&self, key_id: &str) -> PathBuf {
        self.folder.join(key_id).with_extension(EXTENSION)
    }

    fn load(&self, key_id: &str) -> Result<Option<Signer>, String> {
        let path = self.path_of(key_id);
        match fs::read(&path) {
            Ok(bytes) => Signer::new(key_id, &bytes).map(Some).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// All keys on disk, to seal with the one of this id.
    fn sealer(&self, active: &str) -> Result<Sealer, String> {
        let mut keys = Vec::new();
        for key_id in self.ids()? {
            let path = self.path_of(&key_id);
            let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            keys.push(SealingKey::derive(&key_id, &bytes)?);
        }
        Sealer::new(keys, active).ok_or_else(|| format!("{}: key {active} is not there", self.folder.display()))
    }

    /// The first id in the order of text, so that the choice does not hang on how the folder lists its files.
    fn first(&self) -> Result<Option<String>, String> {
        Ok(self.ids()?.into_iter().min())
    }

    fn ids(&self) -> Result<Vec<String>, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", self.folder.display());
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            let is_key = path.extension().is_some_and(|extension| extension == EXTENSION);
            if let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).filter(|id| is_key && is_key_id(id)) {
                ids.push(id.to_owned());
            }
        }
        Ok(ids)
    }

    fn make(&self) -> Result<Signer, String> {
        let key_id = entropy::uuid()?;
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| "the system's source of randomness fails".to_owned())?;
        let signer = Signer::new(&key_id, key.as_ref())?;
        let path = self.path_of(&key_id);
        write_whole(&path, key.as_ref()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(signer)
    }
}

/// Whether a text is safe as a file's name: what a UUID is made of, and nothing that walks elsewhere.
fn is_key_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(folder.path());
        let made = keyring.load_or_make(None).unwrap();
        let path = folder.path().join("keyring").join(format!("{}.pk8", made.key_id()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let again = keyring.load_or_make(None).unwrap();
        assert_eq!((again.key_id(), again.public_key()), (made.key_id(), made.public_key()));
        let by_id = keyring.load_or_make(Some(made.key_id())).unwrap();
        assert_eq!(by_id.public_key(), made.public_key());
        // The key of another server is not here; an id that is none never becomes a path.
        for other in ["2f2d1c08-9e27-4b0a-a3b5-7d5f9be7a111", "../../etc/passwd"] {
            assert_ne!(keyring.load_or_make(Some(other)).unwrap().key_id(), made.key_id());
        }
    }

    #[test]
    fn another_key_is_made_beside_the_first_and_a_deleted_one_is_laid_aside() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(folder.path());
        let first = keyring.load_or_make(None).unwrap();
        let second = keyring.make_another().unwrap();
        assert_ne!(first.key_id(), second.key_id());
        let sealer = keyring.sealer(second.key_id()).unwrap();
        assert!(sealer.has(first.key_id()) && **sealer.active_id() == *second.key_id());
        let laid = keyring.rename_deleted(first.key_id()).unwrap();
        assert_eq!(laid.file_name().unwrap().to_str().unwrap(), format!("{}.pk8.deleted", first.key_id()));
        assert!(laid.exists());
        assert!(!keyring.sealer(second.key_id()).unwrap().has(first.key_id()), "it is loaded no more");
        // Once only, and nothing outside the folder.
        assert!(keyring.rename_deleted(first.key_id()).unwrap_err().contains(first.key_id()));
        assert!(keyring.rename_deleted("../../etc/passwd").is_err());
        // Its old name brings it back.
        fs::rename(&laid, laid.with_extension("")).unwrap();
        assert!(keyring.sealer(second.key_id()).unwrap().has(first.key_id()));
    }

    #[test]
    fn a_key_of_another_server_is_kept_once_and_never_replaced() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (Keyring::new(here.path()), Keyring::new(there.path()));
        let made = theirs.load_or_make(None).unwrap();
        let other = theirs.make_another().unwrap();
        let bytes = theirs.read(made.key_id()).unwrap().unwrap();
        assert_eq!(ours.read(made.key_id()), Ok(None));
        ours.keep(made.key_id(), &bytes).unwrap();
        ours.keep(made.key_id(), &bytes).unwrap();
        assert_eq!(ours.read(made.key_id()).unwrap().unwrap(), bytes);
        let mode = fs::metadata(ours.path_of(made.key_id())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ours.load_or_make(None).unwrap().public_key(), made.public_key());
        let wrong = theirs.read(other.key_id()).unwrap().unwrap();
        assert!(ours.keep(made.key_id(), &wrong).unwrap_err().contains("another key is here"));
        assert!(ours.keep(other.key_id(), b"no key").is_err());
        for no_id in ["", "../../etc/passwd", "x"] {
            assert!(ours.keep(no_id, &bytes).is_err() && ours.read(no_id).is_err());
        }
        assert_eq!(ours.read(made.key_id()).unwrap().unwrap(), bytes);
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(folder.path());
        let made = keyring.load_or_make(None).unwrap();
        let path = folder.path().join("keyring").join(format!("{}.pk8", made.key_id()));
        fs::write(&path, b"no key").unwrap();
        assert!(keyring.load_or_make(None).unwrap_err().contains(made.key_id()));
    }
}
