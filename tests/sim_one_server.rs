//! One server in a seeded world: hundreds of seeds, each with its own faults (reliability notes, goals 1 to 4).
//!
//! `HOLDFAST_SIM_SEEDS=N` tries the first N seeds, `HOLDFAST_SIM_SEED=N` that one alone with its log.
#![allow(clippy::unwrap_used)]

use holdfast::sim::{self, Options, World};

#[test]
fn one() {
    let seed: u64 = std::env::var("HOLDFAST_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let report = World::new(Options { keep_log: true, ..Options::from_seed(seed) }).run();
    for line in &report.log {
        println!("{line}");
    }
    println!("{:#?}", sim::Report { log: vec![], ..report });
}

#[test]
fn many() {
    let seeds: u64 = std::env::var("HOLDFAST_SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        let report = sim::run(seed);
        if !report.wrongs.is_empty() {
            println!("seed {seed}: {} wrongs; first: {}", report.wrongs.len(), report.wrongs[0]);
        }
    }
}
