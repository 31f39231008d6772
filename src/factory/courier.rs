//! What guests get through the host: objects of S3, documents, and downloads where that is asked for.
//!
//! Credentials stay here. Addresses of the host's own network are no more reachable this way than from the guest itself.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use goldsmith_aws::{Aws, Bytes, Endpoints, Part, Region, Upload};
use sha2::Digest as _;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::io::StreamReader;
use tokio_util::task::TaskTracker;

use super::Factory;
use super::web::Web;
use crate::component::courier::{Content, Courier, Object, Outgoing, WebFile};
use crate::document::recipe::Recipe;
use crate::document::shipped;
use crate::document::syntax::Source;
use crate::store::version::VersionPattern;

/// Size of an upload's parts in bytes; a smaller object goes in one piece. S3 takes 5 MiB and more, and 10,000 parts.
const PART: usize = 16 << 20;
/// The region whose S3 is asked where a bucket is, where nobody has named one.
const FIRST_REGION: &str = "us-east-1";

/// Carries things between guests and the rest of the world.
pub(super) struct HostCourier {
    endpoints: Endpoints,
    aws: OnceCell<Aws>,
    /// Regions by the buckets in them.
    regions: Mutex<HashMap<(String, Option<String>), Region>>,
    /// Downloads, if they are the host's business.
    web: Option<Web>,
    aftermath: TaskTracker,
}

impl Factory {
    /// Somebody to carry things to the guests of a recipe.
    pub(super) fn courier(&self, recipe: &Recipe) -> HostCourier {
        let web = recipe.network.host_downloads.then(|| Web::new(self.store.clone(), recipe.network.open));
        let (endpoints, aftermath) = (self.endpoints.clone(), self.aftermath.clone());
        HostCourier { endpoints, aws: OnceCell::new(), regions: Mutex::default(), web, aftermath }
    }
}

impl HostCourier {
    /// The region of a bucket, which has to be its owner's.
    async fn region(&self, object: &Object) -> Result<Region, String> {
        let key = (object.bucket.clone(), object.owner.clone());
        let mut regions = self.regions.lock().await;
        if let Some(region) = regions.get(&key) {
            return Ok(region.clone());
        }
        let aws = self.aws.get_or_init(|| Aws::connect(self.endpoints.clone())).await;
        let name = aws.default_region().unwrap_or_else(|| FIRST_REGION.to_owned());
        let mut region = aws.region(&name);
        let asked = region.bucket_region(&object.bucket, object.owner.as_deref()).await;
        let home = asked.map_err(|error| explain(object, &error))?;
        if let Some(home) = home.filter(|home| *home != region.name) {
            region = aws.region(&home);
            // Whether it is the owner's is known only where it is.
            let asked = region.bucket_region(&object.bucket, object.owner.as_deref()).await;
            asked.map_err(|error| explain(object, &error))?;
        }
        regions.insert(key, region.clone());
        Ok(region)
    }

    async fn upload(&self, to: &Object, mut content: Outgoing<'_>) -> Result<(), String> {
        let region = self.region(to).await?;
        let said = |error: goldsmith_aws::Error| explain(to, &error);
        let first = piece(&mut content).await?;
        if first.len() < PART {
            let put = region.put_object(&to.bucket, &to.key, "application/octet-stream", Bytes::from(first)).await;
            return put.map_err(said);
        }
        let id = region.create_upload(&to.bucket, &to.key, &[]).await.map_err(said)?;
        let upload = Upload { bucket: &to.bucket, key: &to.key, id: &id };
        let mut begun =
            Begun { upload: Some((region.clone(), to.clone(), id.clone())), aftermath: self.aftermath.clone() };
        let result = parts(&region, upload, first, &mut content).await;
        let result = match result {
            Ok(parts) => region.complete_upload(upload, &parts).await.map_err(said),
            Err(problem) => Err(problem),
        };
        let aborted = if result.is_err() { region.abort_upload(upload).await } else { Ok(()) };
        begun.upload = None;
        match (result, aborted) {
            (Err(problem), Err(error)) => {
                Err(format!("{problem}; and what has arrived is still there: {}", explain(to, &error)))
            }
            (result, _) => result,
        }
    }
}

