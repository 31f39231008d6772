//! `goldsmith build`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::events::EventArguments;
use super::output::{BOLD, GOOD};
use super::publish::{self, ServiceArguments};
use super::report::CliError;
use super::values::ValueArguments;
use super::{Accelerator, Context, terminal};
use crate::document::distribution::Distribution;
use crate::factory::{
    self, Built, CheckOptions, ExportWishes, Factory, Format, Options, Place, Plan, PublishOptions, SiteWishes,
};
use crate::store::manifest::{Stage, State};
use crate::store::{Image, Reservation, Store};

/// Build an image from a recipe, test it, export it
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The recipe, YAML or JSON
    recipe: PathBuf,
    #[command(flatten)]
    values: ValueArguments,
    /// Export the finished image: raw, raw.zst, qcow2, qcow2-zstd, vmdk, vhd, vhd-fixed, vhdx, ova, gcp
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', value_parser = str::parse::<Format>)]
    export: Vec<Format>,
    /// Describe the machine beside the exported disk, for libvirt, proxmox or vmware
    #[arg(long = "for", value_name = "PLACE", value_delimiter = ',', value_parser = str::parse::<Place>)]
    places: Vec<Place>,
    /// Folder for exported files
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Publish the image as this distribution configuration says, YAML or JSON
    #[arg(long, value_name = "FILE", conflicts_with = "no_test")]
    distribution: Option<PathBuf>,
    /// Leave the test out; the image then says so wherever it goes
    #[arg(long)]
    no_test: bool,
    /// Write the test's results as JUnit XML
    #[arg(long, value_name = "FILE", conflicts_with = "no_test")]
    junit: Option<PathBuf>,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    /// Get the parent anew first if its publisher has something newer
    #[arg(long)]
    pull: bool,
    /// Run every component and make a new image, even if nothing has changed
    #[arg(long)]
    fresh: bool,
    /// Boot the parent and use nothing that earlier builds left
    #[arg(long)]
    cold: bool,
    /// What happens with the build machine when the build fails
    #[arg(long, value_enum, default_value_t)]
    on_failure: OnFailure,
    /// Refuse a recipe that says something else than the one that made an image of the same version
    #[arg(long)]
    strict_versions: bool,
    #[command(flatten)]
    services: ServiceArguments,
    #[command(flatten)]
    events: EventArguments,
    #[command(flatten)]
    site: SiteArguments,
}

/// What the site's network needs while building; gone from the image afterwards
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Site")]
pub(super) struct SiteArguments {
    /// Proxy for the guest, or `host` for this host's own
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Hosts that the guest reaches without the proxy
    #[arg(long, value_name = "HOSTS", requires = "proxy")]
    no_proxy: Option<String>,
    /// Certificate of an authority that the guest trusts while building
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
    /// Address to use instead of one in the guest's package sources while building
    #[arg(long = "mirror", value_name = "FROM=TO", value_parser = assignment)]
    mirrors: Vec<(String, String)>,
}

impl SiteArguments {
    pub(super) fn wishes(self) -> SiteWishes {
        let Self { proxy, no_proxy, ca_certificate, mirrors } = self;
        SiteWishes { proxy, no_proxy, ca_certificate, mirrors }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// Nothing of it stays but its logs
    #[default]
    Cleanup,
    /// Its disk stays, to be booted and looked into
    Keep,
    /// A shell is opened in it, as it is
    Shell,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    image: String,
    state: State,
    tested: bool,
    digest: Option<&'a str>,
    disk: Option<PathBuf>,
    accelerator: Option<&'a str>,
    exports: Vec<Exported<'a>>,
    stages: &'a [Stage],
    #[serde(skip_serializing_if = "Option::is_none")]
    publication: Option<publish::Summary<'a>>,
}

#[derive(Debug, Serialize)]
struct Exported<'a> {
    format: &'a str,
    path: &'a Path,
    digest: &'a str,
    bytes: u64,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    if matches!(arguments.on_failure, OnFailure::Shell) {
        context.no_json("what the guest's shell writes")?;
    }
    let mut factory = Factory { endpoints: arguments.services.endpoints(), ..context.factory(arguments.accel)? };
    let plan = arguments.values.plan(|given| Plan::read(&arguments.recipe, given), &factory).await?;
    let distribution = arguments.distribution.as_deref().map(|path| publish::read(path, context)).transpose()?;
    let options = Options {
        no_test: arguments.no_test,
        cold: arguments.cold,
        pull: arguments.pull,
        fresh: arguments.fresh,
        strict_versions: arguments.strict_versions,
        distribution: distribution.as_ref().map(|distribution| distribution.source.clone()),
        on_failure: match arguments.on_failure {
            OnFailure::Cleanup => factory::OnFailure::Cleanup,
            OnFailure::Keep => factory::OnFailure::Keep,
            OnFailure::Shell => factory::OnFailure::Shell(terminal::attach(&context.output)),
        },
        site: arguments.site.wishes(),
        exports: ExportWishes::new(arguments.export, arguments.places, arguments.output),
        ..Options::default()
    };
    let telling = arguments.events.tell_of(&mut factory, context);
    let ended = make(&plan, &options, distribution.as_ref(), arguments.junit.as_deref(), factory, context).await;
    telling.finish(context).await;
    ended
}

