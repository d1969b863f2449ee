//! Running the body of a fuzz target for a while, with a bound on what it may allocate.

use std::time::{Duration, Instant};

use holdfast::base::rng::Rng;

use super::mutate::{mutate, noise};

/// How long each decoder is tried: `HOLDFAST_FUZZ_SECONDS`, or a second.
pub fn fuzz_time() -> Duration {
    Duration::from_secs(super::number_from_env("HOLDFAST_FUZZ_SECONDS", 1))
}

/// Feeds noise and mutated samples to `body` until the time is over. A panic of `body` prints the input.
pub fn fuzz(what: &str, samples: &[Vec<u8>], mut body: impl FnMut(&[u8])) {
    let mut rng = Rng::from_seed(super::seed(what));
    for sample in samples {
        guarded(what, sample, &mut body);
    }
    let end = Instant::now() + fuzz_time();
    let mut runs = 0u64;
    while Instant::now() < end {
        for _ in 0..64 {
            let mut input = match rng.below(8) {
                0 => noise(&mut rng, 300),
                _ if samples.is_empty() => noise(&mut rng, 2000),
                _ => samples[rng.below(samples.len() as u64) as usize].clone(),
            };
            if rng.chance(1, 6) && !samples.is_empty() {
                // Two that were never meant to follow each other.
                input.extend_from_slice(&samples[rng.below(samples.len() as u64) as usize]);
            }
            mutate(&mut rng, &mut input);
            guarded(what, &input, &mut body);
            runs += 1;
        }
    }
    eprintln!("{what}: {runs} inputs");
}

fn guarded(what: &str, input: &[u8], body: &mut impl FnMut(&[u8])) {
    let begin = Instant::now();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(input)));
    if let Err(panic) = ran {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{what}: this input did it: {hex}");
        std::panic::resume_unwind(panic);
    }
    // Reliability goal 13: no hang over 1 s; a debug build on a busy machine gets ten.
    assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {:?} for {} bytes", begin.elapsed(), input.len());
}
