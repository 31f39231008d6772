//! Errors for the person at the terminal: what, where, the cause, what to do next; and the exit code.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::output::BAD;
use crate::check::Target;
use crate::document::diagnostic::{Report, Severity};
use crate::guest::failure::Sign;
use crate::store::version::ImageId;
use crate::{factory, guest, import, parent, pipeline, store};

/// Bad usage, or a document that is wrong. clap ends with it too.
const INVALID: u8 = 2;
/// A build or validate step failed.
const STEP_FAILED: u8 = 3;
/// A test failed.
const TEST_FAILED: u8 = 4;
/// The parent could not be obtained or verified.
const NO_PARENT: u8 = 5;
/// An export or publication failed, or would.
const NOT_EXPORTED: u8 = 6;
/// Any other failure.
const OTHER: u8 = 1;
/// The user stopped it.
pub(super) const INTERRUPTED: u8 = 130;
/// A step asks for a restart of this machine.
const RESTART: u8 = 194;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The factory could not do it.
    #[error(transparent)]
    Factory(#[from] factory::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A base image could not be obtained.
    #[error(transparent)]
    Parent(#[from] parent::Error),
    /// Documents are wrong; they have been shown.
    #[error("{count} of the documents can't be used")]
    Documents {
        /// How many.
        count: usize,
    },
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// An image is not ready for where it is to run; what is wrong has been shown.
    #[error("{image} is not ready{}: {failed} of its checks failed", target.map(|target| format!(" for {target}")).unwrap_or_default())]
    Unready {
        /// The image.
        image: ImageId,
        /// Where it is to run, if somebody has said.
        target: Option<Target>,
        /// How many checks failed.
        failed: usize,
    },
    /// Components failed in a throw-away machine; what happened there has been shown.
    #[error("{} failed", failed.join(", "))]
    Rehearsal {
        /// Which.
        failed: Vec<String>,
    },
    /// Components failed on this very machine; what happened has been shown.
    #[error("{}", describe_here(failed, *wants_restart))]
    FailedHere {
        /// Which.
        failed: Vec<String>,
        /// Whether this machine has to be restarted for them.
        wants_restart: bool,
    },
    /// Some places were not published to, or not taken back from; what happened there has been shown.
    #[error("{image}: {failed} of {of} failed")]
    Unpublished {
        /// The image.
        image: ImageId,
        /// How many failed.
        failed: usize,
        /// How many there are.
        of: usize,
    },
    /// A lifecycle policy could not be carried out on some images; what happened there has been shown.
    #[error("{failed} of {of} images could not be retired as the policy asks for")]
    Retired {
        /// How many.
        failed: usize,
        /// How many there are.
        of: usize,
    },
    /// Something can't be done with pipelines.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Runs of pipelines failed; what happened there has been shown.
    #[error("{} failed", failed.join(", "))]
    Runs {
        /// Which.
        failed: Vec<String>,
    },
    /// Something can't be imported.
    #[error(transparent)]
    Import(#[from] import::Error),
    /// An import lost something; what has been shown.
    #[error(
        "of what was to be imported {lost} things are lost, {open} have to be filled in, and {problems} problems are left"
    )]
    Losses {
        /// How many things are to be filled in.
        open: usize,
        /// How many are lost.
        lost: usize,
        /// What is wrong with the documents.
        problems: usize,
    },
    /// The host lacks something; it has been shown.
    #[error("this host is not ready")]
    NotReady,
    /// A file or stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl CliError {
    /// The exit code; public, so it changes for nobody.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Factory(error) => factory_code(error),
            Self::Store(error) => store_code(error),
            Self::Parent(error) => parent_code(error),
            Self::Pipeline(error) => pipeline_code(error),
            Self::Runs { .. } => OTHER,
            Self::Documents { .. } | Self::Usage(_) => INVALID,
            // As a publication that fails: nobody needs to know whether it was begun.
            Self::Unready { .. } | Self::Unpublished { .. } => NOT_EXPORTED,
            Self::Rehearsal { .. } => STEP_FAILED,
            // As AWS's executor does it.
            Self::FailedHere { wants_restart: true, .. } => RESTART,
            Self::FailedHere { .. } => OTHER,
            Self::Import(import::Error::Io(_) | import::Error::Taken { .. }) => OTHER,
            Self::Import(_) => INVALID,
            Self::NotReady | Self::Retired { .. } | Self::Losses { .. } | Self::Io(_) => OTHER,
        }
    }
}

