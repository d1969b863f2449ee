//! Signed identities: made, checked, renewed.

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::super::identity::{IDENTITY_TTL_SECONDS, Identity, MAX_TOKEN_BYTES, Signer};
use super::*;
use crate::base::time::WallTime;
use crate::wire::body::node_call::{NodeClientAllocsResponse, NodeUpdateResponse};

const KEY: &str = "91350d1f-5b1b-06b4-9f2f-ec5ce6ce721d";

/// The key made of this one byte, in PKCS#8 v2 (RFC 5958; RFC 8410, section 7).
fn signer_of(key_id: &str, byte: u8) -> Arc<Signer> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[byte; 32]).unwrap();
    let mut pkcs8 = b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    pkcs8.extend([byte; 32]);
    pkcs8.extend(b"\x81\x21\x00");
    pkcs8.extend(pair.public_key().as_ref());
    Arc::new(Signer::new(key_id, &pkcs8).unwrap())
}

/// The key of the server under test.
pub(super) fn signer(key_id: &str) -> Arc<Signer> {
    signer_of(key_id, 1)
}

/// With a key that the state knows, and an agent of this version.
fn signing(version: &str) -> (World, NodeUpdateResponse) {
    let mut world = World::new();
    let signer = signer(KEY);
    let public_key = signer.public_key().to_vec();
    world.write(Command::SigningKeyAdd { key_id: KEY.to_owned(), public_key, create_time: NOW });
    world.ctx.signer = Some(signer);
    let node = node_map(NODE, SECRET, version);
    let reply = world.call("Node.Register", &[("Node", node)]).body();
    world.caller = World::connection();
    (world, reply)
}

fn later(world: &mut World, seconds: i64) {
    world.ctx.wall = WallTime::from_unix_nanos(NOW + seconds * 1_000_000_000);
}

fn beat(world: &mut World, token: &str) -> NodeUpdateResponse {
    world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", token)).body()
}

