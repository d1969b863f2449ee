//! What a server remembers of its cluster: `<data_dir>/cluster.json`, small, written rarely and whole or not at all.
//!
//! It says which cluster may be joined and which founders were promised, so that a damaged one is refused: a guess
//! could let two clusters grow out of one. The checksum finds what JSON's grammar does not.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::crc32c::crc32c;
use crate::server::port::ClusterFile;

use super::files::write_whole;

/// The file's name.
const FILE: &str = "cluster.json";
/// Version of the format.
const VERSION: u64 = 1;
/// A file above this is none of ours, bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u64,
    cluster_id: String,
    founders: Vec<String>,
    known: BTreeMap<String, String>,
    /// CRC-32C of the others, as [`sum`] takes it.
    sum: u32,
}

fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Of every text with its length in front, so that no byte can pass from one to the next.
fn sum(content: &Content) -> u32 {
    let mut bytes = Vec::new();
    let mut add = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    add(&content.version.to_string());
    add(&content.cluster_id);
    add(&content.founders.len().to_string());
    content.founders.iter().for_each(|id| add(id));
    for (id, address) in &content.known {
        add(id);
        add(address);
    }
    crc32c(&bytes)
}

/// Reads the file; nothing is remembered where there is none.
///
/// # Errors
/// It is damaged, or cannot be read: names the file, and says what to do.
pub fn read(data_dir: &Path) -> Result<ClusterFile, String> {
    let path = path_of(data_dir);
    let damaged = |what: &str| {
        format!(
            "{} is damaged: {what}. Put back a copy of it; or, if the other servers are well, have them remove this one, \
             move the data folder away and start it again as a new server",
            path.display()
        )
    };
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ClusterFile::default()),
        Err(error) => return Err(wrong(error)),
        Ok(found) if found.len() > BYTES_MAX => return Err(damaged("it is too large")),
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(wrong)?;
    let content: Content = serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
    if content.version != VERSION {
        return Err(damaged(&format!("its version {} is unknown to this build", content.version)));
    }
    if content.sum != sum(&content) {
        return Err(damaged("its checksum is another"));
    }
    Ok(ClusterFile {
        cluster_id: content.cluster_id,
        founders: content.founders,
        known: content.known.into_iter().collect(),
    })
}

/// Keeps it: on disk when it returns, or as it was before.
///
/// # Errors
/// Names the file.
pub fn keep(data_dir: &Path, file: &ClusterFile) -> Result<(), String> {
    let path = path_of(data_dir);
    let mut content = Content {
        version: VERSION,
        cluster_id: file.cluster_id.clone(),
        founders: file.founders.clone(),
        known: file.known.iter().cloned().collect(),
        sum: 0,
    };
    content.sum = sum(&content);
    let mut text = serde_json::to_string_pretty(&content).map_err(|error| format!("{}: {error}", path.display()))?;
    text.push('\n');
    write_whole(&path, text.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> ClusterFile {
        ClusterFile {
            cluster_id: "0a-1b".to_owned(),
            founders: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            known: vec![("a".to_owned(), "10.0.0.1:4647".to_owned()), ("b".to_owned(), "hf2:4647".to_owned())],
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), Ok(ClusterFile::default()));
        for file in [sample(), ClusterFile::default(), sample()] {
            keep(folder.path(), &file).unwrap();
            assert_eq!(read(folder.path()), Ok(file));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    // R8.20 and the rules of founding rest on this file.
    #[test]
    fn no_damage_passes() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), &sample()).unwrap();
        let path = folder.path().join("cluster.json");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            // White space may become other white space; what it says may not change.
            match read(folder.path()) {
                Ok(file) => assert_eq!(file, sample(), "byte {at}"),
                Err(why) => assert!(why.contains("cluster.json is damaged") && why.contains("Put back"), "{why}"),
            }
            fs::write(&path, &whole[..at]).unwrap();
            if at + 1 < whole.len() {
                assert!(read(folder.path()).is_err(), "{at} bytes");
            }
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"version":2,"cluster_id":"","founders":[],"known":{},"sum":0}"#;
        fs::write(folder.path().join("cluster.json"), text).unwrap();
        assert!(read(folder.path()).unwrap_err().contains("version 2 is unknown"));
    }
}