fn describe_here(failed: &[String], wants_restart: bool) -> String {
    let failed = failed.join(", ");
    match wants_restart {
        true => format!("{failed}: this machine has to be restarted; then run the same again"),
        false => format!("{failed} failed"),
    }
}

fn factory_code(error: &factory::Error) -> u8 {
    use factory::Error;
    match error {
        Error::Document(_) | Error::Unreadable(_) | Error::Recipe { .. } => INVALID,
        Error::Parent(error) => parent_code(error),
        Error::Step { .. } => STEP_FAILED,
        Error::Guest { source, .. } | Error::Shell { source } => guest_code(source),
        Error::Test { .. } => TEST_FAILED,
        Error::Export { .. } | Error::Unready { .. } => NOT_EXPORTED,
        Error::Publication { .. } => INVALID,
        Error::State { .. } | Error::Archive { .. } | Error::Taken { .. } | Error::NothingToRetry { .. } => OTHER,
        Error::ChangedRecipe { .. } => INVALID,
        Error::Store(error) => store_code(error),
        Error::Interrupted => INTERRUPTED,
        Error::Accelerator(_)
        | Error::Host { .. }
        | Error::Traces { .. }
        | Error::Machine(_)
        | Error::Disk { .. }
        | Error::Io(_) => OTHER,
    }
}

fn parent_code(error: &parent::Error) -> u8 {
    // What is wrong is the document.
    if matches!(error, parent::Error::Description(_)) { INVALID } else { NO_PARENT }
}

/// What the guest did is the build's failure; what happened to its machine is not.
fn guest_code(error: &guest::Error) -> u8 {
    use crate::machine::End;
    match error {
        guest::Error::Ended { end: End::Panicked | End::PoweredOff, .. } => STEP_FAILED,
        guest::Error::NoMachine { .. } => OTHER,
        guest::Error::Lost | guest::Error::Refused(_) | guest::Error::Degraded(_) => STEP_FAILED,
        guest::Error::Ended { end: End::HostDisk { .. } | End::Died { .. }, .. } => OTHER,
        guest::Error::Machine(_)
        | guest::Error::Checkpoint(_)
        | guest::Error::AgentSilent { .. }
        | guest::Error::Source(_)
        | guest::Error::Agent { .. }
        | guest::Error::Memory { .. }
        | guest::Error::Protocol(_) => OTHER,
    }
}

fn store_code(error: &store::Error) -> u8 {
    match error {
        store::Error::NoImage { .. } | store::Error::NoChannel { .. } => INVALID,
        _ => OTHER,
    }
}

fn pipeline_code(error: &pipeline::Error) -> u8 {
    use pipeline::Error;
    match error {
        Error::Document(_) | Error::Unreadable(_) | Error::Unusable { .. } | Error::Problem { .. } => INVALID,
        Error::NoPipeline { .. } | Error::NoRun { .. } => INVALID,
        Error::Store(error) => store_code(error),
        Error::Lookup(_) | Error::Logs(_) | Error::Record { .. } | Error::Io(_) => OTHER,
    }
}

/// An error as it is printed.
pub(super) fn render(error: &CliError) -> String {
    if let Some(report) = document(error) {
        return render_report(report);
    }
    let mut text = format!("{BAD}error:{BAD:#} {error}");
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(error) = cause {
        let message = error.to_string();
        // Transparent errors say the same twice.
        if message != last && !last.contains(&message) {
            let _infallible = write!(text, "\n  because {message}");
        }
        last = message;
        cause = error.source();
    }
    for hint in hints(error) {
        let _infallible = write!(text, "\nhint: {hint}");
    }
    text
}