#[test]
fn an_identity_says_who_the_node_is() {
    let (world, reply) = signing("2.0.5");
    let token = reply.signed_identity.unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let json = |part: &str| {
        let bytes = identity::from_base64url(part).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    assert_eq!(json(parts[0]), serde_json::json!({"alg": "EdDSA", "kid": KEY, "typ": "JWT"}));
    let seconds = NOW / 1_000_000_000;
    let claims = json(parts[1]);
    let mut expected = serde_json::json!({
        "aud": "nomadproject.io", "exp": seconds + IDENTITY_TTL_SECONDS, "iat": seconds, "nbf": seconds,
        "nomad_node_datacenter": "dc1", "nomad_node_id": NODE, "nomad_node_pool": "default",
        "sub": format!("node:global:default:{NODE}:default"),
    });
    expected["jti"] = claims["jti"].clone();
    assert_eq!(claims, expected);
    assert_eq!(claims["jti"].as_str().unwrap().len(), 36);
    assert_eq!(&*world.state.node(NODE).unwrap().identity_signing_key_id, KEY);
    assert!(Signer::new(KEY, b"rubbish").is_err());
    assert_eq!(format!("{:?}", world.ctx.signer.unwrap()), "Signer");
}

/// Only agents from 1.11 on get one, and only where there is a key.
#[test]
fn older_agents_get_none() {
    for (version, given) in [("1.1.2", false), ("1.11.0-alpha", false), ("1.11.0-beta.1", true), ("x", false)] {
        assert_eq!(signing(version).1.signed_identity.is_some(), given, "{version}");
    }
}

#[test]
fn an_identity_proves_its_node_alone() {
    let (mut world, reply) = signing("2.0.5");
    let token = reply.signed_identity.unwrap();
    world.register(OTHER, OTHER_SECRET);
    world.caller = World::connection();
    assert_eq!(beat(&mut world, &token).meta.index, 4);
    assert_eq!(world.caller.proven_node.as_deref(), Some(NODE));
    world.caller = World::connection();
    let ask = [("NodeID", text(NODE)), ("AuthToken", text(&token))];
    world.call("Node.GetClientAllocs", &ask).body::<NodeClientAllocsResponse>();
    world.caller = World::connection();
    let came = world.call("Node.UpdateStatus", &heartbeat(OTHER, "ready", &token));
    assert_eq!(came.error(), "Permission denied");
}

#[test]
fn identities_are_checked() {
    let (mut world, reply) = signing("2.0.5");
    let token = reply.signed_identity.unwrap();
    let node = Arc::clone(world.state.node(NODE).unwrap());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let now = world.ctx.wall;
    let stranger = signer_of(KEY, 2).sign(&node, "global", now, 1);
    let unknown = signer_of("other-key", 2).sign(&node, "global", now, 1);
    let gone = world.ctx.signer.as_ref().unwrap().sign(&node, "global", WallTime::from_unix_nanos(0), 1);
    let soon = WallTime::from_unix_nanos(NOW + 3_600_000_000_000);
    let early = world.ctx.signer.as_ref().unwrap().sign(&node, "global", soon, 1);
    for (token, error) in [
        (stranger, "Permission denied"),
        (early, "Permission denied"),
        (format!("{signed}."), "Permission denied"),
        (format!("{signed}.{}", &signature[..80]), "Permission denied"),
        (format!("{header}..{signature}"), "Permission denied"),
        (format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES)), "Permission denied"),
        // Over, or of keys that are gone: the agent proves itself by registering again.
        (gone, "node not found"),
        (unknown, "node not found"),
    ] {
        let came = world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", &token));
        assert_eq!(came.error(), error, "{token}");
    }
    // A node that was removed: its identity still makes it register again, a forged one does not.
    world.call("Node.Deregister", &[("NodeID", text(NODE))]);
    assert_eq!(world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", &token)).error(), "node not found");
    let forged = signer_of(KEY, 2).sign(&node, "global", now, 1);
    assert_eq!(world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", &forged)).error(), "Permission denied");
}

#[test]
fn identities_are_renewed_in_their_last_third() {
    let (mut world, reply) = signing("2.0.5");
    let first = reply.signed_identity.unwrap();
    beat(&mut world, &first);
    for (seconds, renewed) in [(0, false), (57_000, false), (57_601, true), (86_000, true)] {
        later(&mut world, seconds);
        let reply = beat(&mut world, &first);
        assert_eq!(reply.signed_identity.is_some(), renewed, "{seconds}");
        // The key is the same, so nothing is written: an agent takes an index without an identity for a fault.
        assert_eq!(reply.meta.index, 0);
    }
    later(&mut world, 60);
    // It has been given an identity of this key and goes on with its secret: no other one each time.
    assert!(beat(&mut world, SECRET).signed_identity.is_none());
    let mut forced = heartbeat(NODE, "ready", &first);
    forced.push(("ForceIdentityRenewal", truth(true)));
    assert!(world.call("Node.UpdateStatus", &forced).body::<NodeUpdateResponse>().signed_identity.is_some());

    // Another key: the node's key id is written with the next identity.
    world.ctx.signer = Some(signer_of("second-key", 2));
    let reply = beat(&mut world, SECRET);
    assert!(reply.signed_identity.is_some() && reply.meta.index > 0);
    assert_eq!(&*world.state.node(NODE).unwrap().identity_signing_key_id, "second-key");
    // Registering with a good identity gives no new one and keeps the key.
    let second = reply.signed_identity.unwrap();
    let node = node_map(NODE, SECRET, "2.0.5");
    let reply: NodeUpdateResponse = world.call("Node.Register", &[("Node", node), ("AuthToken", text(&second))]).body();
    assert_eq!(reply.signed_identity, None);
    assert_eq!(&*world.state.node(NODE).unwrap().identity_signing_key_id, "second-key");
}

#[test]
fn base64_has_one_text_for_a_value() {
    for (text, bytes) in [("", &b""[..]), ("Zg", b"f"), ("Zm8", b"fo"), ("Zm9v", b"foo"), ("-_-_", b"\xfb\xff\xbf")] {
        assert_eq!(identity::base64url(bytes), text);
        assert_eq!(identity::from_base64url(text).unwrap(), bytes);
    }
    for text in ["Z", "Zh", "Zm9=", "Zm 8", "Zm9vA", "+/+/"] {
        assert_eq!(identity::from_base64url(text), None, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn base64_reads_what_it_wrote(bytes: Vec<u8>) {
        let text = identity::base64url(&bytes);
        proptest::prop_assert_eq!(identity::from_base64url(&text), Some(bytes));
    }

    #[test]
    fn no_token_makes_the_parser_panic(text in "\\PC{0,60}", parts in "[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,30}\\.[A-Za-z]{0,9}") {
        let _ = Identity::parse(&text);
        let _ = Identity::parse(&parts);
    }
}
