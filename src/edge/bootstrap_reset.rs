//! The file `acl-bootstrap-reset`: an operator who lost the first management token writes the index into it that a
//! second bootstrap named, and may make another one.
//!
//! Never writes or removes it: once it was used, the index in it is an old one. Source: endpoint notes, section 8.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than any number has, bytes.
const FILE_BYTES_MAX: u64 = 64;

/// Where the file may lie.
#[derive(Clone, Debug)]
pub struct BootstrapReset {
    places: [PathBuf; 2],
}

impl BootstrapReset {
    /// In the data folder: in `server`, where Nomad has it, or at its top.
    pub fn new(data_dir: &Path) -> BootstrapReset {
        const NAME: &str = "acl-bootstrap-reset";
        BootstrapReset { places: [data_dir.join("server").join(NAME), data_dir.join(NAME)] }
    }

    /// The number in the first of the files that is there and holds one. 0 is none.
    pub fn read(&self) -> Option<u64> {
        self.places.iter().find_map(|path| {
            let mut text = String::new();
            File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
            text.trim().parse().ok().filter(|index| *index > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn the_number_is_read_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let reset = BootstrapReset::new(folder.path());
        assert_eq!(reset.read(), None);
        let top = folder.path().join("acl-bootstrap-reset");
        for (text, number) in [
            ("15", Some(15)),
            (" 15\n", Some(15)),
            ("0", None),
            ("", None),
            ("-1", None),
            ("x", None),
            (&*"1".repeat(100), None),
        ] {
            fs::write(&top, text).unwrap();
            assert_eq!(reset.read(), number, "{text:?}");
        }
        fs::write(&top, "15").unwrap();
        fs::create_dir(folder.path().join("server")).unwrap();
        assert_eq!(reset.read(), Some(15));
        fs::write(folder.path().join("server/acl-bootstrap-reset"), "16").unwrap();
        assert_eq!(reset.read(), Some(16));
        fs::remove_file(&top).unwrap();
        fs::write(folder.path().join("server/acl-bootstrap-reset"), b"\xff").unwrap();
        assert_eq!(reset.read(), None);
    }
}
