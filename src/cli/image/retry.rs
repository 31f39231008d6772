//! `goldsmith image retry`.

use clap::Args;

use super::super::build::{self, SiteArguments};
use super::super::events::EventArguments;
use super::super::publish::{self, ServiceArguments};
use super::super::report::CliError;
use super::super::{Accelerator, Context, values};
use crate::document::secret::SecretSource;
use crate::factory::{CheckOptions, Factory, Given, PublishOptions, Retried};
use crate::store::version::Pattern;

/// What is gone on with
#[derive(Debug, Args)]
pub(in super::super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Give a reference a value that only AWS knows, as for `build`
    #[arg(long = "reference", value_name = "NAME=VALUE", value_parser = values::reference)]
    references: Vec<(String, String)>,
    /// Give a secret, as for `build`; it is also looked for on the whole disk
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = values::secret)]
    secrets: Vec<(String, SecretSource)>,
    /// Ask AWS's Parameter Store for values that nobody has given, as for `build`
    #[arg(long)]
    aws_parameters: bool,
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
    let given = Given {
        references: arguments.references,
        secrets: arguments.secrets.clone(),
        asks_aws: arguments.aws_parameters,
        ..Given::default()
    };
    let check = CheckOptions { no_boot: false, secrets: arguments.secrets, site: arguments.site.wishes() };
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
