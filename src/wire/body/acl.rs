//! Bodies of ACL.*: what a server without ACLs says of its callers.
//!
//! Source: endpoint notes, section 8.

use crate::wire::body::query::QueryMeta;
use crate::wire::msgpack::{Bytes, Raw};
use crate::wire_structs;

wire_structs! {
    /// A token.
    pub struct AclToken {
        /// Its public name.
        accessor_id: String = "AccessorID",
        /// Its secret; empty where it is not to be shown.
        secret_id: String = "SecretID",
        /// What people call it.
        name: String = "Name",
        /// `client` or `management`.
        kind: String = "Type",
        /// Names of policies.
        policies: Option<Vec<String>> = "Policies",
        /// Roles, `{ID, Name}` each.
        roles: Option<Vec<Raw>> = "Roles",
        /// Whether it counts in every region.
        global: bool = "Global",
        /// Of the identifying fields; nil when there is none.
        hash: Raw = "Hash",
        /// Go's binary time.
        create_time: Bytes = "CreateTime",
        /// Go's binary time, or nil for never.
        expiration_time: Option<Bytes> = "ExpirationTime",
        /// Nanoseconds.
        expiration_ttl: i64 = "ExpirationTTL",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// Who is calling.
    pub struct AuthenticatedIdentity {
        /// By token.
        acl_token: Option<AclToken> = "ACLToken",
        /// By JSON Web Token.
        claims: Raw = "Claims",
        /// By node.
        client_id: String = "ClientID",
        /// By certificate.
        tls_name: String = "TLSName",
        /// The address, 4 or 16 bytes.
        remote_ip: Bytes = "RemoteIP",
    }
    /// Reply of ACL.WhoAmI.
    pub struct WhoAmIResponse {
        /// The caller.
        identity: Option<AuthenticatedIdentity> = "Identity",
        ..meta: QueryMeta,
    }
}
