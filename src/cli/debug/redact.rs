//! What is secret, by the names of fields and by known values: the one place where that is decided for an archive.
//!
//! A field's name is compared without case, `_` and `-`. Knows no servers and no files.

use serde_json::Value;

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// Fields that are secret, whatever they hold.
const SECRET_NAMES: [&str; 16] = [
    "authtoken",
    "bootstrapsecret",
    "bootstraptoken",
    "encrypt",
    "encryptionkey",
    "gossipkey",
    "items",
    "key",
    "lockid",
    "migratetokens",
    "passphrase",
    "privatekey",
    "rootkey",
    "sessionkey",
    "signedidentities",
    "token",
];
/// What a secret field's name ends in.
const SECRET_ENDS: [&str; 6] = ["password", "secret", "secretid", "token", "secretkey", "passwd"];

/// Whether a field of this name is secret.
pub(super) fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    SECRET_NAMES.contains(&plain.as_str()) || SECRET_ENDS.iter().any(|end| plain.ends_with(end))
}

/// Takes secrets out of JSON: fields by their names, texts by what is in them.
pub(super) fn redact(value: &mut Value, known: &[String]) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                // That there is none is no secret.
                let is_empty = matches!(field, Value::Null | Value::Bool(_)) || *field == "";
                if is_secret(name) && !is_empty {
                    *field = REDACTED.into();
                } else {
                    redact(field, known);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| redact(one, known)),
        Value::String(text) => *text = redact_text(text, known),
        _ => {}
    }
}

/// Takes secrets out of lines of text: known values, passwords of URLs, and `name=value` words of secret names.
pub(super) fn redact_text(text: &str, known: &[String]) -> String {
    let mut out = text.to_owned();
    for secret in known.iter().filter(|secret| !secret.is_empty()) {
        out = out.replace(secret, REDACTED);
    }
    let words = out.split_inclusive([' ', '\n', '\t', ',', '"']);
    words.map(redact_word).collect()
}

fn redact_word(word: &str) -> String {
    let body = word.trim_end_matches([' ', '\n', '\t', ',', '"']);
    let end = word.get(body.len()..).unwrap_or_default();
    if let Some((name, value)) = body.split_once('=') {
        let name_alone = name.rsplit(['{', '(', '[', '?', '&']).next().unwrap_or(name);
        if !value.is_empty() && is_secret(name_alone) {
            return format!("{name}={REDACTED}{end}");
        }
    }
    match body.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://{REDACTED}@{host}{end}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    // R8.26
    #[test]
    fn fields_are_secret_by_name() {
        for secret in [
            "SecretID",
            "secret_id",
            "AuthToken",
            "X-Nomad-Token",
            "BootstrapSecret",
            "LockID",
            "lock_id",
            "ID_Token",
            "Key",
            "SessionKey",
            "RootKey",
            "encrypt",
            "PrivateKey",
            "private_key",
            "password",
            "db-password",
            "Items",
            "VaultToken",
            "MigrateTokens",
            "SignedIdentities",
            "client_secret",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in ["KeyID", "AccessorID", "ID", "KeyFile", "Keys", "Path", "TokensMade", "Fence", "Owner", "Name"] {
            assert!(!is_secret(open), "{open}");
        }
    }

    #[test]
    fn secrets_are_taken_out_wherever_they_lie() {
        let known = ["4711-abc".to_owned(), String::new()];
        for (before, after) in [
            (json!({ "SecretID": "s", "ID": "i" }), json!({ "SecretID": REDACTED, "ID": "i" })),
            (
                json!({ "SecretID": "", "Token": null, "HasToken": true }),
                json!({ "SecretID": "", "Token": null, "HasToken": true }),
            ),
            (json!([{ "a": [{ "password": 7 }] }]), json!([{ "a": [{ "password": REDACTED }] }])),
            (json!({ "Items": { "k": "v" } }), json!({ "Items": REDACTED })),
            (json!("with 4711-abc in it"), json!(format!("with {REDACTED} in it"))),
            (json!("postgres://u:p@db/x"), json!(format!("postgres://{REDACTED}@db/x"))),
            (json!("https://db/x"), json!("https://db/x")),
        ] {
            let mut value = before.clone();
            redact(&mut value, &known);
            assert_eq!(value, after, "{before}");
        }
        let line = "call: token=abc {secret_id=def, node=7} url?x_token=ghi path=a/b 4711-abc\n";
        let open = format!(
            "call: token={REDACTED} {{secret_id={REDACTED}, node=7}} url?x_token={REDACTED} path=a/b {REDACTED}\n"
        );
        assert_eq!(redact_text(line, &known), open);
    }
}
