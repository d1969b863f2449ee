//! Other regions and their servers: what the configuration names, and what other servers tell (R1.64).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::rng::Rng;

/// Regions that are learned from others.
const MAX_REGIONS: usize = 256;
/// Servers of a region that are learned from others.
const MAX_SERVERS: usize = 32;
/// Bytes of a region's name, and of an address.
const MAX_NAME: usize = 128;

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    own: String,
    configured: BTreeMap<String, Vec<Arc<str>>>,
    learned: BTreeMap<String, Vec<Arc<str>>>,
}

impl Regions {
    /// What the configuration names.
    pub fn new(own: &str, configured: &[(String, Vec<String>)]) -> Regions {
        let shared = |addresses: &Vec<String>| addresses.iter().map(|address| Arc::from(address.as_str())).collect();
        let configured = configured.iter().filter(|(name, _)| name != own);
        Regions {
            own: own.to_owned(),
            configured: configured.map(|(name, addresses)| (name.clone(), shared(addresses))).collect(),
            learned: BTreeMap::new(),
        }
    }

    /// Takes what another server knows; true when there is a region more than before.
    pub fn learn(&mut self, told: &[(String, Vec<String>)]) -> bool {
        let before = self.names().len();
        for (name, addresses) in told {
            let fits = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
            if *name == self.own || !fits(name) || addresses.is_empty() {
                continue;
            }
            if !self.learned.contains_key(name) && self.learned.len() >= MAX_REGIONS {
                continue;
            }
            let known = self.learned.entry(name.clone()).or_default();
            for address in addresses.iter().filter(|address| fits(address)) {
                if !known.iter().any(|held| **held == **address) {
                    // What was told last is the likeliest to be there.
                    known.insert(0, Arc::from(address.as_str()));
                    known.truncate(MAX_SERVERS);
                }
            }
        }
        self.names().len() != before
    }

    /// A region's servers as they are now, from one of them: who is not named any more is forgotten, but for those that
    /// the configuration names.
    pub fn replace(&mut self, name: &str, addresses: Vec<String>) {
        if self.servers(name).is_empty() || addresses.is_empty() {
            return;
        }
        self.learned.remove(name);
        self.learn(&[(name.to_owned(), addresses)]);
    }

    /// All regions, this one included, sorted.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> =
            self.configured.keys().chain(self.learned.keys()).chain(std::iter::once(&self.own)).collect();
        names.into_iter().cloned().collect()
    }

    /// Whether a server of that region is known.
    pub fn knows(&self, region: &str) -> bool {
        self.configured.contains_key(region) || self.learned.contains_key(region)
    }

    /// Its servers, each once.
    pub fn servers(&self, region: &str) -> Vec<Arc<str>> {
        let mut servers: Vec<Arc<str>> = Vec::new();
        for address in [&self.configured, &self.learned].into_iter().filter_map(|table| table.get(region)).flatten() {
            if !servers.contains(address) {
                servers.push(Arc::clone(address));
            }
        }
        servers
    }

    /// Its servers in an order drawn anew: the order in which they are tried.
    pub fn drawn(&self, region: &str, rng: &mut Rng) -> Vec<Arc<str>> {
        let mut servers = self.servers(region);
        for at in (1..servers.len()).rev() {
            servers.swap(at, rng.below(at as u64 + 1) as usize);
        }
        servers
    }

    /// The region of an address; `None` when no other region has it.
    pub fn region_of(&self, address: &str) -> Option<&str> {
        let tables = [&self.configured, &self.learned];
        let mut rows = tables.into_iter().flatten();
        rows.find(|(_, held)| held.iter().any(|one| **one == *address)).map(|(name, _)| name.as_str())
    }

    /// All other regions with their servers, for telling others.
    pub fn table(&self) -> Vec<(String, Vec<String>)> {
        let others = self.names().into_iter().filter(|name| *name != self.own);
        others
            .map(|name| {
                let servers = self.servers(&name).iter().map(ToString::to_string).collect();
                (name, servers)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        rows.iter().map(|(name, list)| (name.to_string(), texts(list))).collect()
    }

    #[test]
    fn what_is_configured_and_what_is_told_are_one_table() {
        // R1.64
        let mut regions = Regions::new("global", &rows(&[("west", &["w1:1"]), ("global", &["g:1"])]));
        assert_eq!(regions.names(), ["global", "west"]);
        assert!(regions.learn(&rows(&[("east", &["e1:1"]), ("west", &["w2:1", "w1:1"]), ("global", &["x:1"])])));
        assert!(!regions.learn(&rows(&[("east", &["e1:1"]), ("", &["e:1"]), ("north", &[])])));
        assert_eq!(regions.names(), ["east", "global", "west"]);
        assert_eq!(regions.servers("west").iter().map(|a| &**a).collect::<Vec<_>>(), ["w1:1", "w2:1"]);
        assert!(regions.servers("global").is_empty() && !regions.knows("global"));
        assert_eq!(regions.region_of("w2:1"), Some("west"));
        assert_eq!(regions.region_of("x:1"), None);
        assert_eq!(regions.table().len(), 2);
    }

    #[test]
    fn servers_that_are_gone_are_forgotten_but_those_configured_stay() {
        let mut regions = Regions::new("global", &rows(&[("west", &["w1:1"])]));
        regions.learn(&rows(&[("west", &["w2:1"])]));
        regions.replace("west", vec!["w3:1".to_owned()]);
        assert_eq!(regions.servers("west").iter().map(|a| &**a).collect::<Vec<_>>(), ["w1:1", "w3:1"]);
        regions.replace("nowhere", vec!["n:1".to_owned()]);
        assert!(!regions.knows("nowhere"));
    }

    #[test]
    fn what_others_tell_is_bounded() {
        let mut regions = Regions::new("global", &[]);
        for at in 0..1000 {
            regions.learn(&rows(&[("west", &[&format!("w{at}:1")]), (&format!("r{at}"), &["a:1"])]));
        }
        assert_eq!(regions.servers("west").len(), MAX_SERVERS);
        assert_eq!(regions.names().len(), MAX_REGIONS + 1);
    }

    #[test]
    fn every_server_of_a_region_is_drawn_first_at_some_time() {
        // R1.64: 300 calls reach all its servers.
        let regions = Regions::new("global", &rows(&[("west", &["w1:1", "w2:1", "w3:1"])]));
        let mut rng = Rng::from_seed(7);
        let firsts: BTreeSet<Arc<str>> = (0..300).filter_map(|_| regions.drawn("west", &mut rng).pop()).collect();
        assert_eq!(firsts.len(), 3);
    }
}
