//! Archives: what was packed is unpacked, and nothing else is (R1.95).

use proptest::prelude::*;

use super::*;

fn meta() -> Meta {
    let server = Server { suffrage: 0, id: "a".to_owned(), address: "127.0.0.1:4647".to_owned() };
    let configuration = Configuration { servers: vec![server] };
    Meta { id: "2-9".to_owned(), index: 9, term: 2, configuration, ..Meta::default() }
}

fn packed(state: &[u8]) -> Vec<u8> {
    let archive = write(meta(), || state.chunks(100).map(<[u8]>::to_vec)).unwrap();
    let bytes = archive.pieces.concat();
    let mut sum = Context::new(&SHA256);
    sum.update(&bytes);
    assert_eq!(archive.sha256, bytes_of(sum), "the sum is that of the whole");
    bytes
}

/// A gzip of any tar.
fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(tar).unwrap();
    out.finish().unwrap()
}

/// A tar of any files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.extend(header(name, bytes.len() as u64));
        out.extend(*bytes);
        out.extend(padding(bytes.len() as u64));
    }
    out.extend([0; 2 * BLOCK]);
    out
}

fn sha(bytes: &[u8]) -> String {
    let mut sum = Context::new(&SHA256);
    sum.update(bytes);
    hex(sum)
}

/// Files with right sums, of a `meta.json` of one's own.
fn with_meta(meta: &[u8], state: &[u8]) -> Vec<u8> {
    let sums = format!("{}  {META}\n{}  {STATE}\n", sha(meta), sha(state));
    gzip(&tar(&[(META, meta), (STATE, state), (SUMS, sums.as_bytes())]))
}

#[track_caller]
fn refused(bytes: &[u8]) -> String {
    read(bytes).map(|(meta, _)| meta).unwrap_err().to_string()
}

#[test]
fn what_was_packed_is_unpacked_and_always_the_same() {
    for size in [0, 1, 511, 512, 513, 70_000, 3 * PIECE_BYTES] {
        let state: Vec<u8> = (0..size).map(|at| (at * at / 7) as u8).collect();
        let bytes = packed(&state);
        let (said, unpacked) = read(&bytes).unwrap();
        let expected = Meta { version: VERSION, format: FORMAT.to_owned(), size: size as u64, ..meta() };
        assert_eq!((said, unpacked), (expected, state.clone()));
        assert_eq!(packed(&state), bytes, "the same bytes each time");
    }
}