fn document(error: &CliError) -> Option<&Report> {
    match error {
        CliError::Factory(factory::Error::Document(report))
        | CliError::Factory(factory::Error::Parent(parent::Error::Description(report)))
        | CliError::Parent(parent::Error::Description(report)) => Some(report),
        CliError::Pipeline(error) => pipeline_document(error),
        CliError::Import(import::Error::Document(report)) => Some(report),
        _ => None,
    }
}

fn pipeline_document(error: &pipeline::Error) -> Option<&Report> {
    match error {
        pipeline::Error::Document(report) => Some(report),
        pipeline::Error::Problem { problem, .. } => pipeline_document(&problem.error),
        _ => None,
    }
}

/// An error of pipelines' on as few lines as it needs.
pub(super) fn plain_pipeline(error: &pipeline::Error) -> String {
    if let Some(report) = pipeline_document(error) {
        return report.to_string();
    }
    let mut text = crate::host::one_line(error);
    for hint in pipeline_hints(error) {
        let _infallible = write!(text, " ({hint})");
    }
    text
}

/// A failure of the factory as it would be printed.
pub(super) fn plain(error: &factory::Error) -> String {
    let mut text = error.to_string();
    for hint in factory_hints(error) {
        let _infallible = write!(text, " ({hint})");
    }
    text
}

/// Everything that is wrong with a document, each with the line that it is about.
pub(super) fn render_report(report: &Report) -> String {
    let renderer = if anstream::AutoStream::choice(&std::io::stderr()) == anstream::ColorChoice::Never {
        Renderer::plain()
    } else {
        Renderer::styled()
    };
    let source = &report.source;
    let mut text = String::new();
    for diagnostic in &report.diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let span = first_line(&source.text, diagnostic.span.clone());
        let snippet = Snippet::source(source.text.as_str())
            .path(source.name.as_str())
            .annotation(AnnotationKind::Primary.span(span));
        let mut group: Vec<Group<'_>> = vec![level.primary_title(diagnostic.message.as_str()).element(snippet)];
        if let Some(help) = &diagnostic.help {
            group.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&renderer.render(&group));
        text.push('\n');
    }
    text
}

/// A span of several lines would be drawn whole; the first says enough. An empty one gets a character to stand on.
fn first_line(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let start = span.start.min(text.len());
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    start..span.end.clamp(start, line_end.max(start))
}

/// What to do next.
fn hints(error: &CliError) -> Vec<String> {
    match error {
        CliError::Factory(error) => factory_hints(error),
        CliError::Store(error) => store_hints(error),
        CliError::Parent(error) => parent_hints(error),
        CliError::Retired { .. } => vec!["the next run goes on with them".to_owned()],
        CliError::Pipeline(error) => pipeline_hints(error),
        CliError::Runs { .. } => {
            vec!["`goldsmith image log IMAGE` prints a build's log, if it came to have a number".to_owned()]
        }
        CliError::NotReady => vec!["run the commands above, then `goldsmith doctor` again".to_owned()],
        CliError::Io(error) => io_hints(error),
        CliError::Import(error) => import_hints(error),
        CliError::Unpublished { .. } => {
            vec!["mend what is said above; `--resume` goes on, `--undo` takes back what was made".to_owned()]
        }
        CliError::Documents { .. }
        | CliError::Usage(_)
        | CliError::Losses { .. }
        | CliError::Unready { .. }
        | CliError::Rehearsal { .. }
        | CliError::FailedHere { .. } => Vec::new(),
    }
}

