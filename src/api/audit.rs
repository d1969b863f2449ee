//! What the audit log says of a call: who made it and what it is about (R8.15).
//!
//! Reads known fields of the body and nothing else. Items, SecretIDs, lock ids and tokens are never given out; where
//! an error's text repeats one, it is taken out of it.

use crate::state::State;
use crate::wire::msgpack::{Decoder, Kind, Result};

use super::identity::{Checked, Identity};
use super::{Caller, Ctx};

/// Objects that one line names; of more only the number is told.
pub const MAX_OBJECTS: usize = 64;
/// Bytes of one name; the rest is cut off.
const MAX_NAME_BYTES: usize = 256;
/// Bytes of an error's text; the rest is cut off.
const MAX_ERROR_BYTES: usize = 512;
/// Stands where a secret was.
const TAKEN_OUT: &str = "<secret>";

/// Who made a call, and what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The accessor of the caller's token, `anonymous`, `acls-disabled`, or `unknown` for a token that is none.
    pub accessor: String,
    /// The node that the caller is, when it is one.
    pub node_id: Option<String>,
    /// The namespace, where the method has one.
    pub namespace: String,
    /// What is done to a variable (`Op`); empty elsewhere.
    pub operation: String,
    /// Paths, ids and names.
    pub objects: Vec<String>,
    /// Objects that are not among them.
    pub more: usize,
    secrets: Vec<String>,
}

/// Why a call was refused to its caller, in a few fixed words for a metric; `None` for any other error.
pub fn refusal(error: &str) -> Option<&'static str> {
    const TEXTS: [(&str, &str); 3] = [
        ("Permission denied", "permission denied"),
        ("ACL token not found", "token not found"),
        ("ACL token expired", "token expired"),
    ];
    TEXTS.iter().find(|(text, _)| error.contains(text)).map(|(_, reason)| *reason)
}

/// Says who made a call and what it is about.
///
/// Reads whatever of the body can be read: a body that is broken has a subject too.
pub fn subject(method: &str, body: &[u8], state: &State, ctx: &Ctx, caller: &Caller) -> Subject {
    let mut subject = Subject::default();
    let mut token = String::new();
    // What comes before the broken part counts.
    let _ = read_top(&mut Decoder::new(body), method, &mut subject, &mut token);
    let (accessor, node_id) = who(&token, state, ctx, caller);
    let namespaced = ["Variables.", "Holdfast.Variables", "Holdfast.Lock"];
    if subject.namespace.is_empty() && namespaced.iter().any(|prefix| method.starts_with(prefix)) {
        subject.namespace = "default".to_owned();
    }
    subject.accessor = accessor;
    subject.node_id = node_id;
    if !token.is_empty() {
        subject.secrets.push(token);
    }
    subject
}

