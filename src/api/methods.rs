//! The method table: every name that can be called, how it is served and what runs.
//!
//! **Invariant:** both tables are sorted by name, as they are searched by halves.

use super::Access::{AnyServer, Local, LocalRegion, Read, Write};
use super::Weight::{Heavy, Light};
use super::answer::settle;
use super::{
    Access, Method, StreamingMethod, UnknownMethod, Weight, acl, acl_policies, acl_roles, acl_token_write, acl_tokens,
    agent, autopilot, event, heartbeat, keyring, namespace, node, node_admin, node_client, operator, registration,
    search, session, snapshot, status, to_node, var, var_lock, var_write,
};

/// One row for each method: name, access, weight, whether it is a heartbeat, handler.
macro_rules! methods {
    ($($name:literal $access:ident $weight:ident $($heartbeat:ident)? => $run:expr;)*) => {
        &[$(Method {
            name: $name,
            access: { const ACCESS: Access = $access; ACCESS },
            weight: { const WEIGHT: Weight = $weight; WEIGHT },
            heartbeat: methods!(@ $($heartbeat)?),
            run: |request, state, ctx| settle($run(request, state, ctx)),
        },)*]
    };
    (@ heartbeat) => { true };
    (@) => { false };
}

/// All methods.
pub(super) static METHODS: &[Method] = methods! {
    "ACL.Bootstrap" Write Light => acl::bootstrap;
    "ACL.CreateClientIntroductionToken" Local Light => acl::not_served;
    "ACL.DeleteAuthMethods" Local Light => acl::not_served;
    "ACL.DeleteBindingRules" Local Light => acl::not_served;
    "ACL.DeletePolicies" Write Light => acl_policies::delete;
    "ACL.DeleteRolesByID" Write Light => acl_roles::delete;
    "ACL.DeleteTokens" Write Light => acl_tokens::delete;
    "ACL.ExchangeOneTimeToken" Local Light => acl::not_served;
    "ACL.ExpireOneTimeTokens" Local Light => acl::not_served;
    "ACL.GetAuthMethod" Local Light => acl::not_served;
    "ACL.GetAuthMethods" Local Light => acl::not_served;
    "ACL.GetBindingRule" Local Light => acl::not_served;
    "ACL.GetBindingRules" Local Light => acl::not_served;
    "ACL.GetClaimPolicies" Read Light => acl::claim_policies;
    "ACL.GetPolicies" Read Light => acl_policies::get_set;
    "ACL.GetPolicy" Read Light => acl_policies::get;
    "ACL.GetRoleByID" Read Light => acl_roles::get_by_id;
    "ACL.GetRoleByName" Read Light => acl_roles::get_by_name;
    "ACL.GetRolesByID" Read Light => acl_roles::get_set;
    "ACL.GetToken" Read Light => acl_tokens::get;
    "ACL.GetTokens" Read Light => acl_tokens::get_set;
    "ACL.ListAuthMethods" Read Light => acl::list_auth_methods;
    "ACL.ListBindingRules" Read Light => acl::list_binding_rules;
    "ACL.ListPolicies" Read Heavy => acl_policies::list;
    "ACL.ListRoles" Read Heavy => acl_roles::list;
    "ACL.ListTokens" Read Heavy => acl_tokens::list;
    "ACL.Login" Local Light => acl::not_served;
    "ACL.OIDCAuthURL" Local Light => acl::not_served;
    "ACL.OIDCCompleteAuth" Local Light => acl::not_served;
    "ACL.ResolveToken" Read Light => acl_tokens::resolve;
    "ACL.UpsertAuthMethods" Local Light => acl::not_served;
    "ACL.UpsertBindingRules" Local Light => acl::not_served;
    "ACL.UpsertOneTimeToken" Local Light => acl::not_served;
    "ACL.UpsertPolicies" Write Heavy => acl_policies::upsert;
    "ACL.UpsertRoles" Write Light => acl_roles::upsert;
    "ACL.UpsertTokens" Write Light => acl_token_write::upsert;
    "ACL.WhoAmI" Read Light => acl::who_am_i;
    "Agent.Host" AnyServer Light => to_node::pass_on_coded;
    "Agent.Profile" AnyServer Light => to_node::pass_on_coded;
    "ClientAllocations.Checks" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.GarbageCollect" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.GarbageCollectAll" AnyServer Light => to_node::pass_on;
    "ClientAllocations.GetPauseState" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.Restart" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.SetPauseState" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.Signal" AnyServer Light => to_node::about_alloc;
    "ClientAllocations.Stats" AnyServer Light => to_node::about_alloc;
    "ClientStats.Stats" AnyServer Light => to_node::pass_on;
    "FileSystem.List" AnyServer Light => to_node::about_alloc;
    "FileSystem.Stat" AnyServer Light => to_node::about_alloc;
    "Holdfast.AgentSelf" Local Light => agent::agent_self;
    "Holdfast.Connections" Local Light => operator::connections;
    "Holdfast.LockBreak" Write Light => var_lock::lock_break;
    "Holdfast.LockList" Read Heavy => var_lock::lock_list;
    "Holdfast.LockRead" Read Light => var_lock::lock_read;
    "Holdfast.Reload" Local Light => agent::reload;
    "Holdfast.VariablesTxn" Write Light => var_write::txn;
    "Keyring.Delete" Write Light => keyring::delete;
    "Keyring.List" Read Light => keyring::list;
    "Keyring.ListPublic" Read Light => keyring::list_public;
    "Keyring.Rotate" Write Light => keyring::rotate;
    "Namespace.DeleteNamespaces" Write Light => namespace::delete;
    "Namespace.GetNamespace" Read Light => namespace::get;
    "Namespace.GetNamespaces" Read Light => namespace::get_set;
    "Namespace.ListNamespaces" Read Heavy => namespace::list;
    "Namespace.UpsertNamespaces" Write Light => namespace::upsert;
    "Node.BatchDeregister" Write Heavy => node_admin::batch_deregister;
    "Node.Deregister" Write Light => node_admin::deregister;
    "Node.EmitEvents" Write Light => node_client::emit_events;
    "Node.Evaluate" Write Light => node_admin::evaluate;
    "Node.GetAllocs" Read Light => node_client::get_allocs;
    "Node.GetClientAllocs" Read Light => node_client::get_client_allocs;
    "Node.GetNode" Read Light => node::get_node;
    "Node.List" Read Heavy => node::list;
    "Node.Register" Write Light heartbeat => registration::register;
    "Node.UpdateAlloc" Write Light => node_client::update_alloc;
    "Node.UpdateDrain" Write Light => node_admin::update_drain;
    "Node.UpdateEligibility" Write Light => node_admin::update_eligibility;
    "Node.UpdateStatus" Write Light heartbeat => heartbeat::update_status;
    "NodeIdentity.Get" AnyServer Light => to_node::pass_on;
    "NodeIdentity.Renew" AnyServer Light => to_node::pass_on;
    "NodeMeta.Apply" AnyServer Light => to_node::pass_on;
    "NodeMeta.Read" AnyServer Light => to_node::pass_on;
    "Operator.AutopilotGetConfiguration" Read Light => autopilot::configuration;
    "Operator.AutopilotSetConfiguration" Write Light => autopilot::set_configuration;
    "Operator.RaftGetConfiguration" Read Light => operator::raft_configuration;
    "Operator.RaftRemovePeerByAddress" Write Light => operator::raft_remove_peer_by_address;
    "Operator.RaftRemovePeerByID" Write Light => operator::raft_remove_peer;
    "Operator.SchedulerGetConfiguration" Read Light => autopilot::scheduler_configuration;
    "Operator.SchedulerSetConfiguration" Write Light => autopilot::set_scheduler_configuration;
    "Operator.ServerHealth" Read Light => autopilot::server_health;
    "Operator.TransferLeadershipToPeer" Write Light => operator::transfer_leadership;
    "Region.List" Local Light => status::regions;
    "Search.PrefixSearch" Read Heavy => search::prefix;
    "Session.Close" Write Light => session::close;
    "Session.KeepAlive" Write Light => session::keep_alive;
    "Session.List" Read Heavy => session::list;
    "Session.Open" Write Light => session::open;
    "Session.Outcome" Read Light => session::outcome;
    "Status.HasNodeConn" Local Light => status::has_node_conn;
    "Status.Leader" LocalRegion Light => status::leader;
    "Status.Members" Local Light => status::members;
    "Status.Peers" LocalRegion Light => status::peers;
    "Status.Ping" Local Light => status::ping;
    "Status.RaftStats" Local Light => status::raft_stats;
    "Variables.Apply" Write Light => var_write::apply;
    "Variables.List" Read Heavy => var::list;
    "Variables.Read" Read Light => var::read;
    "Variables.RenewLock" Write Light => var_lock::renew_lock;
};

