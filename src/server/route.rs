//! Where a request is served: one pure function (Nomad's `forward`, requirements R1.63 to R1.73).

use crate::api::Access;
use crate::wire::body::query::RouteFields;

/// What is known of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderView {
    /// Whether this server leads.
    pub is_self: bool,
    /// Whether it has applied an entry of its own term, so that its reads are consistent.
    pub ready: bool,
}

/// Where a request is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By this server, now.
    Here,
    /// By nobody yet: wait for a leader, and then look again.
    Hold,
    /// By nobody: the text of the error.
    Refuse(&'static str),
    /// By nobody, since no server of that region is known: `No path to region`, and a line in the log.
    NoPathToRegion,
}

/// Decides for a request whose routing fields are known.
pub fn route(access: Access, fields: &RouteFields, own_region: &str, leader: LeaderView) -> Decision {
    if access == Access::Local {
        return Decision::Here;
    }
    if fields.region.is_empty() && access != Access::LocalRegion {
        return Decision::Refuse("missing region for target RPC");
    }
    if !fields.region.is_empty() && fields.region != own_region {
        return Decision::NoPathToRegion;
    }
    let any_server = match access {
        Access::AnyServer => true,
        Access::Read | Access::LocalRegion => fields.allow_stale,
        Access::Write | Access::Local => false,
    };
    if any_server || (leader.is_self && leader.ready) { Decision::Here } else { Decision::Hold }
}

/// The error once the hold is used up (R1.72).
pub fn after_hold(leader: LeaderView) -> &'static str {
    if leader.is_self { "Not ready to serve consistent reads" } else { "No cluster leader" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: LeaderView = LeaderView { is_self: false, ready: false };
    const UNREADY: LeaderView = LeaderView { is_self: true, ready: false };
    const READY: LeaderView = LeaderView { is_self: true, ready: true };

    fn fields(region: &str, allow_stale: bool) -> RouteFields {
        RouteFields { region: region.to_owned(), allow_stale, ..RouteFields::default() }
    }

    #[test]
    fn requests_go_where_the_peers_send_them() {
        // R1.63, R1.64, R1.65, R1.66
        use Access::*;
        for (access, region, stale, leader, expected) in [
            (Local, "", false, NOBODY, Decision::Here),
            (Read, "", false, READY, Decision::Refuse("missing region for target RPC")),
            (Write, "", false, READY, Decision::Refuse("missing region for target RPC")),
            (AnyServer, "", true, READY, Decision::Refuse("missing region for target RPC")),
            (LocalRegion, "", false, READY, Decision::Here),
            (LocalRegion, "", false, NOBODY, Decision::Hold),
            (LocalRegion, "", true, NOBODY, Decision::Here),
            (Read, "mars", true, READY, Decision::NoPathToRegion),
            (Write, "mars", false, NOBODY, Decision::NoPathToRegion),
            (Read, "global", true, NOBODY, Decision::Here),
            (Read, "global", false, NOBODY, Decision::Hold),
            (Read, "global", false, UNREADY, Decision::Hold),
            (Read, "global", false, READY, Decision::Here),
            (Write, "global", true, NOBODY, Decision::Hold),
            (Write, "global", false, READY, Decision::Here),
            (AnyServer, "global", false, NOBODY, Decision::Here),
        ] {
            let got = route(access, &fields(region, stale), "global", leader);
            assert_eq!(got, expected, "{access:?} {region:?} stale={stale} {leader:?}");
        }
    }

    #[test]
    fn the_error_after_the_hold_tells_the_two_cases_apart() {
        // R1.72
        assert_eq!(after_hold(NOBODY), "No cluster leader");
        assert_eq!(after_hold(UNREADY), "Not ready to serve consistent reads");
    }
}
