//! The policy language: rules from text, what they allow, and how several add up.
//!
//! HCL 1 or JSON. A pure function of the text: every replica reads the same. Source: endpoint notes, section 9.

use std::sync::Arc;

use crate::wire::msgpack::Raw;

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

/// What one policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {}

impl Rules {
    /// Reads a policy's text. Empty text is a policy that says nothing.
    ///
    /// # Errors
    /// The text that the writer of the policy is told, without the prefix `failed to parse rules: `.
    pub fn parse(_text: &str) -> Result<Rules, String> {
        Ok(Rules {})
    }

    /// The rules as the API's `RulesJSON`, one msgpack map.
    pub fn to_rules_json(&self) -> Raw {
        Raw::default()
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

#[allow(unused_variables)]
impl Acl {
    /// Everything.
    pub fn everything() -> Acl {
        Acl { management: true, policies: Vec::new() }
    }

    /// Whether a capability on a variable is allowed.
    pub fn allows_variable(&self, namespace: &str, path: &str, capability: VarCapability) -> bool {
        self.management
    }

    /// Whether any variable rule stands in the namespace, so that a list or a subscription makes sense.
    pub fn has_variable_rules(&self, namespace: &str) -> bool {
        self.management
    }

    /// Whether the namespace may be seen: any capability but deny.
    pub fn sees_namespace(&self, namespace: &str) -> bool {
        self.management
    }

    /// `node:read`
    pub fn node_read(&self) -> bool {
        self.management
    }

    /// `node:write`
    pub fn node_write(&self) -> bool {
        self.management
    }

    /// `agent:read`
    pub fn agent_read(&self) -> bool {
        self.management
    }

    /// `agent:write`
    pub fn agent_write(&self) -> bool {
        self.management
    }

    /// `operator:read`
    pub fn operator_read(&self) -> bool {
        self.management
    }

    /// `operator:write`
    pub fn operator_write(&self) -> bool {
        self.management
    }

    /// A capability of operators, or `operator:write`.
    pub fn operator(&self, capability: OperatorCapability) -> bool {
        self.management
    }
}
