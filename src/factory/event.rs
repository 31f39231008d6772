//! What the stages tell.

use crate::notify::StateChange;
use crate::store::version::ImageId;
use crate::{component, parent, publish};

/// Something that happens on the way to an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stage begins.
    StageBegins {
        /// Its name.
        name: &'static str,
    },
    /// A stage ended well.
    StageEnds {
        /// Its name.
        name: &'static str,
        /// How long it took.
        seconds: f64,
    },
    /// Something of the parent's.
    Parent(parent::Event),
    /// An image has its number.
    Reserved(ImageId),
    /// A component begins.
    Component {
        /// Its place in the recipe, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: String,
    },
    /// A component need not run: a layer has it already.
    Cached {
        /// Its place in the recipe, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: String,
        /// When it ran.
        ran: jiff::Timestamp,
    },
    /// Something of a component's.
    Step(component::Event),
    /// Part of a copy is done, from 0 to 1.
    Copied {
        /// The stage that makes it, which may run beside another one.
        stage: &'static str,
        /// What is being made.
        what: String,
        /// How much of it.
        part: f64,
    },
    /// Part of a disk was read for its exports, which may be beside another stage.
    Exported {
        /// Bytes that were read.
        done: u64,
        /// Bytes that there are to read; what was never written does not count.
        total: u64,
    },
    /// Something of a publication's.
    Publish(publish::Event),
    /// An image's state has changed.
    State(Box<StateChange>),
    /// Something worth knowing.
    Note(String),
    /// Something that is not as it should be, and does not stop anything.
    Warning(String),
}

impl Event {
    /// The event as a line of a log, unless it is only progress.
    pub fn line(&self) -> Option<String> {
        super::log::describe(self)
    }
}
