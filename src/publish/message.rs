//! What a topic is told, in Image Builder's own form.
//!
//! Source: the "EC2 Image Builder User Guide", "Amazon SNS integration": the message is the whole image as JSON, sent when it
//! is AVAILABLE or FAILED. Names of AWS's resources are made up for what goldsmith has instead of them, in the account and
//! region of the topic, so that what people have made for Image Builder finds what it looks for.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::journal::StepName;
use super::{Error, Event, Outcome, Publication};
use crate::store::version::ImageId;

/// The longest subject that SNS takes.
const LONGEST_SUBJECT: usize = 100;

impl Publication<'_> {
    /// Tells the topic what has become of the image. That it can't be told is said, and changes nothing.
    pub(super) async fn tell_topic(&self, outcomes: &[Outcome]) -> Option<Outcome> {
        let topic = self.plan.topic.as_deref()?;
        let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.error.is_some()).collect();
        let name = StepName { place: "topic".to_owned(), step: format!("tell {topic}"), account: None };
        // That it is there is told once; that it is not, each time.
        if self.journal.entry(&name).is_some_and(|entry| entry.is_done) {
            return None;
        }
        let result = self.send(topic, &name, outcomes, failed.first().copied()).await;
        if let Err(error) = result {
            let text = format!("the topic could not be told: {}", crate::host::one_line(&error));
            self.tell(Event::Note { place: name.place.clone(), text });
        }
        None
    }

    async fn send(
        &self,
        topic: &str,
        name: &StepName,
        outcomes: &[Outcome],
        failed: Option<&Outcome>,
    ) -> Result<(), Error> {
        let region = topic.split(':').nth(3).unwrap_or_default();
        let failure = failed
            .and_then(|outcome| Some(format!("{}: {}", outcome.place, crate::host::one_line(outcome.error.as_ref()?))));
        let state = if failure.is_some() { "FAILED" } else { "AVAILABLE" };
        let subject: String = format!("{} is {state}", self.subject.id).chars().take(LONGEST_SUBJECT).collect();
        let body = self.body(topic, outcomes, failure.as_deref());
        self.journal.step(name)?;
        self.aws.region(region).notify(topic, &subject, &body).await?;
        if failed.is_none() {
            self.journal.note_done(name)?;
        }
        Ok(())
    }

    fn body(&self, topic: &str, outcomes: &[Outcome], failure: Option<&str>) -> String {
        let mut parts = topic.split(':').skip(1);
        let (partition, region, account) =
            (parts.next().unwrap_or("aws"), parts.nth(1).unwrap_or_default(), parts.next().unwrap_or_default());
        let arn = |kind: &str, rest: &str| format!("arn:{partition}:imagebuilder:{region}:{account}:{kind}/{rest}");
        let id = &self.subject.id;
        let slug = slug(id.name.as_str());
        let version = id.version.to_string();
        let source = self.manifest.source.as_ref();
        let components = source.map(|source| source.components.as_slice()).unwrap_or_default();
        let components = components.iter().map(|component| json!({ "componentArn": component.document.name }));
        let amis = super::amis(outcomes).map(|(place, ami)| {
            let owner = ami.account.as_deref().unwrap_or(account);
            json!({ "region": place, "image": ami.id, "name": ami.name, "accountId": owner })
        });
        let body = json!({
            "versionlessArn": arn("image", &slug),
            "arn": arn("image", &format!("{slug}/{version}/{}", id.build)),
            "name": id.name.as_str(),
            "version": version,
            "type": "AMI",
            "buildVersion": id.build,
            "state": match failure {
                Some(reason) => json!({ "status": "FAILED", "reason": reason }),
                None => json!({ "status": "AVAILABLE" }),
            },
            "platform": "Linux",
            "imageRecipe": {
                "arn": arn("image-recipe", &format!("{slug}/{version}")),
                "name": id.name.as_str(),
                "version": version,
                "components": components.collect::<Vec<Value>>(),
                "platform": "Linux",
                "parentImage": source.map(|source| source.parent.name.as_str()),
            },
            "distributionConfiguration": {
                "arn": arn("distribution-configuration", &self::slug(&self.plan.distribution)),
                "name": self.plan.distribution,
            },
            "dateCreated": date(self.manifest.created),
            "outputResources": { "amis": amis.collect::<Vec<Value>>() },
            "accountId": account,
            "enhancedImageMetadataEnabled": true,
            "buildType": "USER_INITIATED",
            "tags": source.map(|source| source.tags.clone()).unwrap_or_default(),
        });
        // The number has more bits than a JSON value here can hold.
        let members = body.to_string().split_off(1);
        format!("{{\"semver\":{},{members}", semver(id))
    }
}

/// A name as it stands in an ARN.
fn slug(name: &str) -> String {
    name.to_lowercase().replace([' ', '_'], "-")
}

/// A version and build as one number, as messages have them: 30 bits each, major first.
fn semver(id: &ImageId) -> u128 {
    let version = &id.version;
    let parts = [version.major, version.minor, version.patch, id.build];
    parts.into_iter().fold(0, |number, part| number << 30 | u128::from(part))
}

/// A time as messages have it: `Jul 28, 2022 1:13:45 AM`.
fn date(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%b %-d, %Y %-I:%M:%S %p").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dates_are_as_in_image_builders_samples() {
        let number = |text: &str| semver(&text.parse().unwrap());
        assert_eq!(number("web/1.0.0/3"), 1_237_940_039_285_380_274_899_124_227);
        assert!(number("web/1.0.1/1") > number("web/1.0.0/900"));
        let time: Timestamp = "2022-07-28T01:13:45.123Z".parse().unwrap();
        assert_eq!(date(time), "Jul 28, 2022 1:13:45 AM");
        assert_eq!(slug("Web_servers of mine"), "web-servers-of-mine");
    }
}
