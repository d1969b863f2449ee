//! Three servers and what operators are told of them and may do to them (endpoint notes, sections 2 and 5).

use super::*;
use crate::api::outcome::{ClusterChange, Reply};
use crate::api::{ServerStatus, audit};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::operator::*;
use crate::wire::body::query::GenericRequest;
use crate::wire::body::status::ServerMembersResponse;
use crate::wire::rpc::EMPTY_BODY;

/// Ids of the three; the first is the server that is asked, and leads.
const IDS: [&str; 3] = [
    "ac5f8898-16df-9985-dd63-14f4b415308e",
    "bbbbbbbb-16df-9985-dd63-14f4b415308e",
    "cccccccc-16df-9985-dd63-14f4b415308e",
];
const ADDRESSES: [&str; 3] = ["127.0.0.1:24647", "127.0.0.2:24647", "c.example.com:24647"];

fn three() -> World {
    let mut world = World::new();
    let server = |nth: usize, name: &str| ServerEntry {
        name: name.to_owned(),
        id: IDS[nth].to_owned(),
        rpc_addr: ADDRESSES[nth].to_owned(),
        http_addr: "127.0.0.1:24646".to_owned(),
        datacenter: "dc1".to_owned(),
        build: "0.1.0".to_owned(),
        voter: true,
        is_member: true,
        last_heard: Some(Duration::from_millis(20)),
        last_index: 77,
        last_term: 2,
        matched: 77,
        stable_since: Some(WallTime::from_unix_nanos(NOW)),
        ..ServerEntry::default()
    };
    world.ctx.servers = Arc::from([server(0, "golden"), server(1, "second"), server(2, "third")]);
    world
}

fn change(world: &mut World, nth: usize, how: impl FnOnce(&mut ServerEntry)) {
    let mut servers = world.ctx.servers.to_vec();
    how(&mut servers[nth]);
    world.ctx.servers = servers.into();
}

/// Somebody who is known and no member.
fn with_stranger() -> World {
    let mut world = three();
    let stranger = ServerEntry { name: "new".to_owned(), id: "new".to_owned(), ..ServerEntry::default() };
    world.ctx.servers = world.ctx.servers.iter().cloned().chain([stranger]).collect();
    world
}

fn remove(world: &mut World, id: &str) -> Came {
    let request = RaftPeerByIdRequest { id: id.to_owned(), ..Default::default() };
    world.call_bytes("Operator.RaftRemovePeerByID", &request.to_bytes())
}

fn transfer(world: &mut World, address: &str, id: &str) -> Came {
    let request = RaftPeerRequest { address: address.to_owned(), id: id.to_owned(), ..Default::default() };
    world.call_bytes("Operator.TransferLeadershipToPeer", &request.to_bytes())
}

#[test]
fn raft_names_its_members_and_nobody_else() {
    let mut world = with_stranger();
    change(&mut world, 2, |third| (third.voter, third.name) = (false, String::new()));
    let ask = GenericRequest::default().to_bytes();
    let reply: RaftConfigurationResponse = world.call_bytes("Operator.RaftGetConfiguration", &ask).body();
    let told: Vec<_> =
        reply.servers.iter().map(|s| (s.node.as_str(), s.leader, s.voter, s.raft_protocol.as_str())).collect();
    assert_eq!(
        told,
        [
            ("golden.global", true, true, "3"),
            ("second.global", false, true, "3"),
            ("(unknown)", false, false, "unknown")
        ]
    );
    let peers: Vec<String> = world.call("Status.Peers", &[]).body();
    assert_eq!(peers, ADDRESSES);
}

