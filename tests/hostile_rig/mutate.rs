//! Bytes to harm with: noise, and conversations of real peers with flips, cuts, repeats and huge lengths.

use std::fs;
use std::path::Path;

use holdfast::base::rng::Rng;
use serde_json::Value;

/// What clients sent in the recorded conversations, each as its turns.
pub fn conversations() -> Vec<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let turns = vector["turns"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let ours = turns.filter(|turn| turn["dir"] == "c2s").filter_map(|turn| turn["hex"].as_str());
        let turns: Vec<Vec<u8>> = ours.filter_map(unhex).collect();
        if !turns.is_empty() {
            found.push(turns);
        }
    }
    assert!(found.len() > 50, "only {} conversations were found", found.len());
    found
}

/// `None` for those that are noted by their beginning only.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// HTTP requests, good and odd, to begin with.
pub fn http_requests() -> Vec<Vec<u8>> {
    [
        "GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/metrics?format=prometheus HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /v1/regions?pretty&index=1&wait=10ms HTTP/1.0\r\n\r\n",
        "PUT /v1/nodes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /v1/agent/health?type=server HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /.well-known/jwks.json HTTP/1.1\r\nHost: a\r\nX-Nomad-Token: t\r\nAccept-Encoding: gzip\r\n\r\n",
        "GET /v1/event/stream?topic=Node&index=0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/agent/monitor?log_level=trace HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/regions HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/nodes?index=1&wait=1s HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n",
        "GET /v1/operator/snapshot HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /v1/operator/snapshot HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nhellohell",
        "PUT /v1/operator/snapshot HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "PUT /v1/var/a?cas=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\n{\"Items\":{\"k\":\"v\"}}  ",
        "GET /%2e%2e/%00?a=%zz&&=;# HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// Noise.
pub fn noise(rng: &mut Rng, max_bytes: u64) -> Vec<u8> {
    (0..rng.below(max_bytes + 1)).map(|_| rng.next_u64() as u8).collect()
}

/// A place in bytes.
pub fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    rng.below(bytes.len() as u64) as usize
}

/// Harms bytes in one to four ways.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        if bytes.is_empty() {
            bytes.extend(noise(rng, 16));
            continue;
        }
        let at = place(rng, bytes);
        match rng.below(8) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(..at)),
            4 => {
                let piece = bytes[at..(at + 64).min(bytes.len())].to_vec();
                for _ in 0..rng.below(20) {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            5 => {
                let extra = noise(rng, 40);
                drop(bytes.splice(at..at, extra));
            }
            // A length that promises far more than comes: yamux, msgpack str32, bin32, array32, map32.
            6 => {
                let huge = [0x00, 0x01, 0x40, 0x7f, 0xff][rng.below(5) as usize];
                let end = (at + 4).min(bytes.len());
                bytes[at..end].fill(huge);
            }
            _ => {
                let marker = [0xdb, 0xc6, 0xdd, 0xdf, 0xc9, 0xd9, 0xc1, 0xde][rng.below(8) as usize];
                bytes[at] = marker;
            }
        }
    }
    bytes.truncate(1 << 20);
}