impl Subject {
    /// An error's text for the log: short, and without what the request had to keep secret.
    pub fn without_secrets(&self, error: &str) -> String {
        let mut text = error.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), TAKEN_OUT);
        }
        cut(&text, MAX_ERROR_BYTES)
    }

    fn add(&mut self, name: &str) {
        if name.is_empty() {
        } else if self.objects.len() < MAX_OBJECTS {
            self.objects.push(cut(name, MAX_NAME_BYTES));
        } else {
            self.more += 1;
        }
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn who(token: &str, state: &State, ctx: &Ctx, caller: &Caller) -> (String, Option<String>) {
    let proven = caller.proven_node.as_deref().map(str::to_owned);
    if !token.is_empty() {
        if let Some(held) = state.token_by_secret(token) {
            return (held.body.accessor_id.clone(), None);
        }
        if let Some(node) = state.node_by_secret(token) {
            return (String::new(), Some(node.id.to_string()));
        }
        if let Some(identity) = Identity::parse(token)
            && identity.check(state, ctx.signer.as_deref(), ctx.wall) == Checked::Valid
        {
            return (String::new(), Some(identity.node_id().to_owned()));
        }
    }
    let accessor = match (ctx.server.acl_enabled, token.is_empty(), &proven) {
        (_, _, Some(_)) => "",
        (false, ..) => "acls-disabled",
        (true, true, None) => "anonymous",
        (true, false, None) => "unknown",
    };
    (accessor.to_owned(), proven)
}

fn read_top(d: &mut Decoder<'_>, method: &str, subject: &mut Subject, token: &mut String) -> Result<()> {
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"AuthToken" => *token = text(d)?.unwrap_or_default().to_owned(),
            b"Namespace" => {
                let namespace = text(d)?.unwrap_or_default();
                if subject.namespace.is_empty() {
                    subject.namespace = cut(namespace, MAX_NAME_BYTES);
                }
            }
            b"Op" => subject.operation = cut(text(d)?.unwrap_or_default(), MAX_NAME_BYTES),
            b"Address" if method == "Operator.TransferLeadershipToPeer" => subject.add(text(d)?.unwrap_or_default()),
            // Of a session; others are texts.
            b"ID" if method.starts_with("Session.") => read_session_id(d, subject)?,
            b"Path" | b"NodeID" | b"AccessorID" | b"Name" | b"RoleName" | b"RoleID" | b"KeyID" | b"ID" => {
                subject.add(text(d)?.unwrap_or_default());
            }
            b"LockID" | b"BootstrapSecret" | b"SecretID" | b"OneTimeSecretID" => {
                let secret = text(d)?.unwrap_or_default().to_owned();
                subject.secrets.push(secret);
            }
            b"Var" => read_variable(d, subject)?,
            b"Ops" => each(d, |d| read_op(d, subject))?,
            b"Node" => read_names(d, &[b"ID"], subject)?,
            b"Tokens" => each(d, |d| read_names(d, &[b"AccessorID", b"Name"], subject))?,
            b"Policies" => each(d, |d| read_names(d, &[b"Name"], subject))?,
            b"Roles" | b"ACLRoles" => each(d, |d| read_names(d, &[b"ID", b"Name"], subject))?,
            b"Namespaces" => each(d, |d| read_names(d, &[b"Name"], subject))?,
            b"NodeIDs" | b"Names" | b"AccessorIDs" | b"AccessorIDS" | b"ACLRoleIDs" | b"PolicyNames" => {
                each(d, |d| read_names(d, &[], subject))?;
            }
            b"NodeEvents" if method == "Node.EmitEvents" => {
                for _ in 0..d.map()?.unwrap_or(0) {
                    subject.add(d.str()?);
                    d.skip()?;
                }
            }
            _ => d.skip()?,
        }
    }
    Ok(())
}

/// The number of a session; anything else is passed over.
fn read_session_id(d: &mut Decoder<'_>, subject: &mut Subject) -> Result<()> {
    match d.kind()? {
        Kind::Int => subject.add(&d.u64()?.to_string()),
        _ => d.skip()?,
    }
    Ok(())
}

fn read_op(d: &mut Decoder<'_>, subject: &mut Subject) -> Result<()> {
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"Var" => read_variable(d, subject)?,
            _ => d.skip()?,
        }
    }
    Ok(())
}

fn read_variable(d: &mut Decoder<'_>, subject: &mut Subject) -> Result<()> {
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"Path" => subject.add(text(d)?.unwrap_or_default()),
            // The variable's own goes before the request's.
            b"Namespace" => {
                let namespace = text(d)?.unwrap_or_default();
                if !namespace.is_empty() {
                    subject.namespace = cut(namespace, MAX_NAME_BYTES);
                }
            }
            b"Lock" => {
                for _ in 0..d.map()?.unwrap_or(0) {
                    match d.bytes()? {
                        b"ID" => {
                            let id = text(d)?.unwrap_or_default().to_owned();
                            subject.secrets.push(id);
                        }
                        _ => d.skip()?,
                    }
                }
            }
            _ => d.skip()?,
        }
    }
    Ok(())
}

