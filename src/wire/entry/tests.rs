//! Entries as bytes: what is written is read, and nothing else.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::var::{Sealed, VarOp, VarOpKind};
use super::*;
use crate::wire::body::session::SessionKey;
use crate::wire::msgpack::{Bytes, Msg};

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".{0,8}", ".{0,8}", 0..3)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes)
}

fn event() -> impl Strategy<Value = NodeEvent> {
    (".{0,40}", ".{0,8}", option::of(texts()), bytes(), any::<u64>()).prop_map(
        |(message, subsystem, details, timestamp, create_index)| NodeEvent {
            message,
            subsystem,
            details,
            timestamp,
            create_index,
        },
    )
}

fn strategy() -> impl Strategy<Value = DrainStrategy> {
    (any::<i64>(), any::<bool>(), bytes(), bytes()).prop_map(
        |(deadline, ignore_system_jobs, force_deadline, started_at)| DrainStrategy {
            deadline,
            ignore_system_jobs,
            force_deadline,
            started_at,
        },
    )
}

fn sealed() -> impl Strategy<Value = Sealed> {
    (".{0,8}", bytes()).prop_map(|(key_id, bytes)| Sealed { key_id: key_id.into(), bytes })
}

fn var_op() -> impl Strategy<Value = VarOp> {
    use VarOpKind::*;
    let kind = prop::sample::select(vec![Set, Cas, Delete, DeleteCas, LockAcquire, LockRelease]);
    let texts = (".{0,8}", ".{0,20}", ".{0,36}", ".{0,8}");
    let numbers = (any::<u64>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<bool>());
    (kind, texts, option::of(sealed()), numbers).prop_map(
        |(kind, (namespace, path, lock_id, owner), sealed, (check_index, ttl, lock_delay, fence, keep_items))| VarOp {
            kind,
            namespace: namespace.into(),
            path: path.into(),
            sealed,
            check_index,
            lock_id,
            ttl,
            lock_delay,
            owner,
            fence,
            keep_items,
        },
    )
}

fn lock_name() -> impl Strategy<Value = LockName> {
    (".{0,8}", ".{0,20}", ".{0,36}").prop_map(|(namespace, path, lock_id)| LockName {
        namespace: namespace.into(),
        path: path.into(),
        lock_id,
    })
}

fn resealed() -> impl Strategy<Value = Resealed> {
    (".{0,8}", ".{0,20}", any::<u64>(), sealed()).prop_map(|(namespace, path, modify_index, sealed)| Resealed {
        namespace: namespace.into(),
        path: path.into(),
        modify_index,
        sealed,
    })
}

/// Commands about variables and locks.
fn var_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        vec(var_op(), 0..4).prop_map(|ops| Command::VarApply(VarApply { ops })),
        lock_name().prop_map(Command::LockRenew),
        vec(lock_name(), 0..4).prop_map(|locks| Command::LocksExpire { locks }),
        any::<i64>().prop_map(|grace| Command::LocksGrace { grace }),
        (".{0,8}", ".{0,20}").prop_map(|(namespace, path)| Command::LockBreak { namespace, path }),
        vec(resealed(), 0..4).prop_map(|items| Command::VarReseal { items }),
    ]
}

/// A value as it is read: raw fields that were left empty are nil then.
fn as_read<T: Msg>(value: T) -> T {
    T::decode(&mut Decoder::new(&value.to_bytes())).unwrap()
}

/// Commands about tokens, policies and roles. Their bodies have tests of their own.
fn acl_command() -> impl Strategy<Value = Command> {
    let token = || {
        (".{0,36}", ".{0,36}", any::<u64>()).prop_map(|(accessor_id, secret_id, create_index)| AclToken {
            accessor_id,
            secret_id,
            create_index,
            ..AclToken::default()
        })
    };
    let policy = (".{0,8}", ".{0,40}", any::<u64>()).prop_map(|(name, rules, modify_index)| AclPolicy {
        name,
        rules,
        modify_index,
        ..AclPolicy::default()
    });
    let role = (".{0,36}", ".{0,8}").prop_map(|(id, name)| AclRole { id, name, ..AclRole::default() });
    let names = || vec(".{0,36}", 0..4);
    prop_oneof![
        (token(), any::<u64>())
            .prop_map(|(token, reset_index)| Command::AclBootstrap { token: Box::new(as_read(token)), reset_index }),
        vec(token(), 0..3).prop_map(|tokens| Command::AclUpsertTokens { tokens: as_read(tokens) }),
        names().prop_map(|accessor_ids| Command::AclDeleteTokens { accessor_ids }),
        names().prop_map(|accessor_ids| Command::AclExpireTokens { accessor_ids }),
        vec(policy, 0..3).prop_map(|policies| Command::AclUpsertPolicies { policies: as_read(policies) }),
        names().prop_map(|names| Command::AclDeletePolicies { names }),
        vec(role, 0..3).prop_map(|roles| Command::AclUpsertRoles { roles: as_read(roles) }),
        names().prop_map(|ids| Command::AclDeleteRoles { ids }),
    ]
}

