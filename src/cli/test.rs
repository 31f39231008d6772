//! `goldsmith test`.

use std::path::PathBuf;

use clap::Args;

use super::events::EventArguments;
use super::publish::ServiceArguments;
use super::report::CliError;
use super::values::KeptValueArguments;
use super::{Accelerator, Context, build, junit};
use crate::factory::{self, Factory};
use crate::store::version::Pattern;

/// Boot an image's sealed disk cold and run its tests
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Run the test phases of these components instead of the image's own
    #[arg(long = "component", value_name = "DOC")]
    components: Vec<PathBuf>,
    #[command(flatten)]
    values: KeptValueArguments,
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
    let given = arguments.values.given();
    let store = factory.store.clone();
    let image = store.find_sealed(&arguments.image)?;
    let telling = arguments.events.tell_of(&mut factory, context);
    let tested = factory.test(image, &arguments.components, &given).await;
    drop(factory);
    telling.finish(context).await;
    let (image, test) = tested?;
    let reported = arguments.junit.as_ref().map_or(Ok(()), |path| junit::write(path, &image, &test));
    match factory::test_failure(&image, &test) {
        Some(failure) => {
            // The test's own failure counts.
            reported.unwrap_or_else(|error| context.output.warning(&crate::host::one_line(&error)));
            Err(failure.into())
        }
        None => reported.and_then(|()| build::show(&image, &image.manifest.stages, context)),
    }
}
