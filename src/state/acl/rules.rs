//! The policy language: what the tree of a policy's text means.
//!
//! HCL 1 or JSON. A pure function of the text: every replica reads the same. What is said about things that are not
//! served here is checked and kept for whoever reads the policy. Source: endpoint notes, section 9.

use crate::state::acl::hcl::{self, Item, Value};
use crate::state::acl::verdict::Compiled;
use crate::state::acl::words;
use crate::wire::msgpack::{Encoder, Raw};

pub use crate::state::acl::verdict::{Acl, OperatorCapability, VarCapability};

/// Bytes of a name at most.
const MAX_NAME_BYTES: usize = 128;

/// What one policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    raw: String,
    pub(super) namespaces: Vec<NamespaceRule>,
    node_pools: Vec<NamedRule>,
    host_volumes: Vec<NamedRule>,
    pub(super) agent: Option<String>,
    pub(super) node: Option<String>,
    pub(super) operator: Option<OperatorRule>,
    sentinel: Option<String>,
    quota: Option<String>,
    plugin: Option<String>,
    pub(super) compiled: Compiled,
}

/// What is said about the namespaces of a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NamespaceRule {
    pub(super) name: String,
    policy: String,
    pub(super) capabilities: Vec<String>,
    /// `None` without a block of variables.
    pub(super) variables: Option<Vec<NamedRule>>,
}

/// What is said about a path of variables, a node pool or a host volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NamedRule {
    pub(super) name: String,
    policy: String,
    pub(super) capabilities: Vec<String>,
}

/// What is said about operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OperatorRule {
    pub(super) policy: String,
    pub(super) capabilities: Vec<String>,
}

type Parsed<T> = Result<T, String>;

impl Rules {
    /// Reads a policy's text. Empty text is a policy that says nothing.
    ///
    /// # Errors
    /// The text that the writer of the policy is told, without the prefix `failed to parse rules: `.
    pub fn parse(text: &str) -> Result<Rules, String> {
        Rules::read(text, true)
    }

    /// Reads the text of a policy that is there already, perhaps since before a key was refused: what is not known is
    /// passed over. Nothing when it cannot be read at all.
    pub(super) fn parse_stored(text: &str) -> Rules {
        Rules::read(text, false).unwrap_or_else(|_| Rules { raw: text.to_owned(), ..Rules::default() })
    }

    fn read(text: &str, strict: bool) -> Parsed<Rules> {
        if text.is_empty() {
            return Ok(Rules::default());
        }
        let items = hcl::read(text).map_err(failed)?;
        let mut top = Top { items: &items, extra: Vec::new() };
        let mut rules = Rules {
            raw: text.to_owned(),
            namespaces: labelled(&items, "namespace")?.into_iter().map(NamespaceRule::read).collect::<Parsed<_>>()?,
            node_pools: named(&items, "node_pool")?,
            host_volumes: named(&items, "host_volume")?,
            agent: top.policy("agent")?,
            node: top.policy("node")?,
            operator: top.single("operator")?.map(OperatorRule::read).transpose()?,
            sentinel: top.policy("sentinel")?,
            quota: top.policy("quota")?,
            plugin: top.policy("plugin")?,
            compiled: Compiled::default(),
        };
        if rules.is_empty() {
            return Err(format!("Invalid policy: {text}"));
        }
        rules.check_and_expand(&top, strict)?;
        rules.compiled = Compiled::of(&rules);
        Ok(rules)
    }

    /// Whether it says nothing about anything that is known.
    fn is_empty(&self) -> bool {
        let lists = self.namespaces.is_empty() && self.node_pools.is_empty() && self.host_volumes.is_empty();
        let words = [&self.agent, &self.node, &self.sentinel, &self.quota, &self.plugin];
        lists && self.operator.is_none() && words.into_iter().all(Option::is_none)
    }

    /// Checks names and words in the peers' order, and adds what words imply.
    fn check_and_expand(&mut self, top: &Top<'_>, strict: bool) -> Parsed<()> {
        self.namespaces.iter_mut().try_for_each(NamespaceRule::check_and_expand)?;
        self.node_pools.iter_mut().try_for_each(NamedRule::check_node_pool)?;
        self.host_volumes.iter_mut().try_for_each(NamedRule::check_host_volume)?;
        let extra = top.extra_keys();
        if strict && !extra.is_empty() {
            return Err(format!("Invalid or duplicate policy keys: {}", extra.join(", ")));
        }
        check_policy("agent", &self.agent, words::POLICIES)?;
        check_policy("node", &self.node, words::POLICIES)?;
        self.operator.as_mut().map_or(Ok(()), OperatorRule::check_and_expand)?;
        check_policy("sentinel", &self.sentinel, words::POLICIES)?;
        check_policy("quota", &self.quota, words::POLICIES)?;
        check_policy("plugin", &self.plugin, words::PLUGIN_POLICIES)
    }

