//! The goldsmith command.

use std::process::ExitCode;

use goldsmith::cli;
use goldsmith::machine::accelerator;

fn main() -> ExitCode {
    // The process that tries KVM out does nothing else: it may have to be killed.
    if std::env::args().nth(1).as_deref() == Some(accelerator::PROBE_ARGUMENT) {
        return cli::run_probe_guest();
    }
    cli::main()
}
