//! Telling others: `--events`.

use std::sync::Arc;

use clap::Args;

use super::Context;
use crate::factory::{Event, Factory};
use crate::notify::{Complaints, Notice, Notifier, Target};

/// Who is told what becomes of images
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Events")]
pub(super) struct EventArguments {
    /// Tell of each change of an image's state: a file of JSON lines, https://…, cmd:COMMAND or an SNS topic's ARN; may be
    /// given several times. Webhooks are signed with $GOLDSMITH_WEBHOOK_SECRET
    #[arg(long, value_name = "TARGET", value_parser = str::parse::<Target>)]
    events: Vec<Target>,
}

/// Notices under way.
pub(super) struct Telling {
    notifier: Notifier,
}

impl EventArguments {
    /// Has a factory's changes of state told. What can't be delivered is a warning, also in the image's log.
    pub(super) fn tell_of(self, factory: &mut Factory, context: &Context) -> Telling {
        tell(self.events, factory, context)
    }
}

/// The same, of targets that something else names.
pub(super) fn tell(targets: Vec<Target>, factory: &mut Factory, context: &Context) -> Telling {
    let (output, store) = (context.output.clone(), factory.store.clone());
    let complaints: Complaints = Arc::new(move |notice: &Notice, why: String| {
        output.warning(&why);
        if let Some(image) = notice.image() {
            crate::factory::note_in_log(&store, image, &why);
        }
    });
    let notifier = Notifier::start(targets, &factory.endpoints, &complaints);
    let (mouth, listener) = (notifier.mouth(), factory.listener.clone());
    factory.listener = Arc::new(move |event| {
        if let Event::State(change) = &event {
            mouth.tell(Notice::of_state((**change).clone()));
        }
        listener(event);
    });
    Telling { notifier }
}

impl Telling {
    /// Waits until all is told or given up, which changes nothing else.
    pub(super) async fn finish(self, context: &Context) {
        for target in self.notifier.finish().await {
            context.output.warning(&format!("{target} has not taken all that it was to be told"));
        }
    }
}