    /// The rules as the API's `RulesJSON`, one msgpack map.
    pub fn to_rules_json(&self) -> Raw {
        let mut e = Encoder::new();
        e.map(11);
        e.str("Namespaces");
        list(&mut e, &self.namespaces, NamespaceRule::encode);
        for (name, rules) in [("NodePools", &self.node_pools), ("HostVolumes", &self.host_volumes)] {
            e.str(name);
            list(&mut e, rules, NamedRule::encode);
        }
        for (name, policy) in [("Agent", &self.agent), ("Node", &self.node)] {
            e.str(name);
            policy_map(&mut e, policy);
        }
        e.str("Operator");
        match &self.operator {
            Some(operator) => {
                e.map(2);
                e.str("Policy");
                e.str(&operator.policy);
                capabilities(&mut e, &operator.capabilities);
            }
            None => e.nil(),
        }
        for (name, policy) in [("Sentinel", &self.sentinel), ("Quota", &self.quota), ("Plugin", &self.plugin)] {
            e.str(name);
            policy_map(&mut e, policy);
        }
        e.str("Raw");
        e.str(&self.raw);
        e.str("ExtraKeysHCL");
        e.nil();
        Raw(e.out.into())
    }
}

/// A list, or nil when it is empty.
fn list<T>(e: &mut Encoder, values: &[T], write: impl Fn(&T, &mut Encoder)) {
    if values.is_empty() {
        return e.nil();
    }
    e.array(values.len());
    values.iter().for_each(|value| write(value, e));
}

fn capabilities(e: &mut Encoder, words: &[String]) {
    e.str("Capabilities");
    list(e, words, |word, e| e.str(word));
}

fn policy_map(e: &mut Encoder, policy: &Option<String>) {
    match policy {
        Some(policy) => {
            e.map(1);
            e.str("Policy");
            e.str(policy);
        }
        None => e.nil(),
    }
}

impl NamespaceRule {
    fn read((name, items): (&str, &[Item])) -> Parsed<NamespaceRule> {
        let variables = blocks(items, "variables")?;
        let mut paths = Vec::new();
        for block in &variables {
            paths.extend(named(block, "path")?);
        }
        Ok(NamespaceRule {
            name: name.to_owned(),
            policy: policy_in(items)?.unwrap_or_default(),
            capabilities: capabilities_in(items)?,
            variables: (!variables.is_empty()).then_some(paths),
        })
    }

    fn check_and_expand(&mut self) -> Parsed<()> {
        let NamespaceRule { name, policy, capabilities, variables } = self;
        if !is_name(name, b"-*") {
            return Err(format!("Invalid namespace name: {name:?}"));
        }
        if !policy.is_empty() && !words::POLICIES.contains(&&**policy) {
            return Err(format!("Invalid namespace policy: {policy:?} in namespace {name:?}"));
        }
        if let Some(unknown) = unknown(capabilities, words::NAMESPACE_CAPABILITIES) {
            return Err(format!("Invalid namespace capability '{unknown}': in namespace {name:?}"));
        }
        words::expand_namespace(policy, capabilities);
        let Some(paths) = variables else { return Ok(()) };
        if paths.is_empty() {
            return Err(format!("Invalid variable policy: no variable paths in namespace {name}"));
        }
        paths.iter_mut().try_for_each(|path| path.check_path(name))
    }

    fn encode(&self, e: &mut Encoder) {
        e.map(4);
        e.str("Name");
        e.str(&self.name);
        e.str("Policy");
        e.str(&self.policy);
        capabilities(e, &self.capabilities);
        e.str("Variables");
        let Some(paths) = &self.variables else { return e.nil() };
        e.map(1);
        e.str("Paths");
        list(e, paths, |path, e| {
            e.map(2);
            e.str("PathSpec");
            e.str(&path.name);
            capabilities(e, &path.capabilities);
        });
    }
}

