//! What is allowed: the questions, and the form of a policy in which they are answered fast.
//!
//! A request is checked on every read, so each policy is put in order once, when it is written, and a question
//! allocates nothing. Source: endpoint notes, section 9.
//!
//! **Invariant:** the globs of a [`Book`] stand in the order in which they are chosen, so that the first that matches
//! is the book's best.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::acl::rules::Rules;
use crate::state::acl::words;

/// Something that a policy can allow on a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VarCapability {
    /// Seeing that it is there.
    List,
    /// Its items.
    Read,
    /// Writing it, and its lock.
    Write,
    /// Removing it, and breaking its lock.
    Destroy,
    /// Who holds its lock, and until when (an extension, R8.10). Implied by read.
    LockRead,
}

/// Something that a policy can allow an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorCapability {
    /// Saving snapshots.
    SnapshotSave,
    /// Kept for the peers' policies.
    LicenseRead,
    /// Listing the key ring.
    KeyringRead,
    /// Making a new key.
    KeyringRotate,
    /// Forgetting a key.
    KeyringDelete,
}

/// Capabilities as bits. A set with [`DENY`] allows nothing.
type Bits = u8;

const LIST: Bits = 1;
const READ: Bits = 1 << 1;
const WRITE: Bits = 1 << 2;
const DESTROY: Bits = 1 << 3;
const LOCK_READ: Bits = 1 << 4;
/// Any capability of a namespace.
const SEES: Bits = 1 << 5;
const DENY: Bits = 1 << 7;

impl VarCapability {
    fn bit(self) -> Bits {
        match self {
            VarCapability::List => LIST,
            VarCapability::Read => READ,
            VarCapability::Write => WRITE,
            VarCapability::Destroy => DESTROY,
            VarCapability::LockRead => LOCK_READ,
        }
    }
}

impl OperatorCapability {
    fn bit(self) -> Bits {
        match self {
            OperatorCapability::SnapshotSave => 1,
            OperatorCapability::LicenseRead => 1 << 1,
            OperatorCapability::KeyringRead => 1 << 2,
            OperatorCapability::KeyringRotate => 1 << 3,
            OperatorCapability::KeyringDelete => 1 << 4,
        }
    }
}

fn variable_bits(word: &str) -> Bits {
    match word {
        "list" => LIST,
        "read" => READ | LIST | LOCK_READ,
        "write" => WRITE,
        "destroy" => DESTROY,
        "lock-read" => LOCK_READ,
        words::DENY => DENY,
        _ => 0,
    }
}

fn operator_bits(word: &str) -> Bits {
    match word {
        "snapshot-save" => OperatorCapability::SnapshotSave.bit(),
        "license-read" => OperatorCapability::LicenseRead.bit(),
        "keyring-read" => OperatorCapability::KeyringRead.bit(),
        "keyring-rotate" => OperatorCapability::KeyringRotate.bit(),
        "keyring-delete" => OperatorCapability::KeyringDelete.bit(),
        words::DENY => DENY,
        _ => 0,
    }
}

fn has(bits: Bits, wanted: Bits) -> bool {
    bits & DENY == 0 && bits & wanted != 0
}

/// A name in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern(Box<str>);