/// A text that is the name itself, or a map with some names in it.
fn read_names(d: &mut Decoder<'_>, keys: &[&[u8]], subject: &mut Subject) -> Result<()> {
    if d.kind()? != Kind::Map {
        let name = text(d)?.unwrap_or_default().to_owned();
        subject.add(&name);
        return Ok(());
    }
    // The first of the keys that is there names the thing.
    let mut best: Option<(usize, String)> = None;
    for _ in 0..d.map()?.unwrap_or(0) {
        let key = d.bytes()?;
        if key == b"SecretID" {
            let secret = text(d)?.unwrap_or_default().to_owned();
            subject.secrets.push(secret);
            continue;
        }
        match keys.iter().position(|wanted| *wanted == key) {
            Some(rank) => {
                let name = text(d)?.unwrap_or_default();
                if !name.is_empty() && best.as_ref().is_none_or(|(held, _)| rank < *held) {
                    best = Some((rank, name.to_owned()));
                }
            }
            None => d.skip()?,
        }
    }
    if let Some((_, name)) = best {
        subject.add(&name);
    }
    Ok(())
}

fn each(d: &mut Decoder<'_>, mut one: impl FnMut(&mut Decoder<'_>) -> Result<()>) -> Result<()> {
    if d.kind()? != Kind::Array {
        return d.skip();
    }
    for _ in 0..d.array()?.unwrap_or(0) {
        one(d)?;
    }
    Ok(())
}

