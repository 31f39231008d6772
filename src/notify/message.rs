//! What is told, in the shape of Amazon EventBridge.
//!
//! Sources: the "EC2 Image Builder User Guide", "Amazon EventBridge integration" (detail types and members) and "Image failure
//! context" (`failureContext`). Names of AWS's resources are made up for what goldsmith has instead of them, so that rules
//! that people have made for Image Builder match.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::store::manifest::State;
use crate::store::version::ImageId;

/// Whose an event is, as ARNs say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `aws` or another part of it.
    pub partition: String,
    /// The region.
    pub region: String,
    /// The account's number.
    pub account: String,
}

impl Origin {
    /// This host: the region `local` of the account 000000000000.
    pub fn local() -> Self {
        Self { partition: "aws".to_owned(), region: "local".to_owned(), account: "000000000000".to_owned() }
    }

    /// That of a topic.
    pub fn of_topic(arn: &str) -> Self {
        let mut parts = arn.split(':').skip(1);
        let partition = parts.next().unwrap_or("aws").to_owned();
        let (region, account) = (parts.nth(1).unwrap_or_default(), parts.next().unwrap_or_default());
        Self { partition, region: region.to_owned(), account: account.to_owned() }
    }

    fn arn(&self, kind: &str, rest: &str) -> String {
        format!("arn:{}:imagebuilder:{}:{}:{kind}/{rest}", self.partition, self.region, self.account)
    }
}

/// Something worth telling others. Its identifier and time are the same wherever it is told, however often.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its identifier.
    pub id: String,
    /// When it came to be.
    pub time: Timestamp,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    StateChange(Box<StateChange>),
    PipelineDisabled { pipeline: String, failures: u32 },
}

/// An image's state has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// The image.
    pub image: ImageId,
    /// Its state before.
    pub from: State,
    /// Its state now.
    pub to: State,
    /// Why.
    pub reason: Option<String>,
    /// More of why, if it failed.
    pub failure: Option<FailureContext>,
}

/// What has failed; Image Builder's names. Only what failed first is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureContext {
    /// The image's state when it failed.
    pub image_status: String,
    /// The stage in which it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// The step of a component that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_failure: Option<ComponentFailure>,
    /// The places that were not published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution_failure: Option<DistributionFailure>,
}

/// A step that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentFailure {
    /// The component, by its name: components here have no ARN.
    pub component_arn: String,
    /// Its phase.
    pub phase_name: String,
    /// The step.
    pub step_name: String,
    /// What the step does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// What went wrong.
    pub error_message: String,
}

/// A publication that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DistributionFailure {
    /// What went wrong, in short.
    pub error_message: String,
    /// Where.
    pub region_failures: Vec<RegionFailure>,
}

/// A place that was not published to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionFailure {
    /// The place.
    pub region: String,
    /// `FAILED`.
    pub status: String,
    /// What went wrong.
    pub error_message: String,
}

impl Notice {
    /// That an image's state has changed, now.
    pub fn of_state(change: StateChange) -> Self {
        Self::now(What::StateChange(Box::new(change)))
    }

    /// That a pipeline was disabled because of so many failures in a row, now.
    pub fn of_disabled_pipeline(pipeline: &str, failures: u32) -> Self {
        Self::now(What::PipelineDisabled { pipeline: pipeline.to_owned(), failures })
    }

    fn now(what: What) -> Self {
        Self { id: uuid::Uuid::new_v4().to_string(), time: Timestamp::now(), what }
    }

    /// The image that it is about.
    pub fn image(&self) -> Option<&ImageId> {
        match &self.what {
            What::StateChange(change) => Some(&change.image),
            What::PipelineDisabled { .. } => None,
        }
    }

    /// As EventBridge would send it.
    pub fn event(&self, origin: &Origin) -> Value {
        let (kind, resource, detail) = match &self.what {
            What::StateChange(change) => {
                let id = &change.image;
                let rest = format!("{}/{}/{}", slug(id.name.as_str()), id.version, id.build);
                ("EC2 Image Builder Image State Change", origin.arn("image", &rest), change.detail())
            }
            What::PipelineDisabled { pipeline, failures } => {
                let detail = json!({ "consecutive-failures": failures.to_string() });
                let resource = origin.arn("image-pipeline", &slug(pipeline));
                ("EC2 Image Builder Image Pipeline Automatically Disabled", resource, detail)
            }
        };
        json!({
            "version": "0",
            "id": self.id,
            "detail-type": kind,
            "source": "aws.imagebuilder",
            "account": origin.account,
            "time": self.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "region": origin.region,
            "resources": [resource],
            "detail": detail,
        })
    }
}

impl StateChange {
    fn detail(&self) -> Value {
        let mut state = json!({ "status": self.to });
        if let Some(reason) = &self.reason {
            state["reason"] = json!(reason);
        }
        let mut detail = json!({ "previous-state": { "status": self.from }, "state": state });
        if let Some(failure) = &self.failure {
            detail["failureContext"] = json!(failure);
        }
        detail
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::StateChange(change) => write!(f, "{} is {}", change.image, change.to),
            What::PipelineDisabled { pipeline, failures } => {
                write!(f, "the pipeline {pipeline} was disabled after {failures} failures")
            }
        }
    }
}

/// A name as it stands in an ARN.
fn slug(name: &str) -> String {
    name.to_lowercase().replace([' ', '_'], "-")
}
