//! `goldsmith check`.

use clap::Args;
use serde::Serialize;

use super::build::SiteArguments;
use super::output::{BAD, BOLD, DIM, GOOD, WARN};
use super::report::CliError;
use super::values::secret;
use super::{Accelerator, Context};
use crate::check::{Outcome, Report, Target, Verdict};
use crate::document::secret::SecretSource;
use crate::factory::CheckOptions;
use crate::store::Reservation;
use crate::store::version::Pattern;

/// Say whether an image is ready for a cloud: 25 checks of what is on its disk
///
/// The disk is looked into by a throw-away guest, and stays as it is. Ends with 6 if a check fails: such an image must not
/// be published. Without `--for`, what would fail in some clouds only is a warning.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image: NAME, NAME/VERSION or NAME/VERSION/BUILD
    image: Pattern,
    /// Where it is to run: aws, azure, gcp, vmware, proxmox, libvirt; all of them unless given
    #[arg(long = "for", value_name = "TARGET", value_parser = str::parse::<Target>)]
    target: Option<Target>,
    /// Leave the boot from an NVMe disk out
    #[arg(long)]
    no_boot: bool,
    /// Look for a secret on the whole disk: NAME=env:VARIABLE, NAME=file:PATH or NAME=cmd:COMMAND
    #[arg(long = "secret", value_name = "NAME=SOURCE", value_parser = secret)]
    secrets: Vec<(String, SecretSource)>,
    /// What guests run on
    #[arg(long, value_enum, default_value_t)]
    accel: Accelerator,
    #[command(flatten)]
    site: SiteArguments,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    image: String,
    ready: bool,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<(), CliError> {
    let Arguments { image, target, no_boot, secrets, accel, site } = arguments;
    let options = CheckOptions { no_boot, secrets, site: site.wishes() };
    let factory = context.factory(accel)?;
    let image = factory.store.find_sealed(&image)?;
    let reservation = Reservation::of(&factory.store, image)?;
    let report = factory.check(&reservation.image, target, &options).await?;
    let image = reservation.image.id.clone();
    drop((reservation, factory));
    let failed = report.count(Verdict::Fail);
    if context.output.json {
        let summary = Summary { image: image.to_string(), ready: report.refusal().is_none(), report: &report };
        context.output.json(&summary)?;
    } else {
        report.checks.iter().for_each(|check| show(check, context));
        let [passed, skipped, warned] =
            [Verdict::Pass, Verdict::Skipped, Verdict::Warn].map(|verdict| report.count(verdict));
        context.output.result(&format!("{passed} passed, {warned} warned, {failed} failed, {skipped} skipped"));
    }
    if failed > 0 { Err(CliError::Unready { image, target, failed }) } else { Ok(()) }
}

fn show(check: &Outcome, context: &Context) {
    let mut head = format!("{:>2} {BOLD}{:<23}{BOLD:#}", check.number, check.name);
    for finding in &check.findings {
        let style = match finding.verdict {
            Verdict::Pass => GOOD,
            Verdict::Skipped => DIM,
            Verdict::Warn => WARN,
            Verdict::Fail => BAD,
        };
        context.output.result(&format!("{head} {style}{:<8}{style:#}{}", finding.verdict.name(), finding.reason));
        if let Some(mend) = &finding.mend {
            context.output.result(&format!("{:<35}mend: {mend}", ""));
        }
        head = format!("{:<26}", "");
    }
    if check.verdict == Verdict::Fail {
        context.output.result(&format!("{:<35}prevents: {}", "", check.prevents));
    }
}
