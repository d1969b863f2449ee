//! HTTP notes, sections 9 and 10: tokens, policies, roles, namespaces.

use super::*;
use crate::wire::body::acl::{
    AclPolicy, AclPolicyListResponse, AclPolicyListStub, AclRole, AclRoleLink, AclRoleUpsertResponse, AclToken,
    AclTokenListResponse, AclTokenListStub, AclTokenUpsertResponse, AuthenticatedIdentity, OneTimeToken,
    SingleAclPolicyResponse, SingleAclRoleResponse, SingleAclTokenResponse, WhoAmIResponse,
};
use crate::wire::body::namespace::{Namespace, NamespaceListResponse, SingleNamespaceResponse};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::msgpack::{Encoder, Raw};

pub(super) const CALLS: &[Row] = &[
    ("PUT /v1/acl/bootstrap", "", "ACL.Bootstrap", r#"{"BootstrapSecret":""}"#),
    ("POST /v1/acl/bootstrap", r#"{"BootstrapSecret":"u"}"#, "ACL.Bootstrap", r#"{"BootstrapSecret":"u"}"#),
    ("GET /v1/acl/policies?prefix=a", "", "ACL.ListPolicies", r#"{"Prefix":"a"}"#),
    ("GET /v1/acl/policy/self", "", "ACL.ListPolicies", "{}"),
    ("GET /v1/acl/policy/p1", "", "ACL.GetPolicy", r#"{"Name":"p1"}"#),
    (
        "PUT /v1/acl/policy/p1",
        r#"{"Name":"p1","Description":"d","Rules":"node {}","JobACL":{"Namespace":"n"},"RulesJSON":{"a":1}}"#,
        "ACL.UpsertPolicies",
        r#"{"Policies":[{"Name":"p1","Description":"d","Rules":"node {}","JobACL":{"Namespace":"n"},"RulesJSON":null}]}"#,
    ),
    ("DELETE /v1/acl/policy/p1", "", "ACL.DeletePolicies", r#"{"Names":["p1"]}"#),
    ("GET /v1/acl/tokens?global=true&prefix=ab", "", "ACL.ListTokens", r#"{"GlobalOnly":true,"Prefix":"ab"}"#),
    (
        "PUT /v1/acl/token",
        r#"{"Name":"t","Type":"client","Policies":["a","b"],"Roles":[{"Name":"r"}],"Global":true,"ExpirationTTL":"1h"}"#,
        "ACL.UpsertTokens",
        r#"{"Tokens":[{"AccessorID":"","Name":"t","Type":"client","Policies":["a","b"],"Roles":[{"ID":"","Name":"r"}],"Global":true,
            "ExpirationTTL":3600000000000,"ExpirationTime":null,"CreateTime":"0001-01-01T00:00:00Z"}]}"#,
    ),
    (
        "POST /v1/acl/token/a1",
        r#"{"AccessorID":"a1","SecretID":"s1","Policies":null,"ExpirationTTL":60000000000,"ExpirationTime":"2026-01-02T03:04:05Z","Hash":"YWJj"}"#,
        "ACL.UpsertTokens",
        r#"{"Tokens":[{"AccessorID":"a1","SecretID":"s1","Policies":null,"ExpirationTTL":60000000000,"ExpirationTime":"2026-01-02T03:04:05Z","Hash":null}]}"#,
    ),
    (
        "PUT /v1/acl/token",
        r#"{"ExpirationTime":"0001-01-01T00:00:00Z"}"#,
        "ACL.UpsertTokens",
        r#"{"Tokens":[{"ExpirationTime":null}]}"#,
    ),
    ("GET /v1/acl/token/a1", "", "ACL.GetToken", r#"{"AccessorID":"a1"}"#),
    ("DELETE /v1/acl/token/a1", "", "ACL.DeleteTokens", r#"{"AccessorIDs":["a1"]}"#),
    ("GET /v1/acl/token/self", "", "ACL.WhoAmI", "{}"),
    ("PUT /v1/acl/token/onetime", "", "ACL.UpsertOneTimeToken", "{}"),
    (
        "PUT /v1/acl/token/onetime/exchange",
        r#"{"OneTimeSecretID":"o"}"#,
        "ACL.ExchangeOneTimeToken",
        r#"{"OneTimeSecretID":"o"}"#,
    ),
    ("GET /v1/acl/roles", "", "ACL.ListRoles", "{}"),
    (
        "PUT /v1/acl/role",
        r#"{"Name":"r","Policies":[{"Name":"p"}]}"#,
        "ACL.UpsertRoles",
        r#"{"ACLRoles":[{"ID":"","Name":"r","Policies":[{"Name":"p"}]}],"AllowMissingPolicies":false}"#,
    ),
    (
        "POST /v1/acl/role/i1",
        r#"{"ID":"i1","Name":"r"}"#,
        "ACL.UpsertRoles",
        r#"{"ACLRoles":[{"ID":"i1","Policies":null}]}"#,
    ),
    ("GET /v1/acl/role/i1", "", "ACL.GetRoleByID", r#"{"RoleID":"i1"}"#),
    ("DELETE /v1/acl/role/i1", "", "ACL.DeleteRolesByID", r#"{"ACLRoleIDs":["i1"]}"#),
    ("GET /v1/acl/role/name/r", "", "ACL.GetRoleByName", r#"{"RoleName":"r"}"#),
    (
        "POST /v1/acl/identity/client-introduction-token",
        r#"{"TTL":300000000000,"NodeName":"n","NodePool":"p"}"#,
        "ACL.CreateClientIntroductionToken",
        r#"{"TTL":300000000000,"NodeName":"n","NodePool":"p"}"#,
    ),
    ("GET /v1/namespaces?prefix=d", "", "Namespace.ListNamespaces", r#"{"Prefix":"d"}"#),
    ("GET /v1/namespace/dev", "", "Namespace.GetNamespace", r#"{"Name":"dev"}"#),
    (
        "PUT /v1/namespace",
        r#"{"name":"dev","Description":"d","Meta":{"a":"b"},"Capabilities":{"EnabledTaskDrivers":["x"]},"Hash":"YQ=="}"#,
        "Namespace.UpsertNamespaces",
        r#"{"Namespaces":[{"Name":"dev","Description":"d","Meta":{"a":"b"},"Capabilities":{"EnabledTaskDrivers":["x"]},"Hash":null}]}"#,
    ),
    (
        "POST /v1/namespace/dev",
        r#"{"Name":"dev"}"#,
        "Namespace.UpsertNamespaces",
        r#"{"Namespaces":[{"Name":"dev","Meta":null}]}"#,
    ),
    ("DELETE /v1/namespace/dev", "", "Namespace.DeleteNamespaces", r#"{"Namespaces":["dev"]}"#),
];

#[test]
fn requests_become_calls() {
    check_calls(CALLS);
}

#[test]
fn what_is_wrong_is_said() {
    check_refused(&[
        ("GET /v1/acl/bootstrap", "", 405, "Invalid method"),
        ("PUT /v1/acl/policies", "", 405, "Invalid method"),
        ("PATCH /v1/acl/policy/p", "", 405, "Invalid method"),
        ("GET /v1/acl/policy/", "", 400, "Missing Policy Name"),
        ("PUT /v1/acl/policy/p", "", 400, "Request body is empty"),
        ("PUT /v1/acl/policy/p", r#"{"Name":"q"}"#, 400, "ACL policy name does not match request path"),
        ("PUT /v1/acl/tokens", "", 405, "Invalid method"),
        ("GET /v1/acl/token", "", 405, "Invalid method"),
        ("GET /v1/acl/token/", "", 400, "Missing Token Accessor"),
        ("PUT /v1/acl/token", "", 400, "Request body is empty"),
        ("PUT /v1/acl/token/a", r#"{"AccessorID":"b"}"#, 400, "ACL token accessor does not match request path"),
        ("PUT /v1/acl/token/self", "{}", 405, "Invalid method"),
        ("GET /v1/acl/token/onetime", "", 405, "Invalid method"),
        ("PUT /v1/acl/token/onetime/exchange", "", 400, "Request body is empty"),
        ("PUT /v1/acl/roles", "", 405, "Invalid method"),
        ("GET /v1/acl/role", "", 405, "Invalid method"),
        ("GET /v1/acl/role/", "", 400, "missing ACL role ID"),
        ("GET /v1/acl/role/name/", "", 400, "missing ACL role name"),
        ("GET /v1/acl/role/a/b", "", 400, "invalid URI"),
        ("PUT /v1/acl/role/name/r", "{}", 405, "Invalid method"),
        ("PUT /v1/acl/role/a", r#"{"ID":"b"}"#, 400, "ACL role ID does not match request path"),
        ("GET /v1/acl/identity/client-introduction-token", "", 405, "Invalid method"),
        ("PUT /v1/namespaces", "", 405, "Invalid method"),
        ("GET /v1/namespace", "", 405, "Invalid method"),
        ("GET /v1/namespace/", "", 400, "Missing Namespace Name"),
        ("PUT /v1/namespace", "", 400, "Request body is empty"),
        ("PUT /v1/namespace/a", r#"{"Name":"b"}"#, 400, "Namespace name does not match request path"),
        ("PATCH /v1/namespace/a", "", 405, "Invalid method"),
    ]);
    let Plan::Reply(reply) = plan_of("PUT /v1/acl/bootstrap", "{") else { panic!("a call") };
    assert!(String::from_utf8(reply.body).unwrap().starts_with("failed to decode request body: EOF"));
}

fn token() -> AclToken {
    AclToken {
        accessor_id: "a1".to_owned(),
        secret_id: "s1".to_owned(),
        name: "t".to_owned(),
        kind: "client".to_owned(),
        policies: Some(vec!["p".to_owned(), "q".to_owned()]),
        roles: Some(vec![AclRoleLink { id: "i".to_owned(), name: "r".to_owned() }]),
        global: true,
        hash: Raw((&b"\xa3abc"[..]).into()),
        create_time: go_time(1_767_323_045_000_000_000),
        expiration_time: Some(go_time(1_767_326_645_000_000_000)),
        expiration_ttl: 3_600_000_000_000,
        create_index: 11,
        modify_index: 12,
    }
}

const TOKEN: &str = r#"{"ExpirationTTL":"1h0m0s","AccessorID":"a1","SecretID":"s1","Name":"t","Type":"client","Policies":["p","q"],"Roles":[{"ID":"i","Name":"r"}],"Global":true,"Hash":"YWJj","CreateTime":"2026-01-02T03:04:05Z","ExpirationTime":"2026-01-02T04:04:05Z","CreateIndex":11,"ModifyIndex":12}"#;

#[test]
fn tokens_are_shown_whole_to_whoever_may_see_them() {
    let one = SingleAclTokenResponse { token: Some(token()), meta: meta() };
    assert_eq!(answered("GET /v1/acl/token/a1", "", &one), json_shown(200, TOKEN, &READ));
    let none = SingleAclTokenResponse { token: None, meta: meta() };
    assert_eq!(answered("GET /v1/acl/token/a1", "", &none), text_shown(404, "ACL token not found", &READ));
    let written = AclTokenUpsertResponse { tokens: vec![token()], meta: WriteMeta { index: 12 } };
    for line in ["PUT /v1/acl/token", "POST /v1/acl/bootstrap"] {
        assert_eq!(answered(line, "{}", &written), json_shown(200, TOKEN, &["X-Nomad-Index: 12"]), "{line}");
    }
    let plain = AclToken { create_time: go_zero_time(), accessor_id: "anonymous".to_owned(), ..AclToken::default() };
    let json = r#"{"ExpirationTTL":"","AccessorID":"anonymous","SecretID":"","Name":"","Type":"","Policies":null,"Roles":null,"Global":false,"Hash":null,"CreateTime":"0001-01-01T00:00:00Z","ExpirationTime":null,"CreateIndex":0,"ModifyIndex":0}"#;
    let identity = |token| WhoAmIResponse {
        identity: Some(AuthenticatedIdentity { acl_token: token, ..AuthenticatedIdentity::default() }),
        meta: meta(),
    };
    let line = "GET /v1/acl/token/self";
    assert_eq!(answered(line, "", &identity(Some(plain.clone()))), json_shown(200, json, &READ));
    assert_eq!(answered(line, "", &identity(None)), text_shown(404, "ACL token not found", &READ));
    let off = AclToken { accessor_id: "acls-disabled".to_owned(), ..plain };
    assert_eq!((answered(line, "", &identity(Some(off)))).body, "ACL support disabled");
    let jose = "failed to parse signed token: go-jose/go-jose: compact JWS format must have three parts";
    assert_eq!(failed(line, "", jose), text_shown(403, "Permission denied", &[]));
    assert_eq!(failed(line, "", "ACL token not found"), text_shown(403, "Permission denied", &[]));
    let mut e = Encoder::new();
    e.map(2);
    e.str("Token");
    token().encode(&mut e);
    e.str("Index");
    e.u64(5);
    let line = "PUT /v1/acl/token/onetime/exchange";
    let json = format!(r#"{{"Index":5,"Token":{TOKEN}}}"#);
    assert_eq!(answered(line, "{}", &Raw(e.out.into())), json_shown(200, &json, &["X-Nomad-Index: 5"]));
}

#[test]
fn lists_of_tokens_have_no_secrets() {
    let stub = AclTokenListStub {
        accessor_id: "a1".to_owned(),
        hash: Raw((&b"\xa3abc"[..]).into()),
        create_time: go_time(1_767_323_045_000_000_000),
        ..AclTokenListStub::default()
    };
    let json = r#"[{"AccessorID":"a1","CreateIndex":0,"CreateTime":"2026-01-02T03:04:05Z","ExpirationTime":null,"Global":false,"Hash":"YWJj","ModifyIndex":0,"Name":"","Policies":null,"Roles":null,"Type":""}]"#;
    let list = AclTokenListResponse { tokens: vec![stub], meta: meta() };
    assert_eq!(answered("GET /v1/acl/tokens", "", &list), json_shown(200, json, &READ));
    let mut e = Encoder::new();
    e.map(2);
    e.str("OneTimeToken");
    OneTimeToken { one_time_secret_id: "o".to_owned(), expires_at: go_zero_time(), ..OneTimeToken::default() }
        .encode(&mut e);
    e.str("Index");
    e.u64(5);
    let shown = answered("PUT /v1/acl/token/onetime", "", &Raw(e.out.into()));
    assert!(shown.body.contains(r#""OneTimeSecretID":"o""#), "{}", shown.body);
    assert!(shown.body.contains(r#""ExpiresAt":"0001-01-01T00:00:00Z""#), "{}", shown.body);
}

#[test]
fn policies_and_roles_look_as_the_notes_show_them() {
    let stub =
        AclPolicyListStub { name: "p".to_owned(), hash: Raw((&b"\xa3abc"[..]).into()), ..AclPolicyListStub::default() };
    let list = AclPolicyListResponse { policies: vec![stub], meta: meta() };
    let json = r#"[{"CreateIndex":0,"Description":"","Hash":"YWJj","JobACL":null,"ModifyIndex":0,"Name":"p"}]"#;
    assert_eq!(answered("GET /v1/acl/policies", "", &list), json_shown(200, json, &READ));
    assert_eq!(answered("GET /v1/acl/policy/self", "", &list), json_shown(200, json, &READ));
    let policy = AclPolicy {
        name: "p".to_owned(),
        rules: "node { policy = \"read\" }".to_owned(),
        rules_json: Raw((&b"\x81\xa4Node\x81\xa6Policy\xa4read"[..]).into()),
        ..AclPolicy::default()
    };
    let json = r#"{"CreateIndex":0,"Description":"","Hash":null,"JobACL":null,"ModifyIndex":0,"Name":"p","Rules":"node { policy = \"read\" }","RulesJSON":{"Node":{"Policy":"read"}}}"#;
    let one = SingleAclPolicyResponse { policy: Some(policy), meta: meta() };
    assert_eq!(answered("GET /v1/acl/policy/p", "", &one), json_shown(200, json, &READ));
    let none = SingleAclPolicyResponse { policy: None, meta: meta() };
    assert_eq!(answered("GET /v1/acl/policy/p", "", &none), text_shown(404, "ACL policy not found", &READ));
    let done = GenericResponse { meta: WriteMeta { index: 9 } };
    for (line, body) in [
        ("PUT /v1/acl/policy/p", r#"{"Name":"p"}"#),
        ("DELETE /v1/acl/policy/p", ""),
        ("DELETE /v1/acl/token/a", ""),
        ("DELETE /v1/acl/role/a", ""),
    ] {
        assert_eq!(answered(line, body, &done), empty_shown(200, &["X-Nomad-Index: 9"]), "{line}");
    }
    let role = AclRole { id: "i".to_owned(), name: "r".to_owned(), ..AclRole::default() };
    let json = r#"{"CreateIndex":0,"Description":"","Hash":null,"ID":"i","ModifyIndex":0,"Name":"r","Policies":null}"#;
    let written = AclRoleUpsertResponse { roles: vec![role.clone()], meta: WriteMeta { index: 9 } };
    assert_eq!(answered("PUT /v1/acl/role", "{}", &written), json_shown(200, json, &["X-Nomad-Index: 9"]));
    let nothing = AclRoleUpsertResponse::default();
    assert_eq!(answered("PUT /v1/acl/role", "{}", &nothing), empty_shown(200, &["X-Nomad-Index: 0"]));
    for line in ["GET /v1/acl/role/i", "GET /v1/acl/role/name/r"] {
        let one = SingleAclRoleResponse { role: Some(role.clone()), meta: meta() };
        assert_eq!(answered(line, "", &one), json_shown(200, json, &READ), "{line}");
        let none = SingleAclRoleResponse { role: None, meta: meta() };
        assert_eq!(answered(line, "", &none), text_shown(404, "ACL role not found", &READ), "{line}");
    }
    let jwt = Raw((&b"\x82\xa3JWT\xa1j\xa5Index\x05"[..]).into());
    let line = "POST /v1/acl/identity/client-introduction-token";
    assert_eq!(answered(line, "{}", &jwt), json_shown(200, r#"{"JWT":"j"}"#, &[]));
    let off = "RPC Error:: 400,ACL support disabled";
    assert_eq!(failed("GET /v1/acl/tokens", "", off), text_shown(400, "ACL support disabled", &[]));
}

#[test]
fn namespaces_look_as_the_peers_do() {
    let namespace = Namespace {
        name: "default".to_owned(),
        description: "Default shared namespace".to_owned(),
        meta: Some([("SecretID".to_owned(), "mine".to_owned())].into()),
        create_index: 1,
        modify_index: 1,
        ..Namespace::default()
    };
    let json = r#"{"Capabilities":null,"ConsulConfiguration":null,"CreateIndex":1,"Description":"Default shared namespace","Hash":null,"Meta":{"SecretID":"mine"},"ModifyIndex":1,"Name":"default","NodePoolConfiguration":null,"OptionalExtraClaims":null,"Quota":"","RequiredExtraClaims":null,"VaultConfiguration":null}"#;
    let list = NamespaceListResponse { namespaces: vec![namespace.clone()], meta: meta() };
    assert_eq!(answered("GET /v1/namespaces", "", &list), json_shown(200, &format!("[{json}]"), &READ));
    let one = SingleNamespaceResponse { namespace: Some(namespace), meta: meta() };
    assert_eq!(answered("GET /v1/namespace/default", "", &one), json_shown(200, json, &READ));
    let none = SingleNamespaceResponse { namespace: None, meta: meta() };
    assert_eq!(answered("GET /v1/namespace/x", "", &none), text_shown(404, "Namespace not found", &READ));
    let done = GenericResponse { meta: WriteMeta { index: 9 } };
    for (line, body) in [("PUT /v1/namespace", "{}"), ("DELETE /v1/namespace/x", "")] {
        assert_eq!(answered(line, body, &done), empty_shown(200, &["X-Nomad-Index: 9"]), "{line}");
    }
    let bad = "Invalid namespace \"de v\": 1 error occurred:\n\t* invalid name \"de v\". Must match regex ^[a-zA-Z0-9-]{1,128}$\n\n";
    for text in [bad, "can not delete default namespace", "namespace not found"] {
        assert_eq!(failed("DELETE /v1/namespace/x", "", text), text_shown(500, text, &[]));
    }
}
