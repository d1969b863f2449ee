//! Variables and nodes: the calls with their meaning.

use std::collections::BTreeMap;

use crate::client::body::Node;
use crate::client::error::Error;
use crate::client::scope::{Caller, Scope};
use crate::client::watch::Watch;
use crate::wire::body::node_call::{NodeListItem, NodeListResponse, NodeSpecificRequest, SingleNodeResponse};
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::body::var::{
    Variable, VariableMetadata, VariablesApplyRequest, VariablesApplyResponse, VariablesListResponse,
    VariablesReadRequest, VariablesReadResponse,
};
use crate::wire::msgpack::Msg;

/// Items of one page of a list.
const PAGE_ITEMS: i32 = 1000;

/// What became of a write that the servers answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It was carried out, at this index.
    Done(u64),
    /// It was not: another write came first, or a lock is held. What is there, as far as the token may see it.
    Conflict(Option<Variable>),
}

impl Written {
    /// The index of a write that was carried out.
    pub fn index(&self) -> Option<u64> {
        match self {
            Written::Done(index) => Some(*index),
            Written::Conflict(_) => None,
        }
    }
}

/// Variables of one namespace, by a client or in a session.
///
/// ```no_run
/// use std::collections::BTreeMap;
/// use holdfast::client::{Client, Scope, Settings, Variables};
///
/// let client = Client::new(Settings::new("10.0.0.1:4647"));
/// let vars = Variables::new(&client, Scope { token: "...".to_owned(), ..Scope::default() });
/// vars.put("app/db", BTreeMap::from([("user".to_owned(), "web".to_owned())]))?;
/// for change in vars.watch("app/db") {
///     println!("{:?}", change?.map(|var| var.items));
/// }
/// # Ok::<(), holdfast::client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Variables<C: Caller> {
    pub(crate) caller: C,
    pub(crate) scope: Scope,
}

impl<C: Caller> Variables<C> {
    /// Variables as this caller may see them.
    pub fn new(caller: &C, scope: Scope) -> Variables<C> {
        Variables { caller: caller.clone(), scope }
    }

    /// Reads one, by the leader; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn get(&self, path: &str) -> Result<Option<Variable>, Error> {
        let request = VariablesReadRequest { path: path.to_owned(), query: self.scope.fresh() };
        let reply: VariablesReadResponse = self.caller.call("Variables.Read", &request)?;
        Ok(reply.data)
    }

    /// Those whose path begins so, without their items, by the leader.
    ///
    /// # Errors
    /// As [`Caller::call`]; a server that gives the same page again and again.
    pub fn list(&self, prefix: &str) -> Result<Vec<VariableMetadata>, Error> {
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let query = QueryOptions {
                prefix: prefix.to_owned(),
                per_page: PAGE_ITEMS,
                next_token: next.clone(),
                ..self.scope.fresh()
            };
            let reply: VariablesListResponse = self.caller.call("Variables.List", &GenericRequest { query })?;
            all.extend(reply.data);
            match reply.meta.next_token {
                token if token.is_empty() => return Ok(all),
                token if token == next => {
                    return Err(Error::Malformed("the server gives the same page again and again".to_owned()));
                }
                token => next = token,
            }
        }
    }

    /// Writes one, whether it is there or not.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn put(&self, path: &str, items: BTreeMap<String, String>) -> Result<Written, Error> {
        self.apply("set", self.variable(path, 0, Some(items)))
    }

    /// Writes one when its modify index is this; 0 when it must not be there.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn put_if(&self, path: &str, index: u64, items: BTreeMap<String, String>) -> Result<Written, Error> {
        self.apply("cas", self.variable(path, index, Some(items)))
    }

    /// Removes one.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn delete(&self, path: &str) -> Result<Written, Error> {
        self.apply("delete", self.variable(path, 0, None))
    }

    /// Removes one when its modify index is this.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn delete_if(&self, path: &str, index: u64) -> Result<Written, Error> {
        self.apply("delete-cas", self.variable(path, index, None))
    }

    /// The states of one variable, one after another: as it is now, then after each change; `None` while it is not
    /// there.
    pub fn watch(&self, path: &str) -> Watch<Option<Variable>> {
        let (caller, path) = (self.caller.clone(), path.to_owned());
        Watch::new(self.scope.query(), self.caller.client(), move |query, limit| {
            let request = VariablesReadRequest { path: path.clone(), query };
            let reply: VariablesReadResponse = caller.call_within("Variables.Read", &request, limit)?;
            Ok((reply.data, reply.meta.index))
        })
    }

    /// The list of those whose path begins so: as it is now, then after each change.
    pub fn watch_list(&self, prefix: &str) -> Watch<Vec<VariableMetadata>> {
        let caller = self.caller.clone();
        let query = QueryOptions { prefix: prefix.to_owned(), ..self.scope.query() };
        Watch::new(query, self.caller.client(), move |query, limit| {
            let reply: VariablesListResponse =
                caller.call_within("Variables.List", &GenericRequest { query }, limit)?;
            Ok((reply.data, reply.meta.index))
        })
    }

    pub(crate) fn variable(&self, path: &str, modify_index: u64, items: Option<BTreeMap<String, String>>) -> Variable {
        let (namespace, path) = (self.scope.namespace.clone(), path.to_owned());
        Variable { namespace, path, modify_index, items, ..Variable::default() }
    }

    fn apply(&self, op: &str, var: Variable) -> Result<Written, Error> {
        let request = VariablesApplyRequest {
            op: op.to_owned(),
            var: Some(var),
            write: self.scope.write(),
            ..VariablesApplyRequest::default()
        };
        let reply: VariablesApplyResponse = self.caller.call("Variables.Apply", &request)?;
        Ok(match reply.result.as_str() {
            "ok" => Written::Done(reply.meta.index),
            _ => Written::Conflict(reply.conflict),
        })
    }
}

/// Nodes, by a client or in a session.
#[derive(Clone, Debug)]
pub struct Nodes<C: Caller> {
    caller: C,
    scope: Scope,
}

impl<C: Caller> Nodes<C> {
    /// Nodes as this caller may see them.
    pub fn new(caller: &C, scope: Scope) -> Nodes<C> {
        Nodes { caller: caller.clone(), scope }
    }

    /// All of them, as the server that is asked knows them.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn list(&self) -> Result<Vec<NodeListItem>, Error> {
        let reply: NodeListResponse = self.caller.call("Node.List", &GenericRequest { query: self.scope.query() })?;
        Ok(reply.nodes)
    }

    /// One by its whole id; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn read(&self, id: &str) -> Result<Option<Node>, Error> {
        let (node_id, query) = (id.to_owned(), self.scope.query());
        let request = NodeSpecificRequest { node_id, secret_id: String::new(), query };
        let reply: SingleNodeResponse = self.caller.call("Node.GetNode", &request)?;
        if reply.node.is_nil() {
            return Ok(None);
        }
        Node::from_bytes(&reply.node.0).map(Some).map_err(|error| Error::Malformed(error.to_string()))
    }

    /// The list: as it is now, then after each change.
    pub fn watch(&self) -> Watch<Vec<NodeListItem>> {
        let caller = self.caller.clone();
        Watch::new(self.scope.query(), self.caller.client(), move |query, limit| {
            let reply: NodeListResponse = caller.call_within("Node.List", &GenericRequest { query }, limit)?;
            Ok((reply.nodes, reply.meta.index))
        })
    }
}