#[test]
fn members_are_all_who_are_known_and_how_they_are() {
    let mut world = with_stranger();
    change(&mut world, 1, |second| second.status = ServerStatus::Failed);
    change(&mut world, 2, |third| third.status = ServerStatus::Left);
    let reply: ServerMembersResponse = world.call("Status.Members", &[]).body();
    let told: Vec<_> = reply.members.iter().map(|m| (m.name.as_str(), m.status.as_str(), m.port)).collect();
    assert_eq!(
        told,
        [
            ("golden.global", "alive", 24647),
            ("second.global", "failed", 24647),
            ("third.global", "left", 24647),
            ("new.global", "alive", 0)
        ]
    );
    let third = &reply.members[2];
    // A name where others have an address: whoever reads it goes by the tags.
    assert!(third.addr.0.is_empty());
    for (tag, value) in
        [("rpc_addr", "c.example.com"), ("port", "24647"), ("holdfast", "0.1.0"), ("http_addr", "127.0.0.1:24646")]
    {
        assert_eq!(third.tags[tag], value);
    }
    let stranger = &reply.members[3].tags;
    assert!(stranger.contains_key("nonvoter") && !stranger.contains_key("holdfast"), "{stranger:?}");
}

#[test]
fn a_member_is_removed_while_enough_stay() {
    let gone = |id: &str| {
        let reply = Reply { result: ReplyResult::Body(EMPTY_BODY.into()), effects: Vec::new() };
        Came::Other(Outcome::Cluster {
            change: ClusterChange::RemovePeer { id: id.to_owned() },
            reply: Box::new(reply),
        })
    };
    // A dead one, a live one, the leader itself: two voters stay.
    let mut world = with_stranger();
    for id in IDS {
        assert_eq!(remove(&mut world, id), gone(id), "{id}");
    }
    for id in ["new", "zz", ""] {
        assert_eq!(remove(&mut world, id).error(), format!("id {id:?} was not found in the Raft configuration"));
    }
    change(&mut world, 2, |third| third.status = ServerStatus::Failed);
    assert_eq!(remove(&mut world, IDS[2]), gone(IDS[2]));
    let text = remove(&mut world, IDS[1]).error().to_owned();
    assert!(text.starts_with("RPC Error:: 400,server ") && text.contains("of the 2 voters"), "{text}");
    // One without a vote may go at any time.
    change(&mut world, 1, |second| second.voter = false);
    assert_eq!(remove(&mut world, IDS[1]), gone(IDS[1]));
    change(&mut world, 2, |third| third.is_member = false);
    assert!(remove(&mut world, IDS[0]).error().contains("it is the only one with a vote"));
}

#[test]
fn leadership_goes_to_a_voter_that_is_alive() {
    let mut world = with_stranger();
    for (address, id) in [("", IDS[1]), (ADDRESSES[1], "")] {
        let Came::Other(Outcome::Cluster { change, reply }) = transfer(&mut world, address, id) else { panic!("{id}") };
        assert_eq!(change, ClusterChange::TransferLeadership { to: Some(IDS[1].to_owned()) });
        let ReplyResult::Body(bytes) = reply.result else { panic!("{id}") };
        let reply = LeadershipTransferResponse::from_bytes(&bytes).unwrap();
        let told = (reply.from.id.as_str(), reply.to.id.as_str(), reply.to.address.as_str());
        assert_eq!(told, (IDS[0], IDS[1], ADDRESSES[1]));
        assert!(!reply.noop && reply.err.is_nil());
    }
    let already: LeadershipTransferResponse = transfer(&mut world, "", IDS[0]).body();
    assert!(already.noop);
    for (address, id, text) in [
        ("", "", "must provide peer id or address"),
        ("", "new", "id \"new\" was not found in the Raft configuration"),
        ("1.2.3.4:5", "", "address \"1.2.3.4:5\" was not found in the Raft configuration"),
    ] {
        assert_eq!(transfer(&mut world, address, id).error(), format!("RPC Error:: 400,{text}"));
    }
    for (how, why) in [
        ((true, ServerStatus::Failed), "it does not answer"),
        ((true, ServerStatus::Left), "it has left"),
        ((false, ServerStatus::Alive), "it has no vote"),
    ] {
        change(&mut world, 2, |third| (third.voter, third.status) = how);
        let text = format!("RPC Error:: 400,server {:?} cannot lead: {why}", IDS[2]);
        assert_eq!(transfer(&mut world, "", IDS[2]).error(), text);
    }
    world.ctx.leader_rpc_addr = "".into();
    assert_eq!(transfer(&mut world, "", IDS[1]).error(), "RPC Error:: 503,No cluster leader");
}

