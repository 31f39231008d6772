//! An image's logs, put where the infrastructure configuration wants them, in Image Builder's layout:
//! `ImageName/ImageVersion/ImageBuildVersion/WorkflowExecutionId/StepName` (user guide, "Troubleshoot"). The run stands for
//! the execution of a workflow, and each stage for a step.

use std::path::{Path, PathBuf};

use fs_err as fs;
use goldsmith_aws::Aws;
use serde::{Deserialize, Serialize};

use super::Error;
use super::run::Run;
use crate::factory::Factory;
use crate::store::Image;
use crate::store::version::ImageId;

/// Where logs are put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogPlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What names in it begin with; may be empty.
        prefix: String,
    },
}

/// The largest log that is put into a bucket, in bytes: it goes in one piece, through memory.
const LARGEST: u64 = 64 << 20;
/// The region whose S3 is asked where a bucket is, where nobody has named one.
const FIRST_REGION: &str = "us-east-1";

/// Puts the logs of a run's image there.
pub(super) async fn put(factory: &Factory, place: &LogPlace, run: &Run, id: &ImageId) -> Result<(), Error> {
    let image: Image = factory.store.find(&id.into(), |_| true)?;
    let logs = logs(&image, &run.id)?;
    match place {
        LogPlace::Folder(folder) => {
            for (name, from) in logs {
                let to = folder.join(name);
                fs::create_dir_all(to.parent().unwrap_or(folder))?;
                fs::copy(from, to)?;
            }
            Ok(())
        }
        LogPlace::Bucket { bucket, prefix } => {
            let failed = |error: goldsmith_aws::Error| Error::Logs(crate::host::one_line(&error));
            let aws = Aws::connect(factory.endpoints.clone()).await;
            let asked = aws.default_region().unwrap_or_else(|| FIRST_REGION.to_owned());
            let home = aws.region(&asked).bucket_region(bucket, None).await.map_err(failed)?;
            let region = aws.region(home.as_deref().unwrap_or(&asked));
            for (name, from) in logs {
                let length = fs::metadata(&from)?.len();
                if length > LARGEST {
                    return Err(Error::Logs(format!("`{}` has {length} bytes, which is too many", from.display())));
                }
                let key = [prefix.trim_matches('/'), &name].into_iter().filter(|part| !part.is_empty());
                let key = key.collect::<Vec<_>>().join("/");
                let text = fs::read(from)?;
                region.put_object(bucket, &key, "text/plain", text.into()).await.map_err(failed)?;
            }
            Ok(())
        }
    }
}

/// The logs of an image, each with its name below a place.
fn logs(image: &Image, run: &str) -> Result<Vec<(String, PathBuf)>, Error> {
    let ImageId { name, version, build } = &image.id;
    let mut logs = Vec::new();
    for (step, folder) in [("build", image.folder().to_owned()), ("test", image.folder().join("test"))] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if let Some(file) = path.file_name().and_then(|file| file.to_str()).filter(|file| is_log(file)) {
                logs.push((format!("{name}/{version}/{build}/{run}/{step}/{file}"), path.clone()));
            }
        }
    }
    logs.sort();
    Ok(logs)
}

fn is_log(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|ending| ending == "log")
}
