//! What is refused of writes to variables, in which words, and where the limits are.

use super::variables::{ID, applied, apply, changed, get, items, lock, world, write};
use super::*;
use crate::wire::body::var::{Variable, VariableLock, VariablesApplyRequest, VariablesReadResponse};

#[test]
fn what_is_not_well_formed_is_refused_in_the_words_of_the_peers() {
    let wild = "can not target wildcard (\"*\")namespace";
    let reserved = "\"nomad\" is a reserved top-level directory path, but you may write variables to \"nomad/jobs\", \
                    \"nomad/job-templates\", \"nomad/sentinel\", or below";
    let templates = "\"nomad/job-templates\" is a reserved directory path, but you may write variables at the level \
                     below it, for example, \"nomad/job-templates/template-name\"";
    let only = "only paths at \"nomad/jobs\" or \"nomad/job-templates\" and below are valid paths under the top-level \
                \"nomad\" directory";
    let long = "a".repeat(129);
    let ttl = |ttl: i64, lock_delay: i64| {
        changed(write("lock-acquire", "p"), |var| var.lock = Some(VariableLock { ttl, lock_delay, id: String::new() }))
    };
    let times = "TTL must be between 10 seconds and 24 hours";
    let one = format!("1 error occurred:\n\t* {times}\n\n");
    let two = format!("2 errors occurred:\n\t* Lock delay and TTL must be positive\n\t* {times}\n\n");
    let negative = "1 error occurred:\n\t* Lock delay and TTL must be positive\n\n";
    let namespace = |op: &str, name: &str| changed(write(op, "p"), |var| var.namespace = name.to_owned());
    let bare = |op: &str| changed(write(op, "p"), |var| var.items = None);
    let sized = |op: &str, bytes: usize| {
        let value = "x".repeat(bytes);
        changed(write(op, "p"), |var| var.items = items(&[("four", &value)]))
    };
    let large = "variables are limited to 64KiB in total size";
    let second = 1_000_000_000;
    let rows = [
        (namespace("set", "*"), wild),
        (namespace("cas", "*"), wild),
        (namespace("lock-acquire", "*"), wild),
        (namespace("lock-release", "*"), wild),
        (namespace("delete", "*"), wild),
        (namespace("delete-cas", "*"), wild),
        (namespace("set", "a\0b"), "invalid namespace \"a\\0b\""),
        (bare("set"), "empty variables are invalid"),
        (bare("cas"), "empty variables are invalid"),
        (changed(write("set", "p"), |var| var.items = items(&[])), "empty variables are invalid"),
        (sized("set", 65_533), large),
        (sized("cas", 65_533), large),
        (sized("lock-acquire", 65_533), large),
        (write("set", ""), "variable requires path"),
        (write("lock-acquire", ""), "variable requires path"),
        (write("set", "bad path!"), "invalid path \"bad path!\""),
        (write("set", "a.b"), "invalid path \"a.b\""),
        (write("set", "ä"), "invalid path \"ä\""),
        (write("set", "a\0b"), "invalid path \"a\\0b\""),
        (write("set", &long), &format!("invalid path \"{long}\"")),
        (write("set", &"a".repeat(300)), &format!("invalid path \"{}\"...", "a".repeat(200))),
        (write("set", "nomad"), reserved),
        (write("set", "nomad/job-templates"), templates),
        (write("set", "nomad/job-templates/a/b"), templates),
        (write("set", "nomad/x"), only),
        (write("cas", "nomad/"), only),
        (write("lock-acquire", "nomad/job"), only),
        (changed(ttl(second, 0), |_| ()), &one),
        (ttl(24 * 3600 * second + 1, 0), &one),
        (ttl(-1, 0), &two),
        (ttl(0, -1), negative),
        (changed(ttl(5, 0), |_| ()), &one),
        (changed(write("lock-release", "p"), |_| ()), "missing lock information"),
        (changed(write("lock-release", "p"), |var| var.lock = lock("")), "missing lock information"),
        (
            changed(write("lock-release", "p"), |var| (var.lock, var.items) = (lock(ID), items(&[("k", "v")]))),
            "lock release operation doesn't take variable items",
        ),
        (changed(write("lock-release", ""), |var| var.lock = lock(ID)), "variable requires path"),
        (write("delete", ""), "delete requires a Path"),
        (write("delete-cas", ""), "delete requires a Path"),
        (
            VariablesApplyRequest { owner: "o".repeat(129), ..write("lock-acquire", "p") },
            "lock owner is limited to 128 bytes",
        ),
    ];
    let mut world = world();
    for (request, text) in &rows {
        let came = apply(&mut world, request);
        assert_eq!(came.error(), format!("RPC Error:: 400,{text}"));
    }
    for definition in [(second, 0), (0, second)] {
        let request = changed(write("set", "p"), |var| {
            var.lock = Some(VariableLock { ttl: definition.0, lock_delay: definition.1, id: ID.to_owned() });
        });
        let text = "RPC Error:: 400,variable should not contain lock definition";
        assert_eq!(apply(&mut world, &request).error(), text);
    }
    let nil = VariablesApplyRequest { var: None, ..write("set", "p") };
    assert_eq!(apply(&mut world, &nil).error(), "variable must not be nil");
    for op in ["frob", "", "Set"] {
        let text = format!("svPreApply: unexpected VarOp received: \"{op}\"");
        assert_eq!(apply(&mut world, &write(op, "p")).error(), text);
    }
    assert_eq!(world.written, [], "nothing of it was proposed");
}