fn factory_hints(error: &factory::Error) -> Vec<String> {
    use factory::Error;
    match error {
        Error::Recipe { help, .. } => help.iter().cloned().collect(),
        Error::Parent(error) => parent_hints(error),
        Error::Accelerator(unusable) => {
            let mend = unusable.verdict.mend.iter().cloned();
            mend.chain(["`--accel auto` goes on with emulation".to_owned()]).collect()
        }
        Error::Host { mend, .. } => vec![mend.clone()],
        Error::Unready { image, target, .. } => {
            let target = target.map(|target| format!(" --for {target}")).unwrap_or_default();
            vec![format!("`goldsmith check {image}{target}` says how to mend it")]
        }
        Error::Publication { hint, .. } => hint.iter().cloned().collect(),
        Error::Step { failure, log, .. } => {
            let mut hints = sign_hint(failure.sign);
            hints.push(format!("the full log: {}", log.display()));
            hints.push(
                "`--on-failure shell` opens a shell in the machine, `--on-failure keep` keeps its disk".to_owned(),
            );
            hints
        }
        Error::Guest { source, log, .. } => {
            let mut hints = guest_hints(source);
            hints.push(format!("the console: {}", log.display()));
            hints
        }
        Error::Shell { source } => guest_hints(source),
        Error::Test { log, .. } => vec![format!("the full log: {}", log.display())],
        Error::Traces { .. } => {
            vec!["a component copied it to a place of its own: have it removed by the component's last step".to_owned()]
        }
        Error::Machine(error) => machine_hints(error),
        Error::Disk { source, .. } | Error::Export { source, .. } => disk_full_hint(&source.to_string()),
        Error::State { state: store::manifest::State::Failed, .. } => {
            vec!["look at it with `goldsmith image log`; `--allow-failed` exports it all the same".to_owned()]
        }
        Error::ChangedRecipe { .. } => vec![
            "raise the recipe's `version`, or write it as 1.0.x and each build takes the next free number".to_owned(),
            "without `--strict-versions` it is a warning".to_owned(),
        ],
        Error::NothingToRetry { .. } => vec!["`goldsmith build` builds it again".to_owned()],
        Error::Store(error) => store_hints(error),
        Error::Io(error) | Error::Unreadable(error) => io_hints(error),
        Error::Archive { .. } => vec!["save it again with `goldsmith image save`".to_owned()],
        Error::Taken { image } => vec![format!("`goldsmith image rm {image}` makes room for it")],
        Error::Document(_) | Error::State { .. } | Error::Interrupted => Vec::new(),
    }
}

fn pipeline_hints(error: &pipeline::Error) -> Vec<String> {
    use pipeline::Error;
    match error {
        Error::Unusable { help, .. } => help.iter().cloned().collect(),
        Error::Problem { problem, .. } => pipeline_hints(&problem.error),
        Error::NoPipeline { known, .. } if known.is_empty() => {
            vec!["`--folder DIR` says where the documents of pipelines are".to_owned()]
        }
        Error::NoPipeline { known, .. } => {
            let known: Vec<&str> = known.iter().map(crate::store::version::ImageName::as_str).collect();
            vec![format!("there is: {}", known.join(", "))]
        }
        Error::NoRun { .. } => vec!["`goldsmith pipeline show PIPELINE` lists its runs".to_owned()],
        Error::Lookup(_) => vec!["the scheduled time stays due, and is looked at again".to_owned()],
        Error::Record { .. } => {
            vec!["restore it from a backup, or remove it if it is a run that nobody misses".to_owned()]
        }
        Error::Store(error) => store_hints(error),
        Error::Io(error) | Error::Unreadable(error) => io_hints(error),
        Error::Document(_) | Error::Logs(_) => Vec::new(),
    }
}

fn import_hints(error: &import::Error) -> Vec<String> {
    match error {
        import::Error::Nothing { .. } => {
            vec![
                "imported are resources of the types AWS::ImageBuilder::*, but for containers and workflows".to_owned(),
            ]
        }
        import::Error::Parameter { help, .. } => help.iter().cloned().collect(),
        import::Error::Taken { .. } => {
            vec!["`--output DIR` puts the documents elsewhere, `--force` overwrites; nothing was written".to_owned()]
        }
        import::Error::Io(error) => io_hints(error),
        import::Error::Document(_) => Vec::new(),
    }
}

fn sign_hint(sign: Option<&Sign>) -> Vec<String> {
    sign.iter().map(|sign| sign.hint.to_owned()).collect()
}

