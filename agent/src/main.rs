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
    // With a host that is no machine's: the socket that it was started with.
    let on_socket = std::env::args_os().nth(1).is_some_and(|argument| argument == "--socket");
    let served = match on_socket {
        true => port::socket().and_then(|port| server::serve(port, server::Silence::Ends)),
        false => port::open().and_then(|port| server::serve(port, server::Silence::Lasts)),
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
