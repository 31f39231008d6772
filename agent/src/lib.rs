//! The wire between goldsmith on the host and its agent in a guest.
//!
//! Both ends speak [`frame`]s over one virtio-serial port named [`PORT_NAME`]; a frame holds one [`message`].
//!
//! ```text
//!   guest: agent                                   host: goldsmith
//!   opens the port ──── Hello (no session) ──────►  (each half second until somebody answers)
//!                  ◄─── Attach { session } ───────
//!                  ──── Hello { session } ───────►  what came before this frame is not for this session
//!                  ◄─── Request { id, op } ───────
//!                  ──── Output { id, .. }* ──────►
//!                  ──── Reply { id, result } ────►
//! ```
//!
//! A guest that reboots takes its agent along: the next one begins again with `Hello` without a session, and the host
//! attaches anew. The library has no operating-system calls, so that the host links nothing of the guest's.

pub mod frame;
pub mod message;

/// Version of frames and messages. A host and an agent that differ in it do not talk to each other.
pub const PROTOCOL_VERSION: u16 = 3;

/// Name of the virtio-serial port, as the guest sees it in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "org.goldsmith.agent.0";

/// Largest run of file or output bytes in one message. Well below [`frame::MAX_PAYLOAD`], so that paths and names fit
/// beside it.
pub const MAX_CHUNK: usize = 64 * 1024;