#[test]
fn other_readers_find_what_they_look_for() {
    let mut plain = Vec::new();
    GzDecoder::new(&packed(b"state")[..]).read_to_end(&mut plain).unwrap();
    // The names of Raft's own snapshots, and numbers where their readers want numbers.
    let text = String::from_utf8_lossy(&plain);
    for part in ["\"Version\":4801", "\"ID\":\"2-9\"", "\"Index\":9", "\"Term\":2", "\"Peers\":null", "\"Size\":5"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(text.contains("\"Servers\":[{\"Suffrage\":0,\"ID\":\"a\",\"Address\":\"127.0.0.1:4647\"}]"), "{text}");
    assert!(text.contains(&format!("{}  state.bin\n", sha(b"state"))), "{text}");
    assert_eq!(plain.len() % BLOCK, 0);
}

/// Packed bytes can say the same in several ways (a time in the head, another distance to the same zeros), so a flip is
/// found or says the same.
#[test]
fn no_flipped_bit_changes_what_is_read() {
    let bytes = packed(b"the state of something");
    let read_before = read(&bytes).unwrap();
    let mut refused = 0;
    for at in 0..8 * bytes.len() {
        let mut bent = bytes.clone();
        bent[at / 8] ^= 1 << (at % 8);
        match read(&bent) {
            Ok(same) => assert_eq!(same, read_before, "bit {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 8 * bytes.len() * 8 / 10, "{refused} of {}", 8 * bytes.len());
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let bytes = packed(b"the state of something");
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(refused(&[]), "failed to decompress snapshot: EOF");
    assert_eq!(refused(b"garbage"), "failed to decompress snapshot: unexpected EOF");
    assert_eq!(refused(b"much more garbage"), "failed to decompress snapshot: gzip: invalid header");
    assert_eq!(refused(&bytes[..40]), "failed to read snapshot file: unexpected EOF");
    let after = "failed to read snapshot file: bytes after the end of the snapshot";
    assert_eq!(refused(&[&bytes[..], b"x"].concat()), after);
    assert_eq!(refused(&[&bytes[..], &bytes[..]].concat()), after);
}

#[test]
fn files_are_the_three_and_as_summed() {
    let state = b"state".as_slice();
    let meta = serde_json::to_vec(&Meta { version: VERSION, format: FORMAT.to_owned(), size: 5, ..meta() }).unwrap();
    let meta = meta.as_slice();
    let sums = format!("{}  {META}\n{}  {STATE}\n", sha(meta), sha(state));
    let good = sums.as_bytes();
    read(&gzip(&tar(&[(META, meta), (STATE, state), (SUMS, good)]))).unwrap();
    read(&gzip(&tar(&[(SUMS, good), (STATE, state), (META, meta)]))).unwrap();
    let half = format!("{}  {META}\n", sha(meta));
    let wrong = format!("{}  {META}\n{}  {STATE}\n", sha(meta), sha(meta));
    let more = format!("{sums}{}  other\n", sha(meta));
    let twice = format!("{sums}{}  {STATE}\n", sha(state));
    for (files, words) in [
        (&[(META, meta), (STATE, state), (SUMS, good), ("x", b"")][..], "unexpected file \"x\" in snapshot"),
        (&[(META, meta), ("../state.bin", state), (SUMS, good)], "unexpected file \"../state.bin\" in snapshot"),
        (&[(META, meta), (STATE, state), (STATE, state), (SUMS, good)], "file \"state.bin\" comes twice"),
        (&[(META, meta), (SUMS, good)], "file missing for \"state.bin\""),
        (&[(STATE, state), (SUMS, good)], "file missing for \"meta.json\""),
        (&[(META, meta), (STATE, state)], "file missing for \"SHA256SUMS\""),
        (&[(META, meta), (STATE, state), (SUMS, half.as_bytes())], "list missing hash for \"state.bin\""),
        (&[(META, meta), (STATE, state), (SUMS, wrong.as_bytes())], "hash check failed for \"state.bin\""),
        (&[(META, meta), (STATE, b"State"), (SUMS, good)], "hash check failed for \"state.bin\""),
        (&[(META, meta), (STATE, state), (SUMS, more.as_bytes())], "a sum too many for \"other\""),
        (&[(META, meta), (STATE, state), (SUMS, twice.as_bytes())], "a sum too many for \"state.bin\""),
        (&[(META, meta), (STATE, state), (SUMS, b"nothing")], "a line of the sums is malformed"),
        (&[(META, meta), (STATE, state), (SUMS, b"\xff  x")], "sums are no text"),
    ] {
        let why = refused(&gzip(&tar(files)));
        assert!(why.contains(words), "{why:?} is not about {words:?}");
    }
}

#[test]
fn a_foreign_snapshot_is_told_so() {
    let nomads =
        br#"{"Version":1,"ID":"2-15-1","Index":15,"Term":2,"Peers":"kQ==","Configuration":{"Servers":[]},"Size":5}"#;
    assert_eq!(
        refused(&with_meta(nomads, b"state")),
        "snapshot is not of holdfast: its version is 1, known is holdfast-1 only"
    );
    let later = br#"{"Version":4802,"Format":"holdfast-2","Size":5}"#;
    assert_eq!(
        refused(&with_meta(later, b"state")),
        "snapshot is not of holdfast: its format is \"holdfast-2\" version 4802, known is holdfast-1 version 4801"
    );
    let short = br#"{"Version":4801,"Format":"holdfast-1","Size":6}"#;
    assert!(refused(&with_meta(short, b"state")).contains("state is of 5 bytes, not 6"));
    assert!(refused(&with_meta(b"[", b"state")).starts_with("failed to decode snapshot metadata: "));
}

#[test]
fn headers_that_lie_are_refused_before_anything_is_held() {
    // A state that says to be as long as can be, of which nothing follows.
    let mut bomb = header(STATE, MAX_STATE_BYTES).to_vec();
    assert_eq!(refused(&gzip(&bomb)), "failed to read snapshot file: unexpected EOF");
    bomb = header(STATE, MAX_STATE_BYTES + 1).to_vec();
    assert_eq!(refused(&gzip(&bomb)), format!("state in snapshot is larger than {MAX_STATE_BYTES} bytes"));
    bomb = header(META, MAX_SMALL_BYTES + 1).to_vec();
    assert!(refused(&gzip(&bomb)).contains("is larger than 1048576 bytes"));
    // What is there is counted too, not only what is said.
    let many = packed(&[0; 100_000]);
    assert!(many.len() < 5_000);
    assert_eq!(read_within(&many, 99_999).unwrap_err(), ArchiveError::TooLarge(99_999));
    // Zeros without an end.
    assert!(refused(&gzip(&vec![0; 80_000])).contains("bytes after the end"));
    for (at, byte) in [(156, b'5'), (257, b'x'), (124, b'9'), (0, 0xff)] {
        let mut block = header(META, 2);
        block[at] = byte;
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        assert!(read(&gzip(&block)).is_err(), "byte {at}");
    }
    let mut filled = tar(&[(META, b"{}")]);
    filled[BLOCK + 2] = 1;
    assert!(refused(&gzip(&filled)).contains("bytes between files"));
}

proptest! {
    #[test]
    fn any_bytes_are_an_archive_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&gzip(&bytes)).is_err());
        let mut behind = header(META, bytes.len() as u64).to_vec();
        behind.extend(&bytes);
        prop_assert!(read(&gzip(&behind)).is_err());
    }

    #[test]
    fn any_state_comes_back(state in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(read(&packed(&state)).unwrap().1, state);
    }
}
