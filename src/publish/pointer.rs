//! What says which image is the newest: a small JSON document, moved when everything else went well.

use goldsmith_aws::Bytes;
use serde_json::{Value, json};

use super::journal::{Made, Object, StepName};
use super::plan::PointerPlace;
use super::{Error, Event, Outcome, Publication};
use crate::host::file;

impl Publication<'_> {
    /// Moves all pointers. What failed comes back, and what was moved, place by place.
    pub(super) async fn move_pointers(&self, outcomes: &[Outcome]) -> Vec<Outcome> {
        let mut moved = Vec::new();
        for pointer in &self.plan.pointers {
            let place = format!("pointer of {}", pointer.place);
            let text = format!("{:#}\n", self.newest(&pointer.place, outcomes));
            let result = self.move_pointer(&place, &pointer.to, &text).await;
            let error = result.err();
            if let Some(error) = &error {
                self.tell(Event::Failed { place: place.clone(), why: crate::host::one_line(error) });
            }
            moved.push(Outcome { artifacts: self.artifacts(&place), place, error });
        }
        moved
    }

    async fn move_pointer(&self, place: &str, to: &PointerPlace, text: &str) -> Result<(), Error> {
        let name = StepName { place: place.to_owned(), step: "pointer".to_owned(), account: None };
        let entry = self.journal.step(&name)?;
        if entry.is_done {
            return Ok(());
        }
        match to {
            PointerPlace::File(path) => {
                if entry.made.is_none() {
                    let previous = fs_err::read_to_string(path).ok();
                    self.journal.note_made(&name, Made::PointerFile { path: path.clone(), previous })?;
                }
                file::write(path, text.as_bytes())?;
            }
            PointerPlace::Object(object) => {
                let region = self.at(&object.region, object.endpoint.clone()).await;
                if entry.made.is_none() {
                    let previous = region.object(&object.bucket, &object.key).await?;
                    let previous = previous.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
                    self.journal.note_made(&name, Made::PointerObject { object: object.clone(), previous })?;
                }
                let Object { bucket, key, .. } = object;
                region.put_object(bucket, key, "application/json", Bytes::from(text.to_owned())).await?;
            }
        }
        Ok(self.journal.note_done(&name)?)
    }

    /// What a pointer says: the image, what is beside the pointer, and the AMIs that were made with it.
    fn newest(&self, place: &str, outcomes: &[Outcome]) -> Value {
        let files = outcomes.iter().filter(|outcome| outcome.place == place).flat_map(|outcome| &outcome.artifacts);
        let files = files.map(|file| {
            let name = file.id.rsplit('/').next().unwrap_or(&file.id);
            json!({ "name": name, "sha256": file.sha256 })
        });
        let amis = super::amis(outcomes).map(
            |(region, ami)| json!({ "region": region, "account": ami.account, "image": ami.id, "name": ami.name }),
        );
        let id = &self.subject.id;
        json!({
            "image": id.to_string(),
            "name": id.name.as_str(),
            "version": id.version.to_string(),
            "build": id.build,
            "published": self.journal.header().time.to_string(),
            "disk": self.subject.disk,
            "files": files.collect::<Vec<_>>(),
            "amis": amis.collect::<Vec<_>>(),
        })
    }
}
