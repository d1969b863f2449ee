//! Signals: TERM and INT stop, HUP reloads, USR1 dumps the metrics, PIPE does nothing.
//!
//! They are caught from the first instruction of the program and wait as bytes in socket pairs until the loop reads
//! them, so that a reload signal during the start neither kills nor gets lost (requirement R8.8). PIPE is ignored by
//! the runtime of the language before `main`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

/// Signals that came since they were asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caught {
    /// TERM and INT.
    pub stop: usize,
    /// HUP.
    pub reload: bool,
    /// USR1.
    pub dump_metrics: bool,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    stop: UnixStream,
    reload: UnixStream,
    dump_metrics: UnixStream,
    /// A TERM or INT waits unread: another one ends the process at once, whatever the loop is doing.
    stop_waits: Arc<AtomicBool>,
}

impl Signals {
    /// Catches them from now on. Once in a process.
    ///
    /// # Errors
    /// When the system has no descriptors for them.
    pub fn catch() -> io::Result<Signals> {
        let stop_waits = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order counts: the first signal must not meet its own flag.
            flag::register_conditional_shutdown(signal, 0, Arc::clone(&stop_waits))?;
            flag::register(signal, Arc::clone(&stop_waits))?;
        }
        Ok(Signals {
            stop: pipe(&[SIGTERM, SIGINT])?,
            reload: pipe(&[SIGHUP])?,
            dump_metrics: pipe(&[SIGUSR1])?,
            stop_waits,
        })
    }

    /// Has the poll report them under one token.
    ///
    /// # Errors
    /// Whatever the poll says.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        for pipe in [&mut self.stop, &mut self.reload, &mut self.dump_metrics] {
            registry.register(pipe, token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// What came since the last call.
    pub fn take(&mut self) -> Caught {
        // Lowered before the bytes are read: a signal between the two is read here too.
        self.stop_waits.store(false, Ordering::SeqCst);
        Caught {
            stop: count(&mut self.stop),
            reload: count(&mut self.reload) > 0,
            dump_metrics: count(&mut self.dump_metrics) > 0,
        }
    }
}

/// A socket that gets a byte with each of the signals.
fn pipe(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = StdUnixStream::pair()?;
    for signal in signals {
        low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    reader.set_nonblocking(true)?;
    Ok(UnixStream::from_std(reader))
}

/// How many bytes wait. Read to the end, as edge-triggered events demand.
fn count(pipe: &mut UnixStream) -> usize {
    let mut total = 0;
    let mut bytes = [0; 64];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return total,
        }
    }
}
