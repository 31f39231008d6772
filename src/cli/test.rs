//! `goldsmith test`.

use std::path::PathBuf;

use clap::Args;

use super::events::EventArguments;
use super::publish::ServiceArguments;
use super::report::CliError;
use super::{Accelerator, Context, build, junit, values};
use crate::document::secret::SecretSource;
use crate::factory::{self, Factory, Given};
use crate::store::version::Pattern;

/// Boot an image's sealed disk cold and run its tests
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Run the test phases of these components instead of the image's own
    #[arg(long = "component", value_name = "DOC")]
    components: Vec<PathBuf>,
    /// Give a reference a value that only AWS knows, as for `build`
    #[arg(long = "reference", value_name = "NAME=VALUE", value_parser = values::reference)]
    references: Vec<(String, String)>,
    /// Give a secret, as for `build`
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = values::secret)]
    secrets: Vec<(String, SecretSource)>,
    /// Ask AWS's Parameter Store for values that nobody has given, as for `build`
    #[arg(long)]
    aws_parameters: bool,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    events: EventArguments,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let mut factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    let Arguments { references, secrets, aws_parameters: asks_aws, .. } = arguments;
    let given = Given { references, secrets, asks_aws, ..Given::default() };
    let store = factory.store.clone();
    let image = store.find_sealed(&arguments.image)?;
    let telling = arguments.events.tell_of(&mut factory, context);
    let tested = factory.test(image, &arguments.components, &given).await;
    drop(factory);
    telling.finish(context).await;
    let (image, test) = tested?;
    if let Some(path) = &arguments.junit {
        junit::write(path, &image, &test)?;
    }
    match factory::test_failure(&image, &test) {
        Some(failure) => Err(failure.into()),
        None => build::show(&image, &image.manifest.stages, context),
    }
}
