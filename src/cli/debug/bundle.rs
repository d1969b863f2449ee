//! The archive that grows: files, an index that names each with its source, and what could not be had.
//!
//! Whatever goes in passes the redaction first. A file has a cap, and so has the whole.

use serde_json::{Value, json};

use crate::wire::archive;

use super::redact;

/// Bytes of one file; a longer text is cut, longer JSON is left out.
pub(super) const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all files together, before they are packed.
const ALL_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Files and their index.
pub(super) struct Bundle {
    /// Values that are in no file: the caller's own token.
    known: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    index: Vec<Value>,
    bytes: usize,
    errors: usize,
}

/// Something that was asked for, on its way in.
pub(super) struct Item {
    /// Its path in the archive.
    pub(super) file: String,
    /// What was asked for it.
    pub(super) source: String,
    /// What came.
    pub(super) content: Result<Content, String>,
}

/// What is in a file.
pub(super) enum Content {
    Json(Value),
    Text(Vec<u8>),
}

impl Bundle {
    pub(super) fn new(known: Vec<String>) -> Bundle {
        Bundle { known, files: Vec::new(), index: Vec::new(), bytes: 0, errors: 0 }
    }

    /// How many files there are, and how many things could not be had.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.files.len(), self.errors)
    }

    /// Takes something in, or notes why it is missing.
    pub(super) fn add(&mut self, item: Item) {
        let Item { file, source, content } = item;
        let mut cut_from = None;
        let bytes = match content {
            Err(why) => Err(why),
            Ok(Content::Json(mut value)) => {
                redact::redact(&mut value, &self.known);
                let text = format!("{value:#}\n").into_bytes();
                let too_long = format!("{} bytes are more than {FILE_BYTES_MAX}", text.len());
                if text.len() > FILE_BYTES_MAX { Err(too_long) } else { Ok(text) }
            }
            Ok(Content::Text(text)) => {
                let mut text = redact::redact_text(&String::from_utf8_lossy(&text), &self.known).into_bytes();
                cut_from = (text.len() > FILE_BYTES_MAX).then_some(text.len());
                text.truncate(FILE_BYTES_MAX);
                Ok(text)
            }
        };
        let bytes = bytes.and_then(|bytes| match self.bytes.saturating_add(bytes.len()) {
            all if all > ALL_BYTES_MAX => Err(format!("the archive would be longer than {ALL_BYTES_MAX} bytes")),
            all => {
                self.bytes = all;
                Ok(bytes)
            }
        });
        match bytes {
            Ok(bytes) => {
                let mut entry = json!({ "file": file, "source": source, "bytes": bytes.len() });
                if let (Some(from), Some(fields)) = (cut_from, entry.as_object_mut()) {
                    fields.insert("cut_from_bytes".to_owned(), from.into());
                }
                self.index.push(entry);
                self.files.push((file, bytes));
            }
            Err(why) => {
                self.errors += 1;
                let why = redact::redact_text(&why, &self.known);
                self.index.push(json!({ "file": file, "source": source, "error": why }));
            }
        }
    }

    /// The archive, with the index as its first file.
    ///
    /// # Errors
    /// A name that no archive takes.
    pub(super) fn pack(mut self, unix_seconds: u64) -> Result<Vec<u8>, String> {
        let index = format!("{:#}\n", json!({ "files": self.index }));
        self.files.insert(0, ("index.json".to_owned(), index.into_bytes()));
        archive::pack(&self.files, unix_seconds).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn item(file: &str, content: Result<Content, String>) -> Item {
        Item { file: file.to_owned(), source: "test".to_owned(), content }
    }

    #[test]
    fn what_is_cut_or_missing_is_said() {
        let mut bundle = Bundle::new(vec!["s3cret".to_owned()]);
        bundle.add(item("a.json", Ok(Content::Json(json!({ "SecretID": "x", "n": "s3cret" })))));
        bundle.add(item("b.txt", Ok(Content::Text(vec![b'a'; FILE_BYTES_MAX + 5]))));
        bundle.add(item("c.json", Ok(Content::Json(Value::String("a".repeat(FILE_BYTES_MAX))))));
        bundle.add(item("d.json", Err("refused: s3cret".to_owned())));
        assert_eq!(bundle.counts(), (2, 2));
        assert_eq!(bundle.files[1].1.len(), FILE_BYTES_MAX);
        assert_eq!(bundle.index[1]["cut_from_bytes"], FILE_BYTES_MAX + 5);
        assert!(bundle.index[2]["error"].as_str().unwrap().contains("more than"));
        assert_eq!(bundle.index[3]["error"], format!("refused: {}", redact::REDACTED));
        let text = String::from_utf8(bundle.files[0].1.clone()).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("\"x\""), "{text}");
        assert!(!bundle.pack(0).unwrap().is_empty());
    }

    #[test]
    fn the_whole_has_a_cap() {
        let mut bundle = Bundle::new(Vec::new());
        for nth in 0..=ALL_BYTES_MAX / FILE_BYTES_MAX {
            bundle.add(item(&nth.to_string(), Ok(Content::Text(vec![b'a'; FILE_BYTES_MAX]))));
        }
        assert_eq!(bundle.counts(), (ALL_BYTES_MAX / FILE_BYTES_MAX, 1));
    }
}
