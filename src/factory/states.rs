//! States of images: who is told that one has changed, and what an image may be used for.

use super::{Error, Event, Factory};
use crate::host::one_line;
use crate::notify::{ComponentFailure, FailureContext, StateChange};
use crate::store::Image;
use crate::store::manifest::State;

impl Factory {
    /// Tells that an image's state is another one than it was.
    pub(super) fn tell_state(&self, image: &Image, from: State, failure: Option<FailureContext>) {
        let (to, reason) = (image.manifest.state, image.manifest.reason.clone());
        self.tell_change(image, from, to, reason, failure);
    }

    /// The same of a state that is not noted in the manifest.
    pub(super) fn tell_change(
        &self,
        image: &Image,
        from: State,
        to: State,
        reason: Option<String>,
        failure: Option<FailureContext>,
    ) {
        if from != to {
            let change = StateChange { image: image.id.clone(), from, to, reason, failure };
            self.tell(Event::State(Box::new(change)));
        }
    }

    /// That an image is not one that nobody may use any more; what should not be used is warned of.
    pub(super) fn may_be_used(&self, image: &Image, wanted: &'static str) -> Result<(), Error> {
        match image.manifest.state {
            state @ (State::Disabled | State::Deleted) => Err(Error::State { image: image.id.clone(), state, wanted }),
            State::Deprecated => {
                let why = image.manifest.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                let warning = format!("{} is DEPRECATED{why}: it can be used, and should not be", image.id);
                self.tell(Event::Warning(warning));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Says that an image is being deleted: nobody can use it any more, and what was made of it can go.
    pub(super) fn begin_deletion(&self, image: Image, reason: String) -> Result<Image, Error> {
        let (image, from) = self.store.begin_deletion(image, reason)?;
        self.tell_state(&image, from, None);
        Ok(image)
    }

    /// Deprecates, disables or enables an image; its AMIs stay as they are. One that a channel names can't be disabled.
    pub fn set_state(&self, image: Image, to: State, reason: Option<String>) -> Result<Image, Error> {
        let (image, from) = self.store.set_usability(image, to, reason)?;
        self.tell_state(&image, from, None);
        Ok(image)
    }
}

/// What of a build has failed, for others.
pub(super) fn failure(error: &Error, at: State) -> FailureContext {
    let component_failure = match error {
        Error::Step { component, step, failure, .. } => Some(ComponentFailure {
            component_arn: component.clone(),
            phase_name: step.phase.clone(),
            step_name: step.step.clone(),
            action: step.action.to_owned(),
            error_message: failure.message.clone(),
        }),
        _ => None,
    };
    let failed_step = match (&component_failure, at) {
        (Some(_), _) => "build".to_owned(),
        (None, State::Testing) => format!("test: {}", one_line(error)),
        (None, _) => one_line(error),
    };
    let (image_status, failed_step) = (at.to_string(), Some(failed_step));
    FailureContext { image_status, failed_step, component_failure, distribution_failure: None }
}
