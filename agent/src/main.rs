//! The guest agent: opens its virtio-serial port, does what the host asks, leaves nothing behind.
//!
//! It is started from a tmpfs by cloud-init's `bootcmd` at every boot, as root, and links everything statically, so it
//! runs in any Linux guest of its architecture.

// Every error passes `op::failed`, which names the file; the guest links no more than it must.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod op;
mod port;
mod server;

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // With a host that is no machine's, it talks over the socket that is its standard input, and may be told of a folder
    // in memory where nothing may stay: `--socket [FOLDER]`.
    let served = if arguments.next().is_some_and(|argument| argument == "--socket") {
        let served = port::socket().and_then(|port| server::serve(port, server::Silence::Ends));
        // The host removes it as well, unless it was killed.
        drop(arguments.next().map(std::fs::remove_dir_all));
        served
    } else {
        port::open().and_then(|port| server::serve(port, server::Silence::Lasts))
    };
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // The journal and the serial console are all that an agent without a port can reach.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("goldsmith-agent: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}
