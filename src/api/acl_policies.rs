//! Policies: read, listed, written, removed.
//!
//! A caller reads those that its token or a role of it holds. Rules are checked when they are written, and shown
//! parsed when one is read. Source: endpoint notes, section 8; Nomad `nomad/acl_endpoint.go`, `nomad/structs/acl.go`.

use std::collections::BTreeMap;

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::rules::Rules;
use crate::state::watch::WatchKey;
use crate::wire::body::acl::{
    AclPolicy, AclPolicyDeleteRequest, AclPolicyListResponse, AclPolicyListStub, AclPolicySetRequest,
    AclPolicySetResponse, AclPolicySpecificRequest, AclPolicyUpsertRequest, SingleAclPolicyResponse,
};
use crate::wire::body::query::GenericRequest;
use crate::wire::entry::Command;
use crate::wire::msgpack::{Msg, Raw};

use super::access::{ANONYMOUS, Access, Identity};
use super::acl::begin;
use super::answer::{Answer, blocking, body, coded};
use super::outcome::{Finish, Outcome};
use super::var_check::errors;
use super::{Ctx, Request, page};

/// The longest name of policies, roles and namespaces, bytes.
const MAX_NAME_BYTES: usize = 128;

/// The longest description of policies, roles and namespaces, bytes.
const MAX_DESCRIPTION_BYTES: usize = 256;

/// The error of a write that holds none.
const NONE_GIVEN: &str = "must specify as least one policy";

/// Whether a text may name a policy, a role or a namespace: `^[a-zA-Z0-9-]{1,128}$`.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// What is wrong with a description.
pub(super) fn description_fault(text: &str) -> Option<String> {
    (text.len() > MAX_DESCRIPTION_BYTES).then(|| format!("description longer than {MAX_DESCRIPTION_BYTES}"))
}

/// ACL.UpsertPolicies.
pub(super) fn upsert(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclPolicyUpsertRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    if args.policies.is_empty() {
        return Err(coded(400, NONE_GIVEN));
    }
    for (nth, policy) in args.policies.iter().enumerate() {
        let faults = faults(policy);
        if !faults.is_empty() {
            return Err(coded(400, format_args!("policy {nth} invalid: {}", errors(&faults))));
        }
    }
    Ok(Outcome::Propose { command: Command::AclUpsertPolicies { policies: args.policies }, finish: Finish::WriteMeta })
}

/// All that is wrong with a policy, in the order Nomad looks.
fn faults(policy: &AclPolicy) -> Vec<String> {
    let mut faults = Vec::new();
    if !is_name(&policy.name) {
        faults.push(format!("invalid name '{}'", policy.name.chars().take(2 * MAX_NAME_BYTES).collect::<String>()));
    }
    if let Err(why) = Rules::parse(&policy.rules) {
        faults.push(format!("failed to parse rules: {why}"));
    }
    faults.extend(description_fault(&policy.description));
    faults.extend(job_faults(&policy.job_acl));
    faults
}

/// A policy may be meant for a job's workloads. That is kept for those who ask; nothing follows from it here.
fn job_faults(job: &Raw) -> Vec<String> {
    if job.is_nil() {
        return Vec::new();
    }
    let Ok(job) = BTreeMap::<String, String>::from_bytes(&job.0) else {
        return vec!["job ACL is not a map of strings".to_owned()];
    };
    let is_set = |key| job.get(key).is_some_and(|value| !value.is_empty());
    let needs = |what, of: &str, missing| (is_set(what) && !is_set(missing)).then(|| of.to_owned());
    [
        needs("JobID", "namespace must be set to set job ID", "Namespace"),
        needs("Group", "job ID must be set to set group", "JobID"),
        needs("Task", "group must be set to set task", "Group"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// ACL.DeletePolicies. Names of policies that do not exist are passed over.
pub(super) fn delete(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclPolicyDeleteRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    if args.names.is_empty() {
        return Err(coded(400, NONE_GIVEN));
    }
    Ok(Outcome::Propose { command: Command::AclDeletePolicies { names: args.names }, finish: Finish::WriteMeta })
}

/// Which policies a caller may read.
struct Held<'a> {
    all: bool,
    /// Sorted.
    names: Vec<&'a str>,
}

impl<'a> Held<'a> {
    fn by(access: &'a Access, state: &'a State) -> Held<'a> {
        Held { all: access.acl.management, names: access.policy_names(state) }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.binary_search(&name).is_ok()
    }
}

/// ACL.ListPolicies: the caller's own, or all for management.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<GenericRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require(!matches!(access.identity, Identity::Node(_)))?;
    let held = Held::by(&access, state);
    let filter = page::filter(&args.query)?;
    blocking(
        request,
        ctx,
        &args.query,
        state.policies_index(),
        || vec![WatchKey::acl()],
        |mut meta| {
            let (prefix, token) = (args.query.prefix.as_str(), args.query.next_token.as_str());
            let rows = state
                .policies_from(if args.query.reverse { prefix } else { prefix.max(token) })
                .map(|policy| &policy.body)
                .take_while(|policy| policy.name.starts_with(prefix))
                .filter(|policy| held.has(&policy.name));
            let rows = page::in_order(&args.query, rows, |policy| *policy.name > *token);
            let (policies, next) = page::page(&args.query, rows, |policy| {
                filter
                    .as_ref()
                    .map_or(Ok(true), |filter| filter.matches_row(&policy.to_bytes()).map_err(page::unreadable))
            })?;
            meta.next_token = next.map_or_else(String::new, |policy| policy.name.clone());
            Ok(body(&AclPolicyListResponse { policies: policies.into_iter().map(stub).collect(), meta }))
        },
    )
}

fn stub(policy: &AclPolicy) -> AclPolicyListStub {
    AclPolicyListStub {
        name: policy.name.clone(),
        description: policy.description.clone(),
        job_acl: policy.job_acl.clone(),
        hash: policy.hash.clone(),
        create_index: policy.create_index,
        modify_index: policy.modify_index,
    }
}

/// ACL.GetPolicy. The policy `anonymous` is everybody's.
pub(super) fn get(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclPolicySpecificRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require(args.name == ANONYMOUS || Held::by(&access, state).has(&args.name))?;
    let policy = state.policy(&args.name);
    let index = policy.map_or(state.policies_index(), |policy| Index(policy.body.modify_index));
    blocking(
        request,
        ctx,
        &args.query,
        index,
        || vec![WatchKey::acl()],
        |meta| {
            let policy = policy
                .map(|policy| AclPolicy { rules_json: policy.rules.to_rules_json(), ..AclPolicy::clone(&policy.body) });
            Ok(body(&SingleAclPolicyResponse { policy, meta }))
        },
    )
}

/// ACL.GetPolicies, which agents resolve their callers' tokens with.
pub(super) fn get_set(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclPolicySetRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require(!matches!(access.identity, Identity::Node(_)))?;
    let held = Held::by(&access, state);
    access.require(args.names.iter().all(|name| held.has(name)))?;
    blocking(
        request,
        ctx,
        &args.query,
        state.policies_index(),
        || vec![WatchKey::acl()],
        |meta| {
            let policies = args.names.iter().filter_map(|name| state.policy(name));
            let policies = policies.map(|policy| (policy.body.name.clone(), policy.body.clone())).collect();
            Ok(body(&AclPolicySetResponse { policies, meta }))
        },
    )
}