fn guest_hints(error: &guest::Error) -> Vec<String> {
    use crate::machine::End;
    match error {
        guest::Error::Ended { end: End::HostDisk { full: true }, .. } => disk_full_hint("No space left on device"),
        guest::Error::Ended { seen, .. } => sign_hint(seen.as_ref().map(|seen| seen.sign)),
        guest::Error::AgentSilent { seen: Some(seen), .. } => sign_hint(Some(seen.sign)),
        guest::Error::AgentSilent { .. } => vec![
            "the parent needs cloud-init with the NoCloud data source, and a kernel with virtio drivers".to_owned(),
            "a slow host needs more time: `machine: { bootTimeoutSeconds: 1800 }` in the recipe".to_owned(),
        ],
        guest::Error::Machine(error) => machine_hints(error),
        _ => Vec::new(),
    }
}

fn machine_hints(error: &crate::machine::Error) -> Vec<String> {
    use crate::machine::Error;
    match error {
        Error::NoQemu => {
            vec!["install the package qemu-system-x86; `goldsmith doctor` says the whole command".to_owned()]
        }
        Error::Start { stderr } => disk_full_hint(stderr),
        _ => vec!["`goldsmith doctor` tells what this host lacks".to_owned()],
    }
}

fn parent_hints(error: &parent::Error) -> Vec<String> {
    use parent::Error;
    match error {
        Error::NoChecksum { .. } => {
            vec!["add `parentChecksum: sha256:…` to the recipe, or describe it in base-images/NAME.yaml".to_owned()]
        }
        Error::Foreign { help, .. } => vec![help.clone()],
        Error::Download { .. } => vec![
            "run it again: what has arrived is kept, and the download goes on where it was cut".to_owned(),
            "a site with a proxy sets http_proxy and https_proxy".to_owned(),
        ],
        Error::Verification { .. } => vec![
            "nothing of it was kept; if the publisher has replaced the file a moment ago, try again later".to_owned(),
        ],
        Error::Packages(crate::host::process::Error::Missing { program }) => {
            vec![format!("install the package {program}; `goldsmith doctor` says the whole command")]
        }
        Error::Packages(_) => vec![
            "an ordinary user needs a range in /etc/subuid and /etc/subgid: sudo usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 \"$USER\""
                .to_owned(),
            "outside Debian, the package debian-archive-keyring brings the keys that packages are checked with"
                .to_owned(),
        ],
        Error::Unknown { .. } => vec!["`goldsmith base list` and `goldsmith image list` show what there is".to_owned()],
        Error::Io(error) => io_hints(error),
        Error::Disk(error) => disk_full_hint(&error.to_string()),
        _ => Vec::new(),
    }
}

fn store_hints(error: &store::Error) -> Vec<String> {
    match error {
        store::Error::NoImage { known, .. } if known.is_empty() => {
            vec!["`goldsmith image list` shows what there is".to_owned()]
        }
        store::Error::NoImage { known, .. } => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            vec![format!("there is: {}", known.join(", "))]
        }
        store::Error::NoChannel { known, .. } if known.is_empty() => {
            vec!["`goldsmith channel promote NAME@CHANNEL IMAGE` makes one".to_owned()]
        }
        store::Error::NoChannel { known, .. } => {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            vec![format!("there is: {}", known.join(", "))]
        }
        store::Error::Named { channels, .. } => {
            let rest = channels.iter().map(|channel| format!("`goldsmith channel promote {channel} IMAGE`"));
            rest.map(|command| format!("{command} lets it name another one first")).collect()
        }
        store::Error::TooNew { .. } => vec!["use the newer goldsmith, or another --home".to_owned()],
        store::Error::Io { source, .. } => io_hints(source),
        _ => Vec::new(),
    }
}

fn io_hints(error: &io::Error) -> Vec<String> {
    match error.kind() {
        io::ErrorKind::StorageFull => disk_full_hint("No space left on device"),
        _ => Vec::new(),
    }
}

fn disk_full_hint(message: &str) -> Vec<String> {
    if message.contains("No space left on device") {
        return vec![
            "the host's disk is full: `goldsmith gc` gives back what can be made again, `goldsmith image rm` images"
                .to_owned(),
        ];
    }
    Vec::new()
}