/// All streaming methods.
pub(super) static STREAMING: &[StreamingMethod] = &[
    StreamingMethod { name: "Agent.Monitor", run: agent::monitor },
    StreamingMethod { name: "Allocations.Exec", run: agent::about_alloc },
    StreamingMethod { name: "Event.Stream", run: event::stream },
    StreamingMethod { name: "FileSystem.Logs", run: agent::about_alloc },
    StreamingMethod { name: "FileSystem.Stream", run: agent::about_alloc },
    StreamingMethod { name: "Operator.SnapshotRestore", run: snapshot::restore },
    StreamingMethod { name: "Operator.SnapshotSave", run: snapshot::save },
];

/// See [`super::method`].
pub(super) fn find(name: &str) -> Result<&'static Method, UnknownMethod> {
    if let Ok(at) = METHODS.binary_search_by(|method| method.name.cmp(name)) {
        return Ok(&METHODS[at]);
    }
    let Some((service, _)) = name.rsplit_once('.') else {
        return Err(UnknownMethod(format!("rpc: service/method request ill-formed: {name}")));
    };
    let known = METHODS.iter().any(|method| method.name.rsplit_once('.').is_some_and(|(other, _)| other == service));
    Err(UnknownMethod(format!("rpc: can't find {} {name}", if known { "method" } else { "service" })))
}

/// See [`super::streaming_method`].
pub(super) fn find_streaming(name: &str) -> Result<&'static StreamingMethod, UnknownMethod> {
    match STREAMING.binary_search_by(|method| method.name.cmp(name)) {
        Ok(at) => Ok(&STREAMING[at]),
        Err(_) => Err(UnknownMethod(format!("Unknown rpc method: {name:?}"))),
    }
}
