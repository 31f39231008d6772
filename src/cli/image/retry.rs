//! `goldsmith image retry`.

use clap::Args;

use super::super::build::{self, SiteArguments};
use super::super::events::EventArguments;
use super::super::publish::{self, ServiceArguments};
use super::super::report::CliError;
use super::super::values::KeptValueArguments;
use super::super::{Accelerator, Context};
use crate::factory::{CheckOptions, Factory, PublishOptions, Retried};
use crate::store::version::Pattern;

/// What is gone on with
#[derive(Debug, Args)]
pub(in super::super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    #[command(flatten)]
    values: KeptValueArguments,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    events: EventArguments,
    #[command(flatten)]
    site: SiteArguments,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let mut factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    let image = factory.store.find(&arguments.image, |_| true)?;
    let given = arguments.values.given();
    // Those that its test takes must not be on what is published.
    let check = CheckOptions { no_boot: false, secrets: arguments.values.secrets, site: arguments.site.wishes() };
    let options = PublishOptions { resume: false, check };
    let telling = arguments.events.tell_of(&mut factory, context);
    let retried = factory.retry(image, &given, &options).await;
    drop(factory);
    telling.finish(context).await;
    show(&retried?, context)
}

fn show(retried: &Retried, context: &Context) -> Result<(), CliError> {
    let image = &retried.image;
    if context.output.json {
        let publications = retried.publications.iter();
        let publications: Vec<_> =
            publications.map(|(document, outcomes)| publish::summary(&image.id, document, outcomes)).collect();
        context.output.json(&serde_json::json!({
            "image": image.id,
            "state": image.manifest.state,
            "tested": retried.tested,
            "publications": publications,
        }))?;
    } else {
        build::show(image, &[], context)?;
        retried.publications.iter().for_each(|(_, outcomes)| publish::show(outcomes, context));
    }
    for (_, outcomes) in &retried.publications {
        publish::failure(&image.id, outcomes)?;
    }
    Ok(())
}