/// The first thing that is wrong is named.
#[test]
fn checks_have_an_order() {
    let mut world = world();
    let mut request = changed(write("set", ""), |var| {
        (var.namespace, var.items, var.lock) =
            ("*".to_owned(), None, Some(VariableLock { ttl: 1, ..Default::default() }));
    });
    let large = "x".repeat(65_537);
    type Repair<'a> = (&'a str, &'a dyn Fn(&mut Variable));
    let repairs: [Repair<'_>; 5] = [
        ("can not target", &|var| var.namespace.clear()),
        ("empty variables", &|var| var.items = items(&[("k", &large)])),
        ("variables are limited", &|var| var.items = items(&[("k", "v")])),
        ("variable requires path", &|var| var.path = "p".to_owned()),
        ("variable should not contain lock", &|var| var.lock = None),
    ];
    for (text, repair) in repairs {
        let came = apply(&mut world, &request);
        assert!(came.error().starts_with(&format!("RPC Error:: 400,{text}")), "{came:?}");
        request = changed(request, repair);
    }
    assert_eq!(applied(&mut world, &request).result, "ok");
}

#[test]
fn these_are_well_formed() {
    let mut world = world();
    let value = "x".repeat(65_532);
    let rows = [
        changed(write("set", "p"), |var| var.items = items(&[("four", &value)])),
        changed(write("set", "p"), |var| var.lock = lock("")),
        write("set", &"a".repeat(128)),
        write("set", "/a//B_c-~9/"),
        write("set", "nomad/jobs"),
        write("set", "nomad/jobs/a/b/c"),
        write("set", "nomad/sentinel"),
        write("set", "nomad/sentinel/x"),
        write("set", "nomad/job-templates/x"),
        write("set", "nomads"),
        write("delete", "what is no path"),
    ];
    for request in rows {
        assert_eq!(applied(&mut world, &request).result, "ok", "{request:?}");
    }
}

/// R8.25, R8.11: other limits are named in the same sentences.
#[test]
fn limits_are_those_of_the_configuration() {
    let mut world = world();
    let limits = |world: &mut World, bytes, ttl| {
        let facts = ServerFacts { variables_max_bytes: bytes, locks_min_ttl: ttl, ..(*world.ctx.server).clone() };
        world.ctx.server = Arc::new(facts);
    };
    let value = "x".repeat(512 * 1024);
    let large = changed(write("set", "p"), |var| var.items = items(&[("k", &value)]));
    let short = |ttl: i64| {
        changed(write("lock-acquire", "q"), |var| var.lock = Some(VariableLock { ttl, ..VariableLock::default() }))
    };
    for (bytes, ttl, size, time) in [
        (512 * 1024, Duration::from_secs(2), "512KiB", "2 seconds"),
        (1000, Duration::from_millis(2500), "1000 bytes", "2500 milliseconds"),
    ] {
        limits(&mut world, bytes, ttl);
        let text = format!("RPC Error:: 400,variables are limited to {size} in total size");
        assert_eq!(apply(&mut world, &large).error(), text);
        let text = format!("1 error occurred:\n\t* TTL must be between {time} and 24 hours\n\n");
        assert_eq!(apply(&mut world, &short(1_999_999_999)).error(), format!("RPC Error:: 400,{text}"));
    }
    limits(&mut world, 512 * 1024 + 1, Duration::from_secs(2));
    assert_eq!(applied(&mut world, &large).result, "ok");
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!(read.data.unwrap().items.unwrap()["k"].len(), 512 * 1024);
    assert_eq!(applied(&mut world, &short(2_000_000_000)).result, "ok");
}
