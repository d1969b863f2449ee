//! The words of the policy language, and what each stands for.
//!
//! `lock-read` is ours (R8.10); all others are the peers'. Source: endpoint notes, section 9.

/// Allows nothing, whatever else is said.
pub(super) const DENY: &str = "deny";

/// Words of `policy`.
pub(super) const POLICIES: &[&str] = &[DENY, "read", "write", "scale"];

/// Words of a plugin's `policy`.
pub(super) const PLUGIN_POLICIES: &[&str] = &[DENY, "read", "list", "write"];

/// What can be allowed on a variable.
pub(super) const VARIABLE_CAPABILITIES: &[&str] = &["read", "list", "write", "destroy", "lock-read", DENY];

/// What can be allowed on a node pool.
pub(super) const NODE_POOL_CAPABILITIES: &[&str] = &["delete", "read", "write", DENY];

/// What can be allowed on a host volume.
pub(super) const HOST_VOLUME_CAPABILITIES: &[&str] = &["mount-readonly", "mount-readwrite", DENY];

/// What can be allowed an operator.
pub(super) const OPERATOR_CAPABILITIES: &[&str] =
    &["snapshot-save", "license-read", "keyring-read", "keyring-rotate", "keyring-delete", DENY];

/// What `policy = "read"` of a namespace stands for.
const NAMESPACE_READ: &[&str] = &[
    "list-jobs",
    "parse-job",
    "read-job",
    "csi-list-volume",
    "csi-read-volume",
    "read-job-scaling",
    "list-scaling-policies",
    "read-scaling-policy",
    "host-volume-read",
];

/// What `policy = "write"` of a namespace stands for, beside those of `read`.
const NAMESPACE_WRITE: &[&str] = &[
    "scale-job",
    "submit-job",
    "dispatch-job",
    "read-logs",
    "read-fs",
    "alloc-exec",
    "alloc-lifecycle",
    "csi-mount-volume",
    "csi-write-volume",
    "submit-recommendation",
    "host-volume-create",
];

/// What `policy = "scale"` of a namespace stands for.
const NAMESPACE_SCALE: &[&str] = &[
    "list-scaling-policies",
    "read-scaling-policy",
    "read-job-scaling",
    "scale-job",
    "read-job",
    "submit-recommendation",
];

/// What can be allowed in a namespace.
pub(super) const NAMESPACE_CAPABILITIES: &[&str] = &[
    DENY,
    "list-jobs",
    "parse-job",
    "read-job",
    "submit-job",
    "dispatch-job",
    "read-logs",
    "read-fs",
    "alloc-exec",
    "alloc-node-exec",
    "alloc-lifecycle",
    "sentinel-override",
    "csi-register-plugin",
    "csi-write-volume",
    "csi-read-volume",
    "csi-list-volume",
    "csi-mount-volume",
    "host-volume-create",
    "host-volume-register",
    "host-volume-read",
    "host-volume-write",
    "host-volume-delete",
    "list-scaling-policies",
    "read-scaling-policy",
    "read-job-scaling",
    "scale-job",
    "submit-recommendation",
    "register-job",
    "revert-job",
    "deregister-job",
    "purge-job",
    "evaluate-job",
    "plan-job",
    "tag-job-version",
    "stable-job",
    "fail-deployment",
    "pause-deployment",
    "promote-deployment",
    "unblock-deployment",
    "cancel-deployment",
    "set-alloc-health-deployment",
    "gc-allocation",
    "pause-allocation",
    "force-periodic-job",
    "delete-service-registration",
];

fn add(capabilities: &mut Vec<String>, words: &[&str]) {
    capabilities.extend(words.iter().map(|word| (*word).to_owned()));
}

/// Adds what a namespace's policy and its capabilities imply, in the peers' order.
pub(super) fn expand_namespace(policy: &str, capabilities: &mut Vec<String>) {
    match policy {
        "read" => add(capabilities, NAMESPACE_READ),
        "write" => {
            add(capabilities, NAMESPACE_READ);
            add(capabilities, NAMESPACE_WRITE);
        }
        "scale" => add(capabilities, NAMESPACE_SCALE),
        DENY => add(capabilities, &[DENY]),
        _ => {}
    }
    let implied: Vec<&[&str]> = capabilities
        .iter()
        .map(|capability| -> &[&str] {
            match &**capability {
                "host-volume-write" => {
                    &["host-volume-register", "host-volume-create", "host-volume-delete", "host-volume-read"]
                }
                "host-volume-register" => &["host-volume-create", "host-volume-read"],
                "host-volume-create" => &["host-volume-read"],
                _ => &[],
            }
        })
        .collect();
    for words in implied {
        add(capabilities, words);
    }
}

/// Reading implies listing; `deny` erases the others.
pub(super) fn expand_variables(capabilities: &mut Vec<String>) {
    let has = |word: &str| capabilities.iter().any(|capability| capability == word);
    if has(DENY) {
        *capabilities = vec![DENY.to_owned()];
    } else if has("read") && !has("list") {
        add(capabilities, &["list"]);
    }
}

/// Adds what a node pool's policy implies.
pub(super) fn expand_node_pool(policy: &str, capabilities: &mut Vec<String>) {
    match policy {
        "read" => add(capabilities, &["read"]),
        "write" => add(capabilities, &["delete", "read", "write"]),
        DENY => add(capabilities, &[DENY]),
        _ => {}
    }
}

/// Adds what a host volume's policy implies.
pub(super) fn expand_host_volume(policy: &str, capabilities: &mut Vec<String>) {
    match policy {
        "read" => add(capabilities, &["mount-readonly"]),
        "write" => add(capabilities, &["mount-readonly", "mount-readwrite"]),
        DENY => add(capabilities, &[DENY]),
        _ => {}
    }
}

/// Adds what an operator's policy implies.
pub(super) fn expand_operator(policy: &str, capabilities: &mut Vec<String>) {
    match policy {
        "read" => add(capabilities, &["license-read", "keyring-read"]),
        "write" => {
            let all = OPERATOR_CAPABILITIES.iter().filter(|word| **word != DENY);
            capabilities.extend(all.map(|word| (*word).to_owned()));
        }
        DENY => add(capabilities, &[DENY]),
        _ => {}
    }
}
