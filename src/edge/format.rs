//! The version of a data directory's format, in the file `<data_dir>/format`: a number and a line end.
//!
//! It goes up when a build writes what an earlier one would misread. A directory without the file is of the first
//! version. A build opens every version up to its own and no later one: what it does not know, it does not touch.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::files::write_whole;

/// What this build writes.
pub const DATA_FORMAT: u32 = 1;
/// What a directory without the file is of.
const FIRST: u32 = 1;
const FORMAT_FILE: &str = "format";
/// A longer file holds no number, bytes.
const FILE_BYTES_MAX: u64 = 64;

/// Looks whether this build knows a data directory's format; changes nothing. One that is not there is fine.
///
/// # Errors
/// It is of a later version, or its file cannot be read; names the directory or the file.
pub fn check(data_dir: &Path) -> Result<(), String> {
    read(data_dir).map(drop)
}

/// As [`check`]; then names the version in the directory, where it is not named.
///
/// # Errors
/// As [`check`], and when the file cannot be written.
pub fn check_and_mark(data_dir: &Path) -> Result<(), String> {
    if read(data_dir)?.is_some() {
        return Ok(());
    }
    let path = data_dir.join(FORMAT_FILE);
    write_whole(&path, format!("{DATA_FORMAT}\n").as_bytes()).map_err(|error| format!("{}: {error}", path.display()))
}

/// The version that is named.
fn read(data_dir: &Path) -> Result<Option<u32>, String> {
    let path = data_dir.join(FORMAT_FILE);
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let text = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(wrong(&"it holds no number of a format")),
        Ok(_) => fs::read_to_string(&path).map_err(|error| wrong(&error))?,
    };
    let version: u32 = text.trim().parse().map_err(|_| wrong(&"it holds no number of a format"))?;
    match version {
        0 => Err(wrong(&"it holds no number of a format")),
        FIRST..=DATA_FORMAT => Ok(Some(version)),
        _ => Err(format!(
            "the data directory {} is of format {version}, and this build knows up to {DATA_FORMAT}: a later version of \
             holdfastd wrote it",
            data_dir.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // R6.20
    #[test]
    fn a_directory_is_marked_once_and_a_later_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (folder.path(), folder.path().join("format"));
        check(&dir.join("not/there")).unwrap();
        check(dir).unwrap();
        assert!(!file.exists());
        check_and_mark(dir).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
        check_and_mark(dir).unwrap();
        fs::write(&file, "2\n").unwrap();
        for told in [check(dir), check_and_mark(dir)] {
            let told = told.unwrap_err();
            assert!(told.starts_with(&format!("the data directory {} is of format 2, and", dir.display())), "{told}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "2\n");
        for wrong in ["", "one", "-1", "0", "99999999999", &"1".repeat(100)] {
            fs::write(&file, wrong).unwrap();
            assert!(check(dir).is_err(), "{wrong}");
        }
    }
}