impl NamedRule {
    fn read((name, items): (&str, &[Item])) -> Parsed<NamedRule> {
        Ok(NamedRule {
            name: name.to_owned(),
            policy: policy_in(items)?.unwrap_or_default(),
            capabilities: capabilities_in(items)?,
        })
    }

    fn check_path(&mut self, namespace: &str) -> Parsed<()> {
        let path = &*self.name;
        if path.is_empty() {
            return Err(format!("Invalid missing variable path in namespace {namespace}"));
        }
        if path.starts_with('/') {
            // With the peers' stray backtick.
            return Err(format!(
                "Invalid variable path {path:?} in namespace {namespace}: cannot start with a leading '/'`"
            ));
        }
        if let Some(unknown) = unknown(&self.capabilities, words::VARIABLE_CAPABILITIES) {
            return Err(format!("Invalid variable capability '{unknown}' in namespace {namespace}"));
        }
        words::expand_variables(&mut self.capabilities);
        Ok(())
    }

    fn check_node_pool(&mut self) -> Parsed<()> {
        let NamedRule { name, policy, capabilities } = self;
        if !is_name(name, b"-_*") {
            return Err(format!("Invalid node pool name '{name}'"));
        }
        if !policy.is_empty() && !words::POLICIES.contains(&&**policy) {
            return Err(format!("Invalid node pool policy '{policy}' for '{name}'"));
        }
        if let Some(unknown) = unknown(capabilities, words::NODE_POOL_CAPABILITIES) {
            return Err(format!("Invalid node pool capability '{unknown}' for '{name}'"));
        }
        words::expand_node_pool(policy, capabilities);
        Ok(())
    }

    fn check_host_volume(&mut self) -> Parsed<()> {
        let NamedRule { name, policy, capabilities } = self;
        if !is_name(name, b"-*") {
            return Err(format!("Invalid host volume name: {name:?}"));
        }
        if !policy.is_empty() && !words::POLICIES.contains(&&**policy) {
            return Err(format!("Invalid host volume policy: {policy:?} for {name:?}"));
        }
        if let Some(unknown) = unknown(capabilities, words::HOST_VOLUME_CAPABILITIES) {
            return Err(format!("Invalid host volume capability '{unknown}': for {name:?}"));
        }
        words::expand_host_volume(policy, capabilities);
        Ok(())
    }

    fn encode(&self, e: &mut Encoder) {
        e.map(3);
        e.str("Name");
        e.str(&self.name);
        e.str("Policy");
        e.str(&self.policy);
        capabilities(e, &self.capabilities);
    }
}

impl OperatorRule {
    fn read(items: &[Item]) -> Parsed<OperatorRule> {
        Ok(OperatorRule { policy: policy_in(items)?.unwrap_or_default(), capabilities: capabilities_in(items)? })
    }

    fn check_and_expand(&mut self) -> Parsed<()> {
        let OperatorRule { policy, capabilities } = self;
        if !policy.is_empty() && !words::POLICIES.contains(&&**policy) {
            return Err(format!("Invalid operator policy: {policy:?}"));
        }
        if let Some(unknown) = unknown(capabilities, words::OPERATOR_CAPABILITIES) {
            return Err(format!("Invalid operator capability '{unknown}'"));
        }
        words::expand_operator(policy, capabilities);
        Ok(())
    }
}

/// The first word that is not one of those known.
fn unknown<'a>(said: &'a [String], known: &[&str]) -> Option<&'a String> {
    said.iter().find(|word| !known.contains(&&***word))
}

fn check_policy(what: &str, policy: &Option<String>, known: &[&str]) -> Parsed<()> {
    match policy {
        Some(policy) if !known.contains(&&**policy) => Err(format!("Invalid {what} policy: {policy:?}")),
        _ => Ok(()),
    }
}

/// Whether a text is 1 to 128 ASCII letters, digits, and these.
fn is_name(text: &str, others: &[u8]) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// The tree's top, and keys of blocks that came too often.
struct Top<'a> {
    items: &'a [Item],
    extra: Vec<&'static str>,
}

/// Keys at the top that may come more than once.
const LABELLED: &[&str] = &["namespace", "node_pool", "host_volume"];
/// Keys at the top that may come once.
const SINGLE: &[&str] = &["agent", "node", "operator", "sentinel", "quota", "plugin"];