fn health(world: &mut World) -> OperatorHealthReply {
    world.call_bytes("Operator.ServerHealth", &GenericRequest::default().to_bytes()).body()
}

#[test]
fn health_is_judged_by_the_configuration() {
    let mut world = with_stranger();
    let reply = health(&mut world);
    assert_eq!((reply.healthy, reply.failure_tolerance, reply.leader.as_str()), (true, 1, IDS[0]));
    assert_eq!(reply.voters, IDS);
    let second = &reply.servers[1];
    assert_eq!((second.last_contact, second.last_term, second.last_index), (20_000_000, 2, 77));
    assert_eq!((second.serf_status, &second.stable_since), (1, &go_time(NOW)));
    assert_eq!(reply.servers.len(), 3, "only members count");

    type Harm = fn(&mut ServerEntry);
    let harms: [(&str, Harm, bool); 9] = [
        ("failed", |s| s.status = ServerStatus::Failed, false),
        ("left", |s| s.status = ServerStatus::Left, false),
        ("silent as long as allowed", |s| s.last_heard = Some(Duration::from_millis(200)), true),
        ("silent for longer", |s| s.last_heard = Some(Duration::from_millis(201)), false),
        ("never heard", |s| s.last_heard = None, false),
        ("of another term", |s| (s.last_term, s.matched) = (1, 0), false),
        ("of another term, before it acknowledged entries of this one", |s| s.last_term = 1, true),
        ("as far behind as allowed", |s| (s.last_index, s.matched) = (0, 750), true),
        ("farther behind", |s| (s.last_index, s.matched) = (749, 0), false),
    ];
    for (what, harm, is_healthy) in harms {
        let mut world = three();
        // The leader's log went on since then; what is known of the others is as of then.
        change(&mut world, 0, |leader| leader.matched = 1000);
        change(&mut world, 1, |second| (second.last_index, second.matched) = (1000, 1000));
        change(&mut world, 2, |third| (third.last_index, third.matched) = (1000, 1000));
        world.ctx.raft.last_index = 90_000;
        assert!(health(&mut world).healthy);
        change(&mut world, 2, harm);
        let reply = health(&mut world);
        let got = (reply.healthy, reply.servers[2].healthy, reply.failure_tolerance);
        assert_eq!(got, (is_healthy, is_healthy, i64::from(is_healthy)), "{what}");
        assert!(reply.servers[0].healthy && reply.servers[1].healthy, "{what}");
    }
}

#[test]
fn without_a_leader_nobody_is_well() {
    let mut world = three();
    world.ctx.leader_rpc_addr = "".into();
    (world.ctx.is_leader, world.ctx.known_leader, world.ctx.last_contact) = (false, false, Duration::MAX);
    let reply = health(&mut world);
    assert!(!reply.healthy && reply.leader.is_empty() && reply.servers.iter().all(|server| !server.healthy));
    // A server that belongs to no cluster yet knows of nobody.
    for nth in 0..3 {
        change(&mut world, nth, |server| (server.is_member, server.stable_since) = (false, None));
    }
    let reply = health(&mut world);
    assert!(!reply.healthy && reply.servers.is_empty() && reply.failure_tolerance == 0);
    change(&mut world, 1, |second| second.is_member = true);
    assert_eq!(health(&mut world).servers[0].stable_since, go_zero_time());
}

// R8.15
#[test]
fn the_audit_names_the_server() {
    let world = three();
    let of = |method: &str, body: &[u8]| audit::subject(method, body, &world.state, &world.ctx, &world.caller).objects;
    let request = RaftPeerByIdRequest { id: IDS[1].to_owned(), ..Default::default() };
    assert_eq!(of("Operator.RaftRemovePeerByID", &request.to_bytes()), [IDS[1]]);
    let request = RaftPeerRequest { address: ADDRESSES[1].to_owned(), ..Default::default() };
    assert_eq!(of("Operator.TransferLeadershipToPeer", &request.to_bytes()), [ADDRESSES[1]]);
}
