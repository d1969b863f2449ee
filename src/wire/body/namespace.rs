//! Bodies of Namespace.*.
//!
//! Source: endpoint notes, section 10.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryMeta, QueryOptions, WriteRequest};
use crate::wire::msgpack::Raw;
use crate::wire_structs;

wire_structs! {
    /// A namespace.
    pub struct Namespace {
        /// Unique.
        name: String = "Name",
        /// Words for people.
        description: String = "Description",
        /// Kept as given.
        quota: String = "Quota",
        /// Kept as given.
        capabilities: Raw = "Capabilities",
        /// Kept as given.
        node_pool_configuration: Raw = "NodePoolConfiguration",
        /// Kept as given.
        vault_configuration: Raw = "VaultConfiguration",
        /// Kept as given.
        consul_configuration: Raw = "ConsulConfiguration",
        /// Whatever people note about it.
        meta: Option<BTreeMap<String, String>> = "Meta",
        /// Of the identifying fields; nil when there is none.
        hash: Raw = "Hash",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
        /// Kept as given.
        required_extra_claims: Raw = "RequiredExtraClaims",
        /// Kept as given.
        optional_extra_claims: Raw = "OptionalExtraClaims",
    }
    /// Reply of Namespace.ListNamespaces.
    pub struct NamespaceListResponse {
        /// In the order of their names.
        namespaces: Vec<Namespace> = "Namespaces",
        ..meta: QueryMeta,
    }
    /// Arguments of Namespace.GetNamespace.
    pub struct NamespaceSpecificRequest {
        /// Which.
        name: String = "Name",
        ..query: QueryOptions,
    }
    /// Reply of Namespace.GetNamespace.
    pub struct SingleNamespaceResponse {
        /// nil when there is none of that name.
        namespace: Option<Namespace> = "Namespace",
        ..meta: QueryMeta,
    }
    /// Arguments of Namespace.GetNamespaces.
    pub struct NamespaceSetRequest {
        /// Which.
        namespaces: Vec<String> = "Namespaces",
        ..query: QueryOptions,
    }
    /// Reply of Namespace.GetNamespaces.
    pub struct NamespaceSetResponse {
        /// By name; unknown ones are left out.
        namespaces: BTreeMap<String, Namespace> = "Namespaces",
        ..meta: QueryMeta,
    }
    /// Arguments of Namespace.UpsertNamespaces.
    pub struct NamespaceUpsertRequest {
        /// What to write.
        namespaces: Vec<Namespace> = "Namespaces",
        ..write: WriteRequest,
    }
    /// Arguments of Namespace.DeleteNamespaces.
    pub struct NamespaceDeleteRequest {
        /// Which.
        namespaces: Vec<String> = "Namespaces",
        ..write: WriteRequest,
    }
}
