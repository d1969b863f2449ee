//! The command-line client: hands the command line over to [`holdfast::cli`].

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let exit = holdfast::cli::run(std::env::args_os(), &mut out, &mut io::stderr());
    ExitCode::from(exit.status())
}