impl Pattern {
    /// Bytes that are no wildcards. The more of a name they are, the fewer the wildcards matched.
    fn literal_bytes(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Whether the whole of `name` has this form.
    fn matches(&self, name: &str) -> bool {
        let Some((prefix, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut name) = name.strip_prefix(prefix) else { return false };
        // Whatever lies between two wildcards is best found as early as it can be.
        let mut parts = rest.rsplitn(2, '*');
        let Some(suffix) = parts.next() else { return true };
        for part in parts.next().unwrap_or_default().split('*').filter(|part| !part.is_empty()) {
            match name.split_once(part) {
                Some((_, after)) => name = after,
                None => return false,
            }
        }
        name.ends_with(suffix)
    }
}

/// A rule with a wildcard in its namespace or in its path.
#[derive(Clone, Debug, PartialEq)]
struct Glob {
    literal_bytes: usize,
    namespace: Pattern,
    path: Pattern,
    bits: Bits,
}

impl Glob {
    /// The smallest is chosen: that with the fewest characters matched by wildcards; of those the first by name, so
    /// that every replica chooses the same.
    fn order(&self) -> (Reverse<usize>, &Pattern, &Pattern) {
        (Reverse(self.literal_bytes), &self.namespace, &self.path)
    }
}

/// Rules by name: of variables by namespace and path, of namespaces with an empty path.
#[derive(Clone, Debug, Default, PartialEq)]
struct Book {
    exact: BTreeMap<Box<str>, BTreeMap<Box<str>, Bits>>,
    globs: Vec<Glob>,
}

impl Book {
    fn of<'a>(rules: impl Iterator<Item = (&'a str, &'a str, Bits)>) -> Book {
        let mut book = Book::default();
        for (namespace, path, bits) in rules {
            if namespace.contains('*') || path.contains('*') {
                let (namespace, path) = (Pattern(namespace.into()), Pattern(path.into()));
                let literal_bytes = namespace.literal_bytes() + path.literal_bytes();
                book.globs.push(Glob { literal_bytes, namespace, path, bits });
            } else {
                *book.exact.entry(namespace.into()).or_default().entry(path.into()).or_default() |= bits;
            }
        }
        book.globs.sort_by(|a, b| a.order().cmp(&b.order()));
        book.globs.dedup_by(|later, kept| {
            let same = later.order() == kept.order();
            if same {
                kept.bits |= later.bits;
            }
            same
        });
        book
    }

    fn exact(&self, namespace: &str, path: &str) -> Option<Bits> {
        self.exact.get(namespace)?.get(path).copied()
    }

    /// The glob to be chosen.
    fn glob(&self, namespace: &str, path: &str) -> Option<&Glob> {
        self.globs.iter().find(|glob| glob.path.matches(path) && glob.namespace.matches(namespace))
    }

    /// The sets of all rules.
    fn all_bits(&self) -> impl Iterator<Item = Bits> {
        self.exact.values().flat_map(BTreeMap::values).copied().chain(self.globs.iter().map(|glob| glob.bits))
    }
}

/// How much of a kind of thing is allowed. The largest of several policies counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Nothing,
    Read,
    Write,
    Deny,
}

impl Level {
    fn of(word: Option<&str>) -> Level {
        match word {
            Some("read") => Level::Read,
            Some("write") => Level::Write,
            Some(words::DENY) => Level::Deny,
            _ => Level::Nothing,
        }
    }

    fn reads(self) -> bool {
        matches!(self, Level::Read | Level::Write)
    }
}

/// A policy in the form in which questions are answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Compiled {
    variables: Book,
    namespaces: Book,
    node: Level,
    agent: Level,
    operator: Level,
    operator_bits: Bits,
}

impl Compiled {
    /// Of rules whose words were checked and expanded.
    pub(super) fn of(rules: &Rules) -> Compiled {
        let variables = rules.namespaces.iter().flat_map(|namespace| {
            namespace.variables.iter().flatten().map(|path| {
                let bits = path.capabilities.iter().fold(0, |bits, word| bits | variable_bits(word));
                (&*namespace.name, &*path.name, bits)
            })
        });
        let namespaces = rules.namespaces.iter().map(|namespace| {
            let bit = |word: &String| if word == words::DENY { DENY } else { SEES };
            (&*namespace.name, "", namespace.capabilities.iter().fold(0, |bits, word| bits | bit(word)))
        });
        let operator = rules.operator.as_ref();
        let operator_words = operator.iter().flat_map(|operator| &operator.capabilities);
        Compiled {
            variables: Book::of(variables),
            namespaces: Book::of(namespaces),
            node: Level::of(rules.node.as_deref()),
            agent: Level::of(rules.agent.as_deref()),
            operator: Level::of(operator.map(|operator| &*operator.policy)),
            operator_bits: operator_words.fold(0, |bits, word| bits | operator_bits(word)),
        }
    }
}

