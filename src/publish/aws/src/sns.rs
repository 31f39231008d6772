//! Messages.

use crate::{Error, Region};

impl Region {
    /// Sends a message to a topic. The longest is of 256 KiB.
    pub async fn notify(&self, topic: &str, subject: &str, message: &str) -> Result<(), Error> {
        let request = self.sns.publish().topic_arn(topic).subject(subject).message(message);
        request.send().await.map(drop).map_err(|error| Error::of("SNS", "Publish", error))
    }
}
