//! Search.PrefixSearch: completes names for shells.
//!
//! Source: HTTP notes, section 5; Nomad `nomad/search_endpoint.go`.

use std::collections::BTreeMap;

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::rules::VarCapability;
use crate::state::watch::WatchKey;
use crate::wire::body::search::{SearchRequest, SearchResponse};

use super::access::{Access, access};
use super::answer::{Answer, PERMISSION_DENIED, arguments, blocking, body};
use super::{Ctx, Request};

/// Names of one context in a reply; more are left out, and it is said so.
const MATCHES_MAX: usize = 20;

const CONTEXTS: [&str; 3] = ["namespaces", "nodes", "vars"];

/// Search.PrefixSearch. Of all contexts those are searched that the caller may see.
pub(super) fn prefix(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: SearchRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    let namespace = match args.query.namespace.as_str() {
        "" => "default",
        other => other,
    };
    let all = matches!(args.context.as_str(), "" | "all");
    let wanted: Vec<&str> = CONTEXTS.into_iter().filter(|name| all || *name == args.context).collect();
    let may: Vec<&str> = wanted.iter().copied().filter(|context| may_search(&access, context, namespace)).collect();
    if may.is_empty() && !wanted.is_empty() {
        return Err(PERMISSION_DENIED.into());
    }
    let prefix = &args.query.prefix;
    let index = may.iter().map(|context| table_index(state, context)).max().unwrap_or(Index(0));
    let keys = || may.iter().map(|context| watched(context, namespace, prefix)).collect();
    blocking(request, ctx, &args.query, index, keys, |meta| {
        let (mut matches, mut truncations) = (BTreeMap::new(), BTreeMap::new());
        for context in &may {
            let mut found = search(context, namespace, prefix, state, &access);
            truncations.insert((*context).to_owned(), found.len() > MATCHES_MAX);
            found.truncate(MATCHES_MAX);
            matches.insert((*context).to_owned(), found);
        }
        Ok(body(&SearchResponse { matches, truncations, meta }))
    })
}

fn may_search(access: &Access, context: &str, namespace: &str) -> bool {
    match context {
        "nodes" => access.acl.node_read(),
        "vars" => namespace == "*" || access.acl.has_variable_rules(namespace),
        // Each is looked at by itself.
        _ => true,
    }
}

fn table_index(state: &State, context: &str) -> Index {
    match context {
        "nodes" => state.nodes_index(),
        "vars" => state.vars_index(),
        _ => state.namespaces_index(),
    }
}

fn watched(context: &str, namespace: &str, prefix: &str) -> WatchKey {
    match context {
        "nodes" => WatchKey::nodes(),
        "vars" => WatchKey::vars_under(namespace, prefix),
        _ => WatchKey::namespaces(),
    }
}

/// What begins so, one more than are told at most.
fn search(context: &str, namespace: &str, prefix: &str, state: &State, access: &Access) -> Vec<String> {
    let most = MATCHES_MAX + 1;
    match context {
        "nodes" => {
            let nodes = state.nodes_from(prefix).take_while(|node| node.id.starts_with(prefix));
            nodes.take(most).map(|node| node.id.to_string()).collect()
        }
        "vars" if namespace == "*" => {
            let seen = |var: &&std::sync::Arc<crate::state::var::Var>| {
                var.path.starts_with(prefix)
                    && access.acl.allows_variable(&var.namespace, &var.path, VarCapability::List)
            };
            state.vars_from("", "").filter(seen).take(most).map(|var| var.path.to_string()).collect()
        }
        "vars" => {
            let vars = state.vars_from(namespace, prefix);
            let there = vars.take_while(|var| *var.namespace == *namespace && var.path.starts_with(prefix));
            let seen = there.filter(|var| access.acl.allows_variable(namespace, &var.path, VarCapability::List));
            seen.take(most).map(|var| var.path.to_string()).collect()
        }
        _ => {
            let there = state.namespaces_from(prefix).take_while(|namespace| namespace.name.starts_with(prefix));
            let seen = there.filter(|namespace| access.acl.sees_namespace(&namespace.name));
            seen.take(most).map(|namespace| namespace.name.clone()).collect()
        }
    }
}