/// What a caller may do: the sum of some policies. Made for each request, so nothing is merged beforehand: each
/// question looks for the best rule of all.
#[derive(Clone, Debug, Default)]
pub struct Acl {
    /// Everything is allowed.
    pub management: bool,
    /// What the caller's policies say.
    pub policies: Vec<Arc<Rules>>,
}

impl Acl {
    /// Everything.
    pub fn everything() -> Acl {
        Acl { management: true, policies: Vec::new() }
    }

    /// Whether a capability on a variable is allowed.
    pub fn allows_variable(&self, namespace: &str, path: &str, capability: VarCapability) -> bool {
        self.management || has(self.chosen(|policy| &policy.variables, namespace, path), capability.bit())
    }

    /// Whether any variable rule stands in the namespace, so that a list or a subscription makes sense. For `*`: in
    /// any namespace.
    pub fn has_variable_rules(&self, namespace: &str) -> bool {
        let stands = |book: &Book| {
            book.exact.contains_key(namespace)
                || book.globs.iter().any(|glob| glob.namespace.matches(namespace))
                || (namespace == "*" && !book.exact.is_empty() | !book.globs.is_empty())
        };
        self.management || self.policies.iter().any(|policy| stands(&policy.compiled.variables))
    }

    /// Whether the namespace may be seen: any capability but deny. For `*`: whether any may.
    pub fn sees_namespace(&self, namespace: &str) -> bool {
        if namespace == "*" && self.policies().any(|policy| policy.namespaces.all_bits().any(|bits| has(bits, SEES))) {
            return true;
        }
        self.management || has(self.chosen(|policy| &policy.namespaces, namespace, ""), SEES)
    }

    /// `node:read`
    pub fn node_read(&self) -> bool {
        self.management || self.level(|policy| policy.node).reads()
    }

    /// `node:write`
    pub fn node_write(&self) -> bool {
        self.management || self.level(|policy| policy.node) == Level::Write
    }

    /// `agent:read`
    pub fn agent_read(&self) -> bool {
        self.management || self.level(|policy| policy.agent).reads()
    }

    /// `agent:write`
    pub fn agent_write(&self) -> bool {
        self.management || self.level(|policy| policy.agent) == Level::Write
    }

    /// `operator:read`
    pub fn operator_read(&self) -> bool {
        self.management || self.level(|policy| policy.operator).reads()
    }

    /// `operator:write`
    pub fn operator_write(&self) -> bool {
        self.management || self.level(|policy| policy.operator) == Level::Write
    }

    /// A capability of operators, or `operator:write`.
    pub fn operator(&self, capability: OperatorCapability) -> bool {
        let bits = self.policies().fold(0, |bits, policy| bits | policy.operator_bits);
        self.management || has(bits, capability.bit())
    }

    fn policies(&self) -> impl Iterator<Item = &Compiled> {
        self.policies.iter().map(|policy| &policy.compiled)
    }

    fn level(&self, of: impl Fn(&Compiled) -> Level) -> Level {
        self.policies().map(of).max().unwrap_or_default()
    }

    /// The set that counts: of the rule with exactly this name, else of the best glob; each added up over all policies
    /// that have the same rule.
    fn chosen(&self, book: impl Fn(&Compiled) -> &Book, namespace: &str, path: &str) -> Bits {
        let books = || self.policies().map(&book);
        let exact = books().filter_map(|book| book.exact(namespace, path)).reduce(|all, bits| all | bits);
        if let Some(bits) = exact {
            return bits;
        }
        let mut best: Option<(&Glob, Bits)> = None;
        for glob in books().filter_map(|book| book.glob(namespace, path)) {
            best = match best {
                Some((kept, bits)) if kept.order() < glob.order() => Some((kept, bits)),
                Some((kept, bits)) if kept.order() == glob.order() => Some((kept, bits | glob.bits)),
                _ => Some((glob, glob.bits)),
            };
        }
        best.map_or(0, |(_, bits)| bits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
