//! One build of a run, in the process that was started for it.

use std::sync::Arc;

use super::Error;
use super::definition::{How, Named};
use super::ledger::{Ledger, Outcome};
use super::logs;
use super::pass::plan;
use super::run::{BuildRecord, Run, Status};
use crate::document::distribution::Distribution;
use crate::document::resource;
use crate::document::syntax::Source;
use crate::factory::{self, CheckOptions, Event, Factory, OnFailure, Options, Plan, PublishOptions};
use crate::host::one_line;
use crate::publish;
use crate::store::manifest::State;
use crate::store::version::ImageId;
use crate::store::{Image, Reservation, Store};

/// Makes one build of a run, and notes in the ledger how it goes. What fails is an outcome.
pub async fn execute(factory: &Factory, id: &str, number: usize) -> Result<Outcome, Error> {
    let attempt = Arc::new(Attempt::begin(&Ledger::new(&factory.store), id, number)?);
    let (noting, told) = (attempt.clone(), factory.clone());
    let listener = move |event: Event| {
        if let Event::Reserved(image) = &event
            && let Err(error) = noting.reserved(image)
        {
            told.tell(Event::Warning(format!("the run's record can't be written: {}", one_line(&error))));
        }
        told.tell(event);
    };
    let noticed = Factory { listener: Arc::new(listener), ..factory.clone() };
    let made = make(&noticed, &attempt).await.map_err(|error| {
        let was_stopped = matches!(error, Failure::Factory(factory::Error::Interrupted));
        (if was_stopped { Status::Cancelled } else { Status::Failed }, one_line(&error))
    });
    let (outcome, run) = (attempt.outcome(made)?, &attempt.run);
    if let (Some(place), Some(image)) = (&run.how.logs, &outcome.image)
        && let Err(error) = logs::put(factory, place, run, image).await
    {
        // They are with the image anyhow.
        factory
            .tell(Event::Warning(format!("the logs of {image} could not be put in their place: {}", one_line(&error))));
    }
    attempt.end(&outcome)?;
    Ok(outcome)
}

/// One attempt at a build, and what is said of it in the ledger.
pub(super) struct Attempt {
    ledger: Ledger,
    pub(super) run: Run,
    number: usize,
    pub(super) record: BuildRecord,
}

impl Attempt {
    pub(super) fn begin(ledger: &Ledger, id: &str, number: usize) -> Result<Self, Error> {
        let no_run = || Error::NoRun { wanted: id.to_owned() };
        let run = ledger.run(id)?.ok_or_else(no_run)?;
        let record = run.builds.get(number).ok_or_else(no_run)?.clone();
        Ok(Self { ledger: ledger.clone(), run, number, record })
    }

    /// The image of an earlier attempt, which was killed between having it and saying so.
    pub(super) fn earlier(&self, store: &Store) -> Option<Image> {
        let id = self.record.image.as_ref().filter(|_| self.record.attempts > 1)?;
        store.find(&id.into(), |image| image.manifest.state == State::Available).ok()
    }

    /// Notes that the image has its number.
    pub(super) fn reserved(&self, image: &ImageId) -> Result<(), Error> {
        self.end(&self.saying(Status::Building, None, Some(image.clone())))
    }

    /// What has come of it.
    pub(super) fn outcome(&self, made: Result<ImageId, (Status, String)>) -> Result<Outcome, Error> {
        Ok(match made {
            Ok(image) => self.saying(Status::Available, None, Some(image)),
            Err((status, why)) => {
                let said = self.ledger.outcome(&self.run, self.number)?;
                self.saying(status, Some(why), said.and_then(|said| said.image))
            }
        })
    }

    /// Notes what has come of it.
    pub(super) fn end(&self, outcome: &Outcome) -> Result<(), Error> {
        self.ledger.say(&self.run.id, self.number, outcome)
    }

    fn saying(&self, status: Status, reason: Option<String>, image: Option<ImageId>) -> Outcome {
        Outcome { attempt: self.record.attempts, status, reason, image }
    }
}

/// Why there is no image, or none where it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Factory(#[from] factory::Error),
    #[error("{image} was published to {done} of {of} places: {why}")]
    Published { image: ImageId, done: usize, of: usize, why: String },
}

async fn make(factory: &Factory, attempt: &Attempt) -> Result<ImageId, Failure> {
    let (run, build) = (&attempt.run, &attempt.record.build);
    let plan = plan(&run.how, build)?;
    let distribution = run.how.distribution.as_ref().map(read).transpose()?;
    let image = match attempt.earlier(&factory.store) {
        Some(image) => image,
        None => build_image(factory, run, &plan, distribution.as_ref()).await?,
    };
    let id = image.id.clone();
    let Some(distribution) = distribution else { return Ok(id) };
    let mut reservation = Reservation::of(&factory.store, image).map_err(factory::Error::from)?;
    let image = &mut reservation.image;
    let resume = factory.is_publication_open(image, &distribution)?;
    let check = CheckOptions { site: run.how.site(), ..CheckOptions::default() };
    let options = PublishOptions { resume, check };
    let outcomes = factory.publish(image, &distribution, &options).await?;
    let failures: Vec<String> = outcomes.iter().filter_map(failure).collect();
    match failures.first() {
        None => Ok(id),
        Some(why) => {
            let (of, done) = (outcomes.len(), outcomes.len() - failures.len());
            Err(Failure::Published { image: id, done, of, why: why.clone() })
        }
    }
}

async fn build_image(
    factory: &Factory,
    run: &Run,
    plan: &Plan,
    distribution: Option<&Distribution>,
) -> Result<Image, Failure> {
    let How { tests, anew, keep_on_failure, .. } = run.how;
    if let Err(error) = factory.renew_parent(plan).await {
        // A run that knows what is newer has to be made from it. One that could not find out takes what is here.
        if matches!(error, factory::Error::Interrupted) || !run.dependencies.is_empty() {
            return Err(error.into());
        }
        let warning = format!("whether its parent is the newest can't be told: {}", one_line(&error));
        factory.tell(Event::Warning(warning));
    }
    let options = Options {
        no_test: !tests,
        anew,
        test_time: run.how.test_time(),
        distribution: distribution.map(|distribution| distribution.source.clone()),
        on_failure: if keep_on_failure { OnFailure::Keep } else { OnFailure::Cleanup },
        ..Options::default()
    };
    Ok(factory.build(plan, &options).await?.image)
}

/// Reads a distribution configuration. Its warnings were told when the pipeline was read.
fn read(named: &Named) -> Result<Distribution, factory::Error> {
    let source = Source::read(&named.file).map_err(factory::Error::Unreadable)?;
    let found = resource::distribution(&source, &named.name).map_err(Box::new)?;
    found.map(|(distribution, _)| distribution).ok_or_else(|| factory::Error::Recipe {
        place: named.file.display().to_string(),
        message: format!("there is no distribution configuration `{}` any more", named.name),
        help: None,
    })
}

fn failure(outcome: &publish::Outcome) -> Option<String> {
    outcome.error.as_ref().map(|error| format!("{}: {}", outcome.place, one_line(error)))
}