/// Commands about namespaces, and of operators.
fn operator_command() -> impl Strategy<Value = Command> {
    let namespace =
        (".{0,8}", option::of(texts())).prop_map(|(name, meta)| Namespace { name, meta, ..Namespace::default() });
    let autopilot = (any::<i64>(), any::<u64>()).prop_map(|(last_contact_threshold, modify_index)| AutopilotConfig {
        last_contact_threshold,
        modify_index,
        ..AutopilotConfig::default()
    });
    let scheduler = (".{0,8}", any::<u64>()).prop_map(|(scheduler_algorithm, modify_index)| SchedulerConfiguration {
        scheduler_algorithm,
        modify_index,
        ..SchedulerConfiguration::default()
    });
    prop_oneof![
        vec(namespace, 0..3).prop_map(|namespaces| Command::NamespaceUpsert { namespaces: as_read(namespaces) }),
        vec(".{0,8}", 0..4).prop_map(|names| Command::NamespaceDelete { names }),
        ".{0,36}".prop_map(|key_id| Command::RootKeyDelete { key_id }),
        (autopilot, any::<bool>()).prop_map(|(config, cas)| Command::AutopilotSet { config, cas }),
        (scheduler, any::<bool>()).prop_map(|(config, cas)| Command::SchedulerSet { config, cas }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(id, total_bytes)| Command::RestoreBegin(RestoreBegin { id, total_bytes })),
        (any::<u64>(), any::<u64>(), bytes()).prop_map(|(id, offset, bytes)| Command::RestoreChunk(RestoreChunk {
            id,
            offset,
            bytes,
        })),
        (any::<u64>(), bytes()).prop_map(|(id, sha256)| Command::RestoreEnd(RestoreEnd { id, sha256 })),
    ]
}

/// Commands about nodes and signing keys.
fn node_command() -> impl Strategy<Value = Command> {
    let text = || ".{0,40}";
    prop_oneof![
        Just(Command::Noop),
        vec(any::<u8>(), 0..70000).prop_map(|node| Command::NodeRegister { node: Raw(node.into()) }),
        (text(), text(), option::of(event()), any::<i64>(), text(), option::of(any::<u64>())).prop_map(
            |(node_id, status, event, updated_at, identity_signing_key_id, expected_modify_index)| {
                Command::NodeUpdateStatus {
                    node_id,
                    status,
                    event,
                    updated_at,
                    identity_signing_key_id,
                    expected_modify_index,
                }
            }
        ),
        vec(text(), 0..20).prop_map(|node_ids| Command::NodeDeregister { node_ids }),
        (text(), option::of(strategy()), any::<bool>(), texts(), text()).prop_map(
            |(node_id, strategy, mark_eligible, meta, accessor_id)| Command::NodeUpdateDrain {
                node_id,
                strategy,
                mark_eligible,
                meta,
                accessor_id,
            }
        ),
        text().prop_map(|node_id| Command::NodeDrainComplete { node_id }),
        (text(), text()).prop_map(|(node_id, eligibility)| Command::NodeUpdateEligibility { node_id, eligibility }),
        btree_map(text(), vec(event(), 0..3), 0..3).prop_map(|events| Command::NodeEmitEvents { events }),
        (text(), vec(any::<u8>(), 0..40), any::<i64>()).prop_map(|(key_id, public_key, create_time)| {
            Command::SigningKeyAdd { key_id, public_key, create_time }
        }),
    ]
}

