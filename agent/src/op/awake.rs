//! After memory was restored: the clock stands still since, and every guest restored from it would draw the same numbers.

use std::fs::File;
use std::io;

use goldsmith_agent::message::OpError;
use rustix::time::{ClockId, Timespec};

use super::failed;

const RANDOM: &str = "/dev/random";

/// Sets the clock and feeds the kernel's random generator.
pub(crate) fn awake(unix_nanos: u64, entropy: &[u8; 32]) -> Result<(), OpError> {
    const NANOS: u64 = 1_000_000_000;
    let seconds = i64::try_from(unix_nanos / NANOS).unwrap_or(i64::MAX);
    let nanos = i64::try_from(unix_nanos % NANOS).unwrap_or(0);
    rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanos })
        .map_err(|error| failed("the clock", &error.into()))?;
    let random = File::options().write(true).open(RANDOM).map_err(|error| failed(RANDOM, &error))?;
    add_entropy(&random, entropy).map_err(|error| failed(RANDOM, &error))
}

/// The argument of `RNDADDENTROPY`: `struct rand_pool_info` of random(4), with room for what we add.
#[repr(C)]
struct RandPoolInfo {
    /// In bits.
    entropy_count: i32,
    /// In bytes.
    buf_size: i32,
    buf: [u8; 32],
}

/// `_IOW('R', 0x03, int[2])`, random(4).
const RNDADDENTROPY: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);
/// `_IO('R', 0x07)`, random(4): what was added counts from now on and not from the next reseeding.
const RNDRESEEDCRNG: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b'R', 0x07);

#[allow(unsafe_code)]
fn add_entropy(random: &File, entropy: &[u8; 32]) -> io::Result<()> {
    let info = RandPoolInfo { entropy_count: 256, buf_size: 32, buf: *entropy };
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info` whose buffer has `buf_size` bytes, which is what `info` is, and
    // RNDRESEEDCRNG takes no argument.
    unsafe {
        rustix::ioctl::ioctl(random, rustix::ioctl::Setter::<RNDADDENTROPY, RandPoolInfo>::new(info))?;
        rustix::ioctl::ioctl(random, rustix::ioctl::NoArg::<RNDRESEEDCRNG>::new())?;
    }
    Ok(())
}
