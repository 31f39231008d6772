//! Disks at rest: laying one out without root, loop devices or mounts, and what `qemu-img` does with finished ones.
//!
//! Only QEMU writes a disk that a virtual machine uses; this module writes new disks front to back and reads finished
//! ones.

pub mod export;
pub mod ext4;
pub mod fat;
pub mod grub;
pub mod partition;
pub mod probe;
pub mod qcow2;
pub mod qemu_img;
pub mod sealed;
pub mod search;
mod slice;
pub mod table;

pub use slice::Slice;

/// One KiB, MiB and GiB in bytes.
pub const KIB: u64 = 1 << 10;
/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB in bytes.
pub const GIB: u64 = 1 << 30;