fn session_command() -> impl Strategy<Value = Command> {
    let open = (vec(any::<u8>(), 0..20), any::<i64>(), ".{0,8}", ".{0,8}", ".{0,8}").prop_map(
        |(key, ttl, name, server_id, accessor_id)| {
            Command::SessionOpen(SessionOpen { key: SessionKey(key), ttl, name, server_id, accessor_id })
        },
    );
    prop_oneof![
        open,
        any::<u64>().prop_map(|id| Command::SessionKeepAlive { id }),
        any::<u64>().prop_map(|id| Command::SessionClose { id }),
        vec(any::<u64>(), 0..5).prop_map(|ids| Command::SessionsExpire { ids }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![node_command(), var_command(), acl_command(), operator_command(), session_command()]
}

fn entry() -> impl Strategy<Value = Entry> {
    let stamp = (any::<u64>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..5), any::<bool>()).prop_map(
        |(session, sequence, acknowledged_below, finish, forgets_refusal)| SessionStamp {
            session,
            sequence,
            acknowledged_below,
            finish: finish.into(),
            forgets_refusal,
        },
    );
    (any::<i64>(), option::of(stamp), command()).prop_map(|(time_unix_nanos, session, command)| Entry {
        time_unix_nanos,
        session,
        command,
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(entry in entry()) {
        let bytes = entry.encode();
        prop_assert_eq!(&Entry::decode(&bytes).unwrap(), &entry);
        prop_assert_eq!(Entry::version_and_tag(&bytes).unwrap(), (ENTRY_VERSION, entry.command.tag_and_len().0));
        let cut = bytes.len() / 2;
        prop_assert!(Entry::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn any_bytes_are_an_entry_or_an_error(bytes in vec(any::<u8>(), 0..200), tag in 0u8..40) {
        let _ = Entry::decode(&bytes);
        let mut likely = vec![0x9a, 1, 0, 0xc0, tag];
        likely.extend(&bytes);
        if let Ok(entry) = Entry::decode(&likely) {
            prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }
    }
}

#[test]
fn an_entry_has_these_bytes() {
    let stamp = SessionStamp { session: 7, sequence: 300, acknowledged_below: 3, ..SessionStamp::default() };
    let command = Command::NodeDrainComplete { node_id: "n".into() };
    let entry = Entry { time_unix_nanos: 5, session: Some(stamp), command };
    assert_eq!(entry.encode(), [0x95, 1, 5, 0x93, 7, 0xcd, 1, 44, 3, 5, 0xa1, b'n']);
    let noop = Entry { time_unix_nanos: -1, session: None, command: Command::Noop };
    assert_eq!(noop.encode(), [0x94, 1, 0xff, 0xc0, 0]);
}

#[test]
fn a_write_to_a_variable_has_these_bytes() {
    let op =
        VarOp { kind: VarOpKind::Cas, namespace: "n".into(), path: "p".into(), check_index: 7, ..VarOp::default() };
    let command = Command::VarApply(VarApply { ops: vec![op] });
    let bytes = Entry { time_unix_nanos: 5, session: None, command }.encode();
    let op =
        b"\x8b\xa1o\x01\xa1n\xa1n\xa1p\xa1p\xa1s\xc0\xa1c\x07\xa1l\xa0\xa1t\x00\xa1d\x00\xa1w\xa0\xa1f\x00\xa1k\xc2";
    assert_eq!(bytes, [&[0x95, 1, 5, 0xc0, 9, 0x81, 0xa1, b'o', 0x91], &op[..]].concat());
    // A kind that this build does not know is an error, not another kind.
    let at = bytes.windows(2).position(|two| two == b"o\x01").unwrap() + 1;
    let mut unknown = bytes.clone();
    unknown[at] = 6;
    assert_eq!(Entry::decode(&unknown).unwrap_err().what, "unknown kind of write to a variable");
}

#[test]
fn kinds_of_writes_have_words() {
    for word in ["set", "cas", "delete", "delete-cas", "lock-acquire", "lock-release"] {
        assert_eq!(VarOpKind::from_word(word).map(VarOpKind::as_word), Some(word));
    }
    for word in ["", "Set", "lock", "delete_cas"] {
        assert_eq!(VarOpKind::from_word(word), None);
    }
}

#[test]
fn what_is_not_known_is_named() {
    for (bytes, pos, what) in [
        (&[0x94, 2, 0, 0xc0, 0][..], 1, "unknown entry version"),
        (&[0x94, 1, 0, 0xc0, 99], 4, "unknown command tag"),
        (&[0x93, 1, 0, 0xc0], 4, "the entry lacks a field"),
        (&[0x94, 1, 0, 0xc0, 5], 5, "the entry lacks a field"),
        (&[0x94, 1, 0, 0xc0, 0, 0], 5, "bytes after the entry"),
        (&[0x94, 1, 0, 0x91, 0, 0], 4, "the session lacks a field"),
        (&[0xc0], 1, "an entry is a list"),
    ] {
        let error = Entry::decode(bytes).unwrap_err();
        assert_eq!((error.pos, error.what), (pos, what), "{bytes:?}");
    }
    assert_eq!(Entry::version_and_tag(&[0x94, 2, 0, 0xc0, 99]), Ok((2, 99)));
    assert!(Entry::version_and_tag(&[0x90]).is_err());
}

#[test]
fn a_later_field_is_passed_over() {
    let bytes = [0x97, 1, 0, 0x94, 1, 2, 3, 0x91, 9, 5, 0xa1, b'n', 0x81, 1, 2, 0xc3];
    let entry = Entry::decode(&bytes).unwrap();
    assert_eq!(entry.command, Command::NodeDrainComplete { node_id: "n".into() });
    assert_eq!(
        entry.session,
        Some(SessionStamp { session: 1, sequence: 2, acknowledged_below: 3, ..SessionStamp::default() })
    );
}
