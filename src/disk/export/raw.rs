//! Bytes as the guest sees them.

use super::Error;
use super::layout::Layout;
use super::piece::Pieces;
use super::sink::{Sink, span};

/// Writes a disk.
pub(super) fn write(layout: &Layout, pieces: Pieces, to: &mut dyn Sink) -> Result<(), Error> {
    span(&mut pieces.peekable(), 0, layout.size(), to)
}