impl<'a> Top<'a> {
    /// The block of this name. Of several the last is taken, and noted as too many.
    fn single(&mut self, key: &'static str) -> Parsed<Option<&'a [Item]>> {
        let mut blocks = blocks(self.items, key)?;
        let last = blocks.pop();
        self.extra.extend(blocks.iter().map(|_| key));
        Ok(last)
    }

    fn policy(&mut self, key: &'static str) -> Parsed<Option<String>> {
        let Some(items) = self.single(key)? else { return Ok(None) };
        Ok(Some(policy_in(items)?.unwrap_or_default()))
    }

    /// Keys that are not known, in the order of the text, then those that came too often.
    fn extra_keys(&self) -> Vec<&str> {
        let keys = self.items.iter().filter_map(|item| item.keys.first()).map(String::as_str);
        let unknown = keys.filter(|key| !LABELLED.contains(key) && !SINGLE.contains(key));
        unknown.chain(self.extra.iter().copied()).collect()
    }
}

fn failed(why: impl std::fmt::Display) -> String {
    format!("Failed to parse ACL Policy: {why}")
}

/// Items of this name.
fn called<'a>(items: &'a [Item], key: &str) -> impl Iterator<Item = &'a Item> {
    items.iter().filter(move |item| item.keys.first().is_some_and(|first| first == key))
}

/// The objects that a value is: one, a list of some, or none at all. `None` for anything else.
fn objects(value: &Value) -> Option<Vec<&[Item]>> {
    match value {
        Value::Object(items) => Some(vec![items]),
        Value::List(values) => values
            .iter()
            .map(|value| match value {
                Value::Object(items) => Some(items.as_slice()),
                _ => None,
            })
            .collect(),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

/// Blocks of this name, which take no label.
fn blocks<'a>(items: &'a [Item], key: &str) -> Parsed<Vec<&'a [Item]>> {
    let mut found = Vec::new();
    for item in called(items, key) {
        match objects(&item.value) {
            Some(objects) if item.keys.len() == 1 => found.extend(objects),
            Some(_) => return Err(failed(format_args!("{key}: a label is not expected"))),
            None => return Err(failed(format_args!("{key}: a block is expected"))),
        }
    }
    Ok(found)
}

/// Blocks of this name with their labels; the label is empty where it is lacking.
///
/// `namespace "a" {}`, `namespace = { a = {} }` and, in JSON, lists of either are the same.
fn labelled<'a>(items: &'a [Item], key: &str) -> Parsed<Vec<(&'a str, &'a [Item])>> {
    let wanted = || failed(format_args!("{key}: a block with one label is expected"));
    let mut found = Vec::new();
    for item in called(items, key) {
        let bodies = objects(&item.value).ok_or_else(wanted)?;
        match &*item.keys {
            [_, label] => found.extend(bodies.into_iter().map(|body| (label.as_str(), body))),
            [_] if item.is_block => found.extend(bodies.into_iter().map(|body| ("", body))),
            [_] => {
                for body in bodies {
                    found.extend(labelled_within(body).ok_or_else(wanted)?);
                }
            }
            _ => return Err(wanted()),
        }
    }
    Ok(found)
}

/// An object whose names are labels. One that has other values than objects lacks its label. `None` for more labels.
fn labelled_within(body: &[Item]) -> Option<Vec<(&str, &[Item])>> {
    let mut found = Vec::new();
    for item in body {
        let ([label], Some(bodies)) = (&*item.keys, objects(&item.value)) else {
            return (item.keys.len() == 1).then(|| vec![("", body)]);
        };
        found.extend(bodies.into_iter().map(|body| (label.as_str(), body)));
    }
    Some(found)
}

fn named(items: &[Item], key: &str) -> Parsed<Vec<NamedRule>> {
    labelled(items, key)?.into_iter().map(NamedRule::read).collect()
}

/// The block's `policy`; of several the last.
fn policy_in(items: &[Item]) -> Parsed<Option<String>> {
    let mut policy = None;
    for item in called(items, "policy") {
        policy = match &item.value {
            Value::Text(text) if item.keys.len() == 1 => Some(text.clone()),
            Value::Null => None,
            _ => return Err(failed("policy: a string is expected")),
        };
    }
    Ok(policy)
}

/// The block's `capabilities`, of several all.
fn capabilities_in(items: &[Item]) -> Parsed<Vec<String>> {
    let mut found = Vec::new();
    for item in called(items, "capabilities") {
        let values = match &item.value {
            Value::List(values) => values.as_slice(),
            Value::Null => &[],
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                Value::Text(text) if item.keys.len() == 1 => found.push(text.clone()),
                _ => return Err(failed("capabilities: a list of strings is expected")),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