/// An upload in parts. Parts of what is never completed cost money for ever, so it is aborted when nobody waits for it any
/// more: a step whose time is up is dropped.
struct Begun {
    upload: Option<(Region, Object, String)>,
    aftermath: TaskTracker,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some((region, to, id)) = self.upload.take() else { return };
        let abort = async move {
            let aborted = region.abort_upload(Upload { bucket: &to.bucket, key: &to.key, id: &id }).await;
            if let Err(error) = aborted {
                let error = crate::host::one_line(&error);
                tracing::warn!(
                    bucket = to.bucket,
                    key = to.key,
                    id,
                    error,
                    "an upload that was given up is still there"
                );
            }
        };
        // Where everything ends there is nobody left to do it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.aftermath.spawn_on(abort, &runtime);
        }
    }
}

async fn parts(
    region: &Region,
    upload: Upload<'_>,
    first: Vec<u8>,
    content: &mut Outgoing<'_>,
) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut next = first;
    for number in 1.. {
        let is_last = next.len() < PART;
        let sha256 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sha2::Sha256::digest(&next));
        let part = region.put_part(upload, number, Bytes::from(next), sha256).await;
        parts.push(part.map_err(|error| error.to_string())?);
        if is_last {
            break;
        }
        next = piece(content).await?;
        if next.is_empty() {
            break;
        }
    }
    Ok(parts)
}

/// The next bytes, as many as a part has; fewer only at the end.
async fn piece(content: &mut Outgoing<'_>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while bytes.len() < PART {
        match content.next().await {
            Some(more) => bytes.extend(more.map_err(|error| error.to_string())?),
            None => break,
        }
    }
    Ok(bytes)
}

/// What S3 says, and what could be done about it.
fn explain(object: &Object, error: &goldsmith_aws::Error) -> String {
    if error.has_no_credentials() {
        return "nobody is known in whose name to ask S3: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                AWS_SECRET_ACCESS_KEY, on this host"
            .to_owned();
    }
    match &object.owner {
        Some(owner) => format!("{error} (the bucket has to belong to {owner})"),
        None => error.to_string(),
    }
}

impl Courier for HostCourier {
    fn list<'a>(&'a self, wanted: &'a Object, most: usize) -> BoxFuture<'a, Result<Vec<String>, String>> {
        async move {
            let region = self.region(wanted).await?;
            let names = region.objects(&wanted.bucket, &wanted.key, wanted.owner.as_deref(), most).await;
            names.map_err(|error| explain(wanted, &error))
        }
        .boxed()
    }

    fn get<'a>(&'a self, wanted: &'a Object) -> BoxFuture<'a, Result<Content, String>> {
        async move {
            let region = self.region(wanted).await?;
            let body = region.open_object(&wanted.bucket, &wanted.key, wanted.owner.as_deref()).await;
            let body = body.map_err(|error| match error.is_not_found() {
                true => "there is no such object".to_owned(),
                false => explain(wanted, &error),
            })?;
            let bytes = futures_util::stream::unfold(body, |mut body| async move {
                let bytes = body.next().await?;
                Some((bytes.map_err(std::io::Error::other), body))
            });
            Ok(Box::new(StreamReader::new(bytes.boxed())) as Content)
        }
        .boxed()
    }

    fn put<'a>(&'a self, to: &'a Object, content: Outgoing<'a>) -> BoxFuture<'a, Result<(), String>> {
        self.upload(to, content).boxed()
    }

    fn download<'a>(&'a self, wanted: &'a WebFile) -> BoxFuture<'a, Result<Option<Content>, String>> {
        async move {
            match &self.web {
                Some(web) => web.get(wanted).await.map(Some),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn document<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Source>, String>> {
        async move {
            let path = name.rsplit_once(":component/").map_or(name, |(_, path)| path);
            let mut parts = path.splitn(3, '/');
            let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("x.x.x"));
            let pattern: VersionPattern = version.parse().map_err(|error| format!("{error}"))?;
            let component = shipped::find_component(name, pattern);
            component.map(shipped::Component::source).ok_or_else(|| "no such component is shipped".to_owned())
        }
        .boxed()
    }
}