/// A text; anything else is passed over.
fn text<'a>(d: &mut Decoder<'a>) -> Result<Option<&'a str>> {
    match d.kind()? {
        Kind::Str => d.str().map(Some),
        _ => d.skip().map(|()| None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tests::{NODE, SECRET, World};
    use super::*;
    use crate::api::outcome::Finish;
    use crate::wire::body::acl::{AclPolicy, AclToken};
    use crate::wire::body::query::{WriteRequest, route_fields};
    use crate::wire::body::session::{
        STAMP, SessionKey, SessionOpenRequest, SessionOutcomeRequest, SessionReply, SessionRequest, WriteStamp,
    };
    use crate::wire::body::var::{TxnOp, TxnRequest, Variable, VariableLock, VariablesApplyRequest};
    use crate::wire::entry::Command;
    use crate::wire::entry::session::SessionOpen;
    use crate::wire::msgpack::{Encoder, Fields, Msg};

    const CLUSTER: &str = "c1u57e40-0000-4000-8000-000000000001";

    const LOCK_ID: &str = "10c4ffff-0000-4000-8000-000000000001";
    const ITEM: &str = "hunter2 is the password";
    const BAD_TOKEN: &str = "badc0de0-0000-4000-8000-000000000001";

    fn variable(path: &str) -> Variable {
        Variable {
            namespace: "prod".to_owned(),
            path: path.to_owned(),
            lock: Some(VariableLock { id: LOCK_ID.to_owned(), ..VariableLock::default() }),
            items: Some(BTreeMap::from([("password".to_owned(), ITEM.to_owned())])),
            ..Variable::default()
        }
    }

    fn of(world: &World, method: &str, body: &[u8]) -> Subject {
        subject(method, body, &world.state, &world.ctx, &world.caller)
    }

    // R8.15: who and what, and never a secret.
    #[test]
    fn a_write_names_its_variables_and_no_secret() {
        let world = World::with_node();
        let write = WriteRequest { auth_token: BAD_TOKEN.to_owned(), ..WriteRequest::default() };
        let request = VariablesApplyRequest {
            op: "lock-acquire".to_owned(),
            var: Some(variable("app/db")),
            write: write.clone(),
            ..VariablesApplyRequest::default()
        };
        let one = of(&world, "Variables.Apply", &request.to_bytes());
        assert_eq!((one.namespace.as_str(), one.operation.as_str()), ("prod", "lock-acquire"));
        assert_eq!((one.objects.as_slice(), one.accessor.as_str()), (&["app/db".to_owned()][..], "acls-disabled"));
        let error = format!("variable is locked by {LOCK_ID}, not for {BAD_TOKEN}");
        assert_eq!(one.without_secrets(&error), "variable is locked by <secret>, not for <secret>");

        let ops = (0..70).map(|n| TxnOp { op: "set".to_owned(), var: Some(variable(&format!("p{n}"))), fence: 0 });
        let request = TxnRequest { ops: ops.collect(), write };
        let many = of(&world, "Holdfast.VariablesTxn", &request.to_bytes());
        assert_eq!((many.objects.len(), many.more, many.objects[1].as_str()), (MAX_OBJECTS, 6, "p1"));
        for shown in [format!("{:?}", one.objects), format!("{:?}", many.objects)] {
            assert!(!shown.contains(ITEM) && !shown.contains(LOCK_ID) && !shown.contains(BAD_TOKEN));
        }
    }

    #[test]
    fn tokens_and_policies_are_named_by_what_everybody_may_know() {
        let world = World::new();
        let mut e = Encoder::new();
        e.map(2);
        e.str("Tokens");
        e.array(2);
        let token = |accessor: &str, name: &str| AclToken {
            accessor_id: accessor.to_owned(),
            secret_id: BAD_TOKEN.to_owned(),
            name: name.to_owned(),
            ..AclToken::default()
        };
        token("a1", "first").encode(&mut e);
        token("", "new").encode(&mut e);
        e.str("Policies");
        e.array(1);
        AclPolicy { name: "ops".to_owned(), rules: "secret".to_owned(), ..AclPolicy::default() }.encode(&mut e);
        let subject = of(&world, "ACL.UpsertTokens", &e.out);
        assert_eq!(subject.objects, ["a1", "new", "ops"]);
        assert_eq!(subject.without_secrets(&format!("no {BAD_TOKEN}")), "no <secret>");
    }

    #[test]
    fn a_node_is_known_by_its_secret_and_by_its_connection() {
        let mut world = World::with_node();
        let write = WriteRequest { auth_token: SECRET.to_owned(), ..WriteRequest::default() };
        let by_secret = of(&world, "Node.UpdateStatus", &write.to_bytes());
        assert_eq!((by_secret.node_id.as_deref(), by_secret.accessor.as_str()), (Some(NODE), ""));
        world.caller.proven_node = Some(NODE.into());
        let by_connection = of(&world, "Node.UpdateStatus", &WriteRequest::default().to_bytes());
        assert_eq!(by_connection.node_id.as_deref(), Some(NODE));
    }

    #[test]
    fn a_token_is_known_by_its_accessor() {
        let mut world = World::new();
        let facts = std::sync::Arc::make_mut(&mut world.ctx.server);
        facts.acl_enabled = true;
        let anonymous = of(&world, "Variables.Read", &WriteRequest::default().to_bytes());
        assert_eq!(anonymous.accessor, "anonymous");
        let write = WriteRequest { auth_token: BAD_TOKEN.to_owned(), ..WriteRequest::default() };
        assert_eq!(of(&world, "Variables.Read", &write.to_bytes()).accessor, "unknown");
        let token = AclToken {
            accessor_id: "acce5500-0000-4000-8000-000000000001".to_owned(),
            secret_id: BAD_TOKEN.to_owned(),
            kind: "management".to_owned(),
            ..AclToken::default()
        };
        world.write(Command::AclUpsertTokens { tokens: vec![token] });
        assert_eq!(of(&world, "Variables.Read", &write.to_bytes()).accessor, "acce5500-0000-4000-8000-000000000001");
    }

    #[test]
    fn refusals_have_few_reasons() {
        for (text, reason) in [
            ("Permission denied", Some("permission denied")),
            ("RPC Error:: 403,Permission denied", Some("permission denied")),
            ("ACL token not found", Some("token not found")),
            ("rpc error: ACL token expired", Some("token expired")),
            ("No cluster leader", None),
            ("", None),
        ] {
            assert_eq!(refusal(text), reason, "{text}");
        }
        let subject = Subject::default();
        assert_eq!(subject.without_secrets(&"\u{fc}".repeat(400)).len(), MAX_ERROR_BYTES);
    }

    // R8.15, R2.22: a session is named by its id, a client by its name; the key is nowhere, in whatever form.
    #[test]
    fn sessions_are_named_and_their_keys_are_not_shown() {
        let world = World::with_node();
        let key = SessionKey(b"0123456789abcdef".to_vec());
        let hidden = |text: &str| {
            let forms = ["0123456789abcdef", "30313233", "48, 49, 50", "MDEyMzQ1"];
            assert!(!forms.iter().any(|form| text.contains(form)) && !text.contains(CLUSTER), "{text}");
        };
        let open = SessionOpenRequest {
            name: "web".to_owned(),
            server_id: NODE.to_owned(),
            cluster_id: CLUSTER.to_owned(),
            ..SessionOpenRequest::default()
        };
        let about = SessionRequest { id: 77, key: key.clone(), ..SessionRequest::default() };
        let asked = SessionOutcomeRequest { id: 78, key: key.clone(), sequence: 3, ..Default::default() };
        for (method, body, objects) in [
            ("Session.Open", open.to_bytes(), "web"),
            ("Session.KeepAlive", about.to_bytes(), "77"),
            ("Session.Close", about.to_bytes(), "77"),
            ("Session.Outcome", asked.to_bytes(), "78"),
        ] {
            let subject = of(&world, method, &body);
            assert_eq!(subject.objects, [objects], "{method}");
            hidden(&format!("{subject:?}"));
        }
        // A number where others have a text, and a text where sessions have a number.
        assert!(of(&world, "Node.Deregister", &about.to_bytes()).objects.is_empty());
        let odd = of(&world, "Session.Close", b"\x82\xa2ID\xa10\xa4Name\xa1n");
        assert_eq!(odd.objects, ["n"]);

        let stamp = WriteStamp { id: 77, key: key.clone(), sequence: 1, acknowledged_below: 1 };
        let request = VariablesApplyRequest { op: "set".to_owned(), var: Some(variable("a")), ..Default::default() };
        let body = stamped(&stamp, &request);
        let subject = of(&world, "Variables.Apply", &body);
        assert_eq!(subject.objects, ["a"]);
        hidden(&format!("{subject:?}"));
        let opened = SessionOpen { key: key.clone(), ..SessionOpen::default() };
        let reply = SessionReply { key: key.clone(), ..SessionReply::default() };
        hidden(&format!(
            "{stamp:?} {about:?} {asked:?} {reply:?} {opened:?} {:?}",
            Command::SessionOpen(opened.clone())
        ));
        hidden(&format!("{:?}", Finish::SessionOpen { key, ttl: 1 }));
        hidden(&format!("{:?}", route_fields(&body, 0)));
    }

    /// A write in a session, as the wire has it.
    fn stamped(stamp: &WriteStamp, request: &VariablesApplyRequest) -> Vec<u8> {
        let mut e = Encoder::new();
        e.map(1 + VariablesApplyRequest::COUNT);
        e.str(STAMP);
        stamp.encode(&mut e);
        request.encode_fields(&mut e);
        e.out
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_subject(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let world = World::new();
            let subject = of(&world, "Node.EmitEvents", &bytes);
            prop_assert!(subject.objects.len() <= MAX_OBJECTS);
        }

        /// A request that is cut off anywhere says what it got to say, and still no secret.
        #[test]
        fn a_broken_request_shows_no_secret(cut in 0usize..400) {
            let world = World::new();
            let request = VariablesApplyRequest {
                op: "set".to_owned(),
                var: Some(variable("app/db")),
                write: WriteRequest { auth_token: BAD_TOKEN.to_owned(), ..WriteRequest::default() },
                ..VariablesApplyRequest::default()
            };
            let bytes = request.to_bytes();
            let subject = of(&world, "Variables.Apply", bytes.get(..cut).unwrap_or(&bytes));
            let shown = format!("{:?} {} {}", subject.objects, subject.namespace, subject.operation);
            for secret in [LOCK_ID, ITEM, BAD_TOKEN] {
                prop_assert!(!shown.contains(secret));
            }
        }
    }
}
