//! Documents that other documents run: `ExecuteDocument`.

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::action::Verdict;
use super::courier::Object;
use super::inputs::Resolved;
use super::kind;
use super::program::Program;
use super::runner::{Outcome, StepRun, StepStatus, Trip};
use super::values::{Outputs, absolute};
use crate::document::syntax::{MAX_BYTES, Source};
use crate::guest;

/// How many documents may be run one by another, the first one counted.
const MAX_CHAIN: usize = 4;

impl StepRun<'_, '_> {
    /// Runs the document that a step names.
    pub(super) async fn run_document(&mut self, input: &Resolved) -> Result<Verdict, guest::Error> {
        let name = match input.required("document") {
            name if name.starts_with("s3://") || name.starts_with("arn:") => name.to_owned(),
            path => absolute(&self.runner.site.working_directory, path),
        };
        if self.trip.chain.contains(&name) {
            let chain = self.trip.chain.join(" runs ");
            return Ok(Verdict::Failed(format!("documents run one another in a circle: {chain} runs {name}")));
        }
        if self.trip.chain.len() == MAX_CHAIN {
            return Ok(Verdict::Failed(format!("documents are nested more than {} levels deep", MAX_CHAIN - 1)));
        }
        let source = match self.read_document(&name, input.text("document-s3-bucket-owner")).await? {
            Ok(source) => source,
            Err(problem) => return Ok(Verdict::Failed(format!("{name}: {problem}"))),
        };
        let program = match Program::nested(&source, input.pairs("parameters")) {
            Ok(program) => program,
            Err(problem) => return Ok(Verdict::Failed(format!("Document {name} failed! {problem}"))),
        };
        let phases: Option<Vec<&str>> = input
            .text("phases")
            .filter(|phases| !phases.trim().is_empty())
            .map(|phases| phases.split(',').map(str::trim).collect());
        let (phase, step) = self.shown.clone();
        let mut trip = Trip {
            reboots: self.trip.reboots,
            chain: self.trip.chain.iter().cloned().chain([name.clone()]).collect(),
            above: Some((phase, step)),
            is_silent: self.step.is_silent || self.trip.is_silent,
            wants_restart: false,
        };
        let outcome = self.runner.nested(&program, phases.as_deref(), &mut trip).await;
        self.trip.reboots = trip.reboots;
        self.trip.wants_restart = trip.wants_restart;
        self.judge(&name, outcome)
    }

    fn judge(&self, name: &str, mut outcome: Outcome) -> Result<Verdict, guest::Error> {
        if let Some(error) = outcome.lost.take() {
            return Err(error);
        }
        if let Some((step, failure)) = outcome.failure() {
            self.log.keep(failure.tail.clone());
            let place = format!("{}/{}", step.phase, step.step);
            return Ok(Verdict::Failed(format!("Document {name} failed! {place}: {}", failure.message)));
        }
        Ok(Verdict::Done(outputs(&outcome, &self.runner.site.execution_id)))
    }

    /// A document's text, from the guest, from S3 or by its ARN.
    async fn read_document(
        &self,
        name: &str,
        owner: Option<&str>,
    ) -> Result<Result<Arc<Source>, String>, guest::Error> {
        let limit = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
        let bytes = if name.starts_with("arn:") {
            return Ok(self.runner.courier.document(name).await);
        } else if let Some((bucket, key)) = kind::object(name) {
            let owner = owner.map(str::to_owned);
            let object = Object { bucket: bucket.to_owned(), key: key.to_owned(), owner };
            match self.runner.courier.get(&object).await {
                Ok(content) => {
                    let mut bytes = Vec::new();
                    match content.take(MAX_BYTES + 1).read_to_end(&mut bytes).await {
                        Ok(_) if bytes.len() > limit => return Ok(Err("the document is too large".to_owned())),
                        Ok(_) => bytes,
                        Err(error) => return Ok(Err(error.to_string())),
                    }
                }
                Err(problem) => return Ok(Err(problem)),
            }
        } else {
            match self.runner.guest.read(name, limit).await {
                Err(guest::Error::Refused(error)) => return Ok(Err(error.message)),
                bytes => bytes?,
            }
        };
        let text = String::from_utf8(bytes).map_err(|_| "the document is not UTF-8".to_owned());
        Ok(text.map(|text| Source::new(name, text)))
    }
}

/// What a step that has run a document tells of it.
fn outputs(outcome: &Outcome, execution_id: &str) -> Outputs {
    let count = |is_meant: fn(&StepStatus) -> bool| outcome.count(is_meant).to_string();
    let executed = count(|status| !matches!(status, StepStatus::Skipped));
    vec![
        ("executedStepCount", executed),
        ("executionId", execution_id.to_owned()),
        ("failedStepCount", count(|status| matches!(status, StepStatus::Failed(_)))),
        ("failureMessage", String::new()),
        ("ignoredFailedStepCount", count(|status| matches!(status, StepStatus::FailureIgnored(_)))),
        ("logUrl", String::new()),
        ("status", "success".to_owned()),
    ]
}
