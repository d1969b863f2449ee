//! Bodies of ACL.*: tokens, policies, roles, and what the methods take and give.
//!
//! Source: endpoint notes, section 8.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryMeta, QueryOptions, WriteMeta, WriteRequest};
use crate::wire::msgpack::{Bytes, Raw};
use crate::wire_structs;

wire_structs! {
    /// A role, as a token or a list names it.
    pub struct AclRoleLink {
        /// A UUID.
        id: String = "ID",
        /// What people call it.
        name: String = "Name",
    }
    /// A policy, as a role names it.
    pub struct AclPolicyLink {
        /// Its name.
        name: String = "Name",
    }
    /// A role: policies under one name.
    pub struct AclRole {
        /// A UUID.
        id: String = "ID",
        /// Unique.
        name: String = "Name",
        /// Words for people.
        description: String = "Description",
        /// Which policies.
        policies: Option<Vec<AclPolicyLink>> = "Policies",
        /// Of the identifying fields; nil when there is none.
        hash: Raw = "Hash",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// A role as a list shows it.
    pub struct AclRoleListStub {
        /// A UUID.
        id: String = "ID",
        /// Unique.
        name: String = "Name",
        /// Words for people.
        description: String = "Description",
        /// Which policies.
        policies: Option<Vec<AclPolicyLink>> = "Policies",
        /// Of the identifying fields.
        hash: Raw = "Hash",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// A policy.
    pub struct AclPolicy {
        /// Unique.
        name: String = "Name",
        /// Words for people.
        description: String = "Description",
        /// In the policy language.
        rules: String = "Rules",
        /// The same parsed; made when it is read.
        rules_json: Raw = "RulesJSON",
        /// Kept as given.
        job_acl: Raw = "JobACL",
        /// Of the identifying fields; nil when there is none.
        hash: Raw = "Hash",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// A policy as a list shows it.
    pub struct AclPolicyListStub {
        /// Unique.
        name: String = "Name",
        /// Words for people.
        description: String = "Description",
        /// Kept as given.
        job_acl: Raw = "JobACL",
        /// Of the identifying fields.
        hash: Raw = "Hash",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// A token as a list shows it: without its secret.
    pub struct AclTokenListStub {
        /// Its public name.
        accessor_id: String = "AccessorID",
        /// What people call it.
        name: String = "Name",
        /// `client` or `management`.
        kind: String = "Type",
        /// Names of policies.
        policies: Option<Vec<String>> = "Policies",
        /// Its roles.
        roles: Option<Vec<AclRoleLink>> = "Roles",
        /// Whether it counts in every region.
        global: bool = "Global",
        /// Of the identifying fields.
        hash: Raw = "Hash",
        /// Go's binary time.
        create_time: Bytes = "CreateTime",
        /// Go's binary time, or nil for never.
        expiration_time: Option<Bytes> = "ExpirationTime",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
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
        /// Its roles.
        roles: Option<Vec<AclRoleLink>> = "Roles",
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
    /// Arguments of ACL.Bootstrap.
    pub struct AclBootstrapRequest {
        /// The secret to give the token; empty for a new one.
        bootstrap_secret: String = "BootstrapSecret",
        ..write: WriteRequest,
    }
    /// Arguments of ACL.UpsertPolicies.
    pub struct AclPolicyUpsertRequest {
        /// What to write.
        policies: Vec<AclPolicy> = "Policies",
        ..write: WriteRequest,
    }
    /// Arguments of ACL.DeletePolicies.
    pub struct AclPolicyDeleteRequest {
        /// Which.
        names: Vec<String> = "Names",
        ..write: WriteRequest,
    }
    /// Arguments of ACL.GetPolicy.
    pub struct AclPolicySpecificRequest {
        /// Which.
        name: String = "Name",
        ..query: QueryOptions,
    }
    /// Arguments of ACL.GetPolicies.
    pub struct AclPolicySetRequest {
        /// Which.
        names: Vec<String> = "Names",
        ..query: QueryOptions,
    }
    /// Reply of ACL.ListPolicies.
    pub struct AclPolicyListResponse {
        /// In the order of their names.
        policies: Vec<AclPolicyListStub> = "Policies",
        ..meta: QueryMeta,
    }
    /// Reply of ACL.GetPolicy.
    pub struct SingleAclPolicyResponse {
        /// nil when there is none of that name.
        policy: Option<AclPolicy> = "Policy",
        ..meta: QueryMeta,
    }
    /// Reply of ACL.GetPolicies.
    pub struct AclPolicySetResponse {
        /// By name; unknown ones are left out.
        policies: BTreeMap<String, AclPolicy> = "Policies",
        ..meta: QueryMeta,
    }
    /// Arguments of ACL.UpsertTokens.
    pub struct AclTokenUpsertRequest {
        /// What to write.
        tokens: Vec<AclToken> = "Tokens",
        ..write: WriteRequest,
    }
    /// Reply of ACL.UpsertTokens and ACL.Bootstrap.
    pub struct AclTokenUpsertResponse {
        /// As written, secrets included.
        tokens: Vec<AclToken> = "Tokens",
        ..meta: WriteMeta,
    }
    /// Arguments of ACL.DeleteTokens.
    pub struct AclTokenDeleteRequest {
        /// Which.
        accessor_ids: Vec<String> = "AccessorIDs",
        ..write: WriteRequest,
    }
    /// Arguments of ACL.ListTokens.
    pub struct AclTokenListRequest {
        /// Only global ones.
        global_only: bool = "GlobalOnly",
        ..query: QueryOptions,
    }
    /// Reply of ACL.ListTokens.
    pub struct AclTokenListResponse {
        /// By create index.
        tokens: Vec<AclTokenListStub> = "Tokens",
        ..meta: QueryMeta,
    }
    /// Arguments of ACL.GetToken.
    pub struct AclTokenSpecificRequest {
        /// Which.
        accessor_id: String = "AccessorID",
        ..query: QueryOptions,
    }
    /// Arguments of ACL.GetTokens.
    pub struct AclTokenSetRequest {
        /// Which. The spelling is the peer's.
        accessor_ids: Vec<String> = "AccessorIDS",
        ..query: QueryOptions,
    }
    /// Arguments of ACL.ResolveToken.
    pub struct ResolveAclTokenRequest {
        /// The secret.
        secret_id: String = "SecretID",
        ..query: QueryOptions,
    }
    /// Reply of ACL.GetToken and ACL.ResolveToken.
    pub struct SingleAclTokenResponse {
        /// nil when there is none.
        token: Option<AclToken> = "Token",
        ..meta: QueryMeta,
    }
    /// Reply of ACL.GetTokens.
    pub struct AclTokenSetResponse {
        /// By accessor; unknown ones are left out.
        tokens: BTreeMap<String, AclToken> = "Tokens",
        ..meta: QueryMeta,
    }
    /// Arguments of ACL.UpsertRoles.
    pub struct AclRoleUpsertRequest {
        /// What to write.
        roles: Vec<AclRole> = "ACLRoles",
        /// Policies that do not exist are let through.
        allow_missing_policies: bool = "AllowMissingPolicies",
        ..write: WriteRequest,
    }
    /// Reply of ACL.UpsertRoles.
    pub struct AclRoleUpsertResponse {
        /// As written.
        roles: Vec<AclRole> = "ACLRoles",
        ..meta: WriteMeta,
    }
    /// Arguments of ACL.DeleteRolesByID.
    pub struct AclRoleDeleteRequest {
        /// Which.
        ids: Vec<String> = "ACLRoleIDs",
        ..write: WriteRequest,
    }
    /// Reply of ACL.ListRoles.
    pub struct AclRoleListResponse {
        /// In the order of their ids.
        roles: Vec<AclRoleListStub> = "ACLRoles",
        ..meta: QueryMeta,
    }
    /// Arguments of ACL.GetRoleByID.
    pub struct AclRoleByIdRequest {
        /// Which.
        id: String = "RoleID",
        ..query: QueryOptions,
    }
    /// Arguments of ACL.GetRoleByName.
    pub struct AclRoleByNameRequest {
        /// Which.
        name: String = "RoleName",
        ..query: QueryOptions,
    }
    /// Reply of ACL.GetRoleByID and ACL.GetRoleByName.
    pub struct SingleAclRoleResponse {
        /// nil when there is none.
        role: Option<AclRole> = "ACLRole",
        ..meta: QueryMeta,
    }
    /// Arguments of ACL.GetRolesByID.
    pub struct AclRolesByIdRequest {
        /// Which.
        ids: Vec<String> = "ACLRoleIDs",
        ..query: QueryOptions,
    }
    /// Reply of ACL.GetRolesByID.
    pub struct AclRolesByIdResponse {
        /// By id; unknown ones are left out.
        roles: BTreeMap<String, AclRole> = "ACLRoles",
        ..meta: QueryMeta,
    }
    /// A token that can be turned into another once.
    pub struct OneTimeToken {
        /// Its secret.
        one_time_secret_id: String = "OneTimeSecretID",
        /// The token it stands for.
        accessor_id: String = "AccessorID",
        /// Go's binary time.
        expires_at: Bytes = "ExpiresAt",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
}