/// Builds, and publishes what was built.
async fn make(
    plan: &Plan,
    options: &Options,
    distribution: Option<&Distribution>,
    junit: Option<&Path>,
    factory: Factory,
    context: &Context,
) -> Result<(), CliError> {
    let store = factory.store.clone();
    let built = factory.build(plan, options).await;
    let reported = match junit {
        Some(path) => report_test(path, &built, &store),
        None => Ok(()),
    };
    let built = match (built, reported) {
        (Ok(built), reported) => reported.map(|()| built)?,
        (Err(failure), reported) => {
            // The build's own failure counts.
            reported.unwrap_or_else(|error| context.output.warning(&crate::host::one_line(&error)));
            return Err(failure.into());
        }
    };
    let Some(distribution) = distribution else {
        drop(factory);
        return show(&built.image, &built.stages, context);
    };
    let mut reservation = Reservation::of(&store, built.image)?;
    let image = &mut reservation.image;
    let check = CheckOptions { site: options.site.clone(), ..CheckOptions::default() };
    // A build that is run again goes on with what it could not publish.
    let resume = factory.is_publication_open(image, distribution)?;
    let options = PublishOptions { resume, check };
    let outcomes = factory.publish(image, distribution, &options).await?;
    drop(factory);
    let publication = publish::summary(&image.id, distribution, &outcomes);
    show_with(image, &built.stages, Some(publication), context)?;
    if !context.output.json {
        publish::show(&outcomes, context);
    }
    publish::failure(&image.id, &outcomes)
}

/// Writes the report of a build's test, if there was one.
fn report_test(path: &Path, built: &Result<Built, factory::Error>, store: &Store) -> Result<(), CliError> {
    let tested = match built {
        Ok(built) => &built.image.id,
        Err(factory::Error::Test { image, .. }) => image,
        Err(_) => return Ok(()),
    };
    let image = store.find(&tested.into(), |_| true)?;
    image.manifest.test.as_ref().map_or(Ok(()), |test| super::junit::write(path, &image, test))
}

/// Prints a finished image, and what was done for it just now.
pub(super) fn show(image: &Image, stages: &[Stage], context: &Context) -> Result<(), CliError> {
    show_with(image, stages, None, context)
}

fn show_with(
    image: &Image,
    stages: &[Stage],
    publication: Option<publish::Summary<'_>>,
    context: &Context,
) -> Result<(), CliError> {
    let manifest = &image.manifest;
    if context.output.json {
        let exported = manifest.exports.iter().map(|export| Exported {
            format: &export.format,
            path: &export.path,
            digest: &export.sha256,
            bytes: export.bytes,
        });
        return context.output.json(&Summary {
            image: image.id.to_string(),
            state: manifest.state,
            tested: manifest.tested,
            digest: manifest.disk.as_ref().map(|disk| disk.sha256.as_str()),
            disk: manifest.disk.is_some().then(|| image.disk()),
            accelerator: manifest.machine.as_ref().map(|machine| machine.accelerator.as_str()),
            exports: exported.collect(),
            stages,
            publication,
        });
    }
    let tested = if manifest.tested { "tested" } else { "not tested" };
    context.output.result(&format!("{BOLD}{}{BOLD:#} {GOOD}{}{GOOD:#}, {tested}", image.id, manifest.state));
    for export in &manifest.exports {
        let size = super::output::size(export.bytes);
        context.output.result(&format!("{} {size} sha256:{}", export.path.display(), export.sha256));
    }
    Ok(())
}

/// `NAME=VALUE`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}
