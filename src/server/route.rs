//! Where a request is served: one pure function (Nomad's `forward`, requirements R1.63 to R1.73).

use crate::api::Access;
use crate::wire::body::query::RouteFields;
use crate::wire::class::{NO_LEADER, NOT_READY};

/// What is known of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    /// Whether this server leads.
    pub is_self: bool,
    /// Whether it has applied an entry of its own term, so that its reads are consistent.
    pub ready: bool,
}

/// What is known of who leads, at the moment of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// This server leads, is ready, and nobody else can lead before its lease is over.
    pub here: bool,
    /// Another server leads, and its address is known (R1.68).
    pub elsewhere: bool,
    /// The last index that this server holds.
    pub applied: u64,
}

/// Where a request is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By this server, now.
    Here,
    /// By this server, once it holds all that is true now.
    HereOnceCaughtUp,
    /// By the leader: passed on.
    Leader,
    /// By some server of the region that it names: passed on.
    Region,
    /// By nobody yet: wait for a leader, and then look again.
    Hold,
    /// By nobody: the text of the error.
    Refuse(&'static str),
    /// By nobody, since no server of that region is known: `No path to region`, and a line in the log.
    NoPathToRegion,
}

/// Decides for a request whose routing fields are known.
pub fn route(access: Access, fields: &RouteFields, own_region: &str, known: Known) -> Decision {
    if access == Access::Local {
        return Decision::Here;
    }
    if fields.region.is_empty() && access != Access::LocalRegion {
        return Decision::Refuse("missing region for target RPC");
    }
    if !fields.region.is_empty() && fields.region != own_region {
        // Who passes on what was passed on has another table of regions than we have: that goes round and round.
        return if fields.forwarded || fields.hop { Decision::NoPathToRegion } else { Decision::Region };
    }
    let reads = matches!(access, Access::Read | Access::LocalRegion);
    // R2.30: who has seen more than this server holds is not shown less.
    let is_behind = fields.allow_stale && fields.seen > known.applied;
    if reads && (fields.consistent || is_behind) {
        return Decision::HereOnceCaughtUp;
    }
    if access == Access::AnyServer || (reads && fields.allow_stale) || known.here {
        return Decision::Here;
    }
    match (known.elsewhere, fields.hop) {
        (true, false) => Decision::Leader,
        // R1.73: whoever passed it on looks again, and may know more by then.
        (true, true) => Decision::Refuse(NO_LEADER),
        (false, _) => Decision::Hold,
    }
}

/// The error once the hold is used up (R1.72).
pub fn after_hold(leader: LeaderView) -> &'static str {
    if leader.is_self { NOT_READY } else { NO_LEADER }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: LeaderView = LeaderView { is_self: false, ready: false };
    const UNREADY: LeaderView = LeaderView { is_self: true, ready: false };

    fn fields(region: &str, allow_stale: bool) -> RouteFields {
        RouteFields { region: region.to_owned(), allow_stale, ..RouteFields::default() }
    }

    #[test]
    fn requests_go_where_the_peers_send_them() {
        // R1.63, R1.64, R1.65, R1.66, R1.67, R1.68, R1.99
        use Access::*;
        const NOBODY: Known = Known { here: false, elsewhere: false, applied: 0 };
        const HERE: Known = Known { here: true, elsewhere: false, applied: 0 };
        const THERE: Known = Known { here: false, elsewhere: true, applied: 0 };
        for (access, region, stale, known, expected) in [
            (Local, "", false, NOBODY, Decision::Here),
            (Local, "mars", false, THERE, Decision::Here),
            (Read, "", false, HERE, Decision::Refuse("missing region for target RPC")),
            (Write, "", false, HERE, Decision::Refuse("missing region for target RPC")),
            (AnyServer, "", true, HERE, Decision::Refuse("missing region for target RPC")),
            (LocalRegion, "", false, HERE, Decision::Here),
            (LocalRegion, "", false, NOBODY, Decision::Hold),
            (LocalRegion, "", false, THERE, Decision::Leader),
            (LocalRegion, "", true, NOBODY, Decision::Here),
            (Read, "mars", true, HERE, Decision::Region),
            (Write, "mars", false, NOBODY, Decision::Region),
            (AnyServer, "mars", false, THERE, Decision::Region),
            (Read, "global", true, NOBODY, Decision::Here),
            (Read, "global", true, THERE, Decision::Here),
            (Read, "global", false, NOBODY, Decision::Hold),
            (Read, "global", false, HERE, Decision::Here),
            (Read, "global", false, THERE, Decision::Leader),
            (Write, "global", true, NOBODY, Decision::Hold),
            (Write, "global", true, THERE, Decision::Leader),
            (Write, "global", false, HERE, Decision::Here),
            (AnyServer, "global", false, NOBODY, Decision::Here),
            (AnyServer, "global", false, THERE, Decision::Here),
        ] {
            let got = route(access, &fields(region, stale), "global", known);
            assert_eq!(got, expected, "{access:?} {region:?} stale={stale} {known:?}");
        }
    }

    #[test]
    fn what_was_passed_on_is_not_passed_on_again() {
        // R1.73
        let there = Known { here: false, elsewhere: true, applied: 0 };
        let hop = RouteFields { forwarded: true, hop: true, ..fields("global", false) };
        assert_eq!(route(Access::Write, &hop, "global", there), Decision::Refuse(NO_LEADER));
        assert_eq!(route(Access::Write, &hop, "global", Known::default()), Decision::Hold);
        // From another region: its leader is here, but need not be this server.
        let from_afar = RouteFields { forwarded: true, ..fields("global", false) };
        assert_eq!(route(Access::Write, &from_afar, "global", there), Decision::Leader);
        let lost = RouteFields { forwarded: true, ..fields("mars", false) };
        assert_eq!(route(Access::Read, &lost, "global", there), Decision::NoPathToRegion);
    }

    #[test]
    fn a_consistent_read_is_served_by_whoever_was_asked() {
        for known in [
            Known::default(),
            Known { here: true, elsewhere: false, applied: 0 },
            Known { here: false, elsewhere: true, applied: 0 },
        ] {
            let asked = RouteFields { consistent: true, ..fields("global", true) };
            assert_eq!(route(Access::Read, &asked, "global", known), Decision::HereOnceCaughtUp);
            let write = RouteFields { consistent: true, ..fields("global", true) };
            assert_ne!(route(Access::Write, &write, "global", known), Decision::HereOnceCaughtUp);
        }
    }

    #[test]
    fn the_error_after_the_hold_tells_the_two_cases_apart() {
        // R1.72
        assert_eq!(after_hold(NOBODY), "No cluster leader");
        assert_eq!(after_hold(UNREADY), "Not ready to serve consistent reads");
    }
}
