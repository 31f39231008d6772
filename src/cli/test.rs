//! `goldsmith test`.

use std::path::PathBuf;

use clap::Args;

use super::report::CliError;
use super::{Accelerator, Context, build, junit};
use crate::factory;
use crate::store::version::Pattern;

/// Boot an image's sealed disk cold and run its tests
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Run the test phases of these components instead of the image's own
    #[arg(long = "component", value_name = "DOC")]
    components: Vec<PathBuf>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let factory = context.factory(arguments.accel)?;
    let store = factory.store.clone();
    let image = store.find(&arguments.image, |image| image.manifest.disk.is_some())?;
    let (image, test) = factory.test(image, &arguments.components).await?;
    drop(factory);
    if let Some(path) = &arguments.junit {
        junit::write(path, &image, &test)?;
    }
    match factory::test_failure(&image, &test) {
        Some(failure) => Err(failure.into()),
        None => build::show(&image, &image.manifest.stages, context),
    }
}
