//! `goldsmith export`.

use std::path::PathBuf;

use clap::Args;

use super::report::CliError;
use super::{Accelerator, Context, build};
use crate::factory::{ExportWishes, Format, Place};
use crate::store::Reservation;
use crate::store::version::Pattern;

/// Write an image's disk in other formats
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Formats: raw, raw.zst, qcow2, qcow2-zstd, vmdk, vhd, vhd-fixed, vhdx, ova, gcp
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', value_parser = str::parse::<Format>)]
    #[arg(required_unless_present = "places")]
    format: Vec<Format>,
    /// Describe the machine beside the disk, for libvirt, proxmox or vmware
    #[arg(long = "for", value_name = "PLACE", value_delimiter = ',', value_parser = str::parse::<Place>)]
    places: Vec<Place>,
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Export an image that failed its build or test
    #[arg(long)]
    allow_failed: bool,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let factory = context.factory(Accelerator::Auto)?;
    let allow_failed = arguments.allow_failed;
    let found = match allow_failed {
        true => factory.store.find(&arguments.image, |image| image.manifest.state.is_exportable(true)),
        false => factory.store.find_usable(&arguments.image),
    };
    // Without one that can be exported, the newest of all says why not.
    let image = found.or_else(|_| factory.store.find(&arguments.image, |_| true))?;
    let mut reservation = Reservation::of(&factory.store, image)?;
    let image = &mut reservation.image;
    let wishes = ExportWishes::new(arguments.format, arguments.places, arguments.output);
    factory.export(image, &wishes, allow_failed).await?;
    drop(factory);
    build::show(image, &image.manifest.stages, context)
}
