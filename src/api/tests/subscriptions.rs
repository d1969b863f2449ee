//! Subscriptions to events with ACLs on: which are opened, what they let through, and when they end.

use super::super::event::{RESUBSCRIBE, still_allowed};
use super::super::outcome::{EventFilter, StreamOutcome};
use super::acl_world::*;
use super::*;
use crate::state::events::{Event, Payload};
use crate::wire::streaming::EventStreamWrapper;

fn subscribe(
    world: &World,
    token: &str,
    namespace: &str,
    topics: &[&str],
) -> Result<EventFilter, (String, Option<i64>)> {
    let topics: Vec<_> = topics.iter().map(|topic| (*topic, list_of(&["*"]))).collect();
    let fields = [("AuthToken", text(token)), ("Namespace", text(namespace)), ("Topics", map(&topics))];
    match world.stream("Event.Stream", &map(&fields)) {
        StreamOutcome::Events(filter) => Ok(filter),
        StreamOutcome::Refuse(bytes) => {
            let error = EventStreamWrapper::from_bytes(&bytes).unwrap().error.unwrap();
            Err((error.message, error.code))
        }
        other => panic!("{other:?}"),
    }
}

fn variable(namespace: &str, path: &str) -> Event {
    Event {
        topic: "Variable",
        kind: "VariableUpdated",
        key: path.into(),
        filter_keys: Vec::new(),
        namespace: namespace.into(),
        payload: Payload::Variable(Arc::default(), false),
    }
}

/// Rules that let a caller list what is below `app/` in `default`.
const APP: &str = "namespace \"default\" {\n variables {\n path \"app/*\" {\n capabilities = [\"list\"]\n }\n }\n}\n";

#[test]
fn each_topic_has_its_right() {
    let mut world = World::with_acls();
    let node = world.token_with(1, "node {\n policy = \"read\"\n}");
    let operator = world.token_with(2, "operator {\n policy = \"read\"\n}");
    let vars = world.token_with(3, APP);
    let jobs = world.token_with(4, "namespace \"default\" {\n policy = \"read\"\n}");
    let all = world.token_with(5, &all_rules_but(""));
    let denied = Err((DENIED.to_owned(), Some(403)));
    for (topics, namespace, who) in [
        (&["Node"][..], "", vec![&node, &all]),
        (&["Operator"], "", vec![&operator, &all]),
        (&["Variable"], "", vec![&vars, &all]),
        (&["Variable"], "other", vec![&all]),
        (&["Variable"], "*", vec![&vars, &all]),
        (&["Job"], "", vec![&jobs, &all]),
        (&["Evaluation", "Allocation"], "other", vec![&all]),
        (&["Node", "Variable"], "", vec![&all]),
        (&["ACLToken"], "", vec![]),
        (&["ACLPolicy"], "", vec![]),
        (&["NodePool"], "", vec![]),
        (&["*"], "", vec![]),
        (&["Nope"], "", vec![]),
        (&[], "", vec![]),
    ] {
        for token in [&node, &operator, &vars, &jobs, &all] {
            let came = subscribe(&world, token, namespace, topics);
            match who.contains(&token) {
                true => assert!(came.is_ok(), "{topics:?} {namespace} {token}: {came:?}"),
                false => assert_eq!(came, denied, "{topics:?} {namespace} {token}"),
            }
        }
        assert_eq!(subscribe(&world, ROOT, namespace, topics).unwrap().variables, None);
        for nobody in ["", NOBODY, "rubbish", SECRET] {
            assert_eq!(subscribe(&world, nobody, namespace, topics), denied);
        }
    }
}

#[test]
fn a_subscriber_sees_what_it_may_list() {
    let mut world = World::with_acls();
    let token = world.token_with(1, APP);
    let filter = subscribe(&world, &token, "*", &["Variable"]).unwrap();
    for (namespace, path, seen) in
        [("default", "app/x", true), ("default", "other", false), ("apps", "app/x", false), ("default", "app", false)]
    {
        assert_eq!(filter.matches(&variable(namespace, path)), seen, "{namespace} {path}");
        let whole = subscribe(&world, ROOT, "*", &["Variable"]).unwrap();
        assert!(whole.matches(&variable(namespace, path)));
    }
    assert!(!format!("{filter:?}").contains(&token), "{filter:?}");
}

#[test]
fn a_subscription_ends_with_its_right() {
    let mut world = World::with_acls();
    let token = world.token_with(1, APP);
    let short = world.write_token(2, &["policy-1"], &[], 60);
    let open = |world: &World, token: &str| subscribe(world, token, "", &["Variable"]).unwrap();
    let ends = |world: &World, filter: &EventFilter| still_allowed(filter, &world.state, &world.ctx);
    let (filter, other, root) = (open(&world, &token), open(&world, &short), open(&world, ROOT));
    for filter in [&filter, &other, &root] {
        assert_eq!(ends(&world, filter), Ok(()));
    }
    // The same rules once more are no change, others of no concern to it either.
    world.write_policy("policy-1", APP);
    world.write_policy("policy-9", "");
    assert_eq!(ends(&world, &filter), Ok(()));
    // It must not go on with the rights of yesterday.
    world.write_policy("policy-1", &APP.replace("app", "web"));
    assert_eq!(ends(&world, &filter), Err(RESUBSCRIBE.to_owned()));
    assert_eq!(ends(&world, &root), Ok(()));
    let filter = open(&world, &token);
    assert_eq!(ends(&world, &filter), Ok(()));
    world.write(Command::AclDeletePolicies { names: vec!["policy-1".to_owned()] });
    assert_eq!(ends(&world, &filter), Err(RESUBSCRIBE.to_owned()));

    world.write_policy("policy-1", APP);
    world.ctx.wall = WallTime::from_unix_nanos(NOW + 60_000_000_000);
    assert_eq!(ends(&world, &other), Err("ACL token expired".to_owned()));
    world.write(Command::AclDeleteTokens { accessor_ids: vec![accessor(2), ROOT_ACCESSOR.to_owned()] });
    for filter in [&other, &root] {
        assert_eq!(ends(&world, filter), Err(RESUBSCRIBE.to_owned()));
    }
    // With ACLs off nothing ends.
    assert_eq!(ends(&World::new(), &EventFilter::default()), Ok(()));
}
