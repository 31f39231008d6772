//! What a build would do, and how long it would take, found out without doing any of it.

use std::cmp::Ordering;

use serde::Serialize;

use super::build::Options;
use super::key::{self, BUILD_PHASES, Due};
use super::plan::Plan;
use super::{Error, Factory, site};
use crate::parent::{self, Parent};
use crate::store::LayerRecord;
use crate::store::manifest::{Manifest, Stage};
use crate::store::version::ImageId;

/// What a build would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// What the image would be called.
    pub image: ImageId,
    /// The image that would be returned instead, because nothing has changed.
    pub unchanged: Option<ImageId>,
    /// The parent's start, then the components, in order.
    pub steps: Vec<Forecasted>,
    /// How long it would take, in seconds, going by earlier builds; none if too little is known.
    pub seconds: Option<f64>,
    /// What is not known.
    pub unknown: Vec<String>,
}

/// A part of a build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecasted {
    /// Its name.
    pub name: String,
    /// Whether a layer has it already.
    pub hit: bool,
    /// Why none has.
    pub why: Option<String>,
    /// How long it took before, in seconds.
    pub seconds: Option<f64>,
}

/// Seconds that a machine's restoring takes when nobody knows better.
const RESTORE: f64 = 1.0;

impl Factory {
    /// What a build would do.
    pub async fn forecast(&self, plan: &Plan, options: &Options) -> Result<Forecast, Error> {
        let image = self.store.next_id(&plan.recipe.name, plan.recipe.version)?;
        let past = Past::read(self)?;
        let mut forecast = Forecast { image, unchanged: None, steps: Vec::new(), seconds: None, unknown: Vec::new() };
        if !options.fresh && !options.cold {
            forecast.unchanged = self.same_image(plan, options.no_test).await?.map(|image| image.id);
        }
        if forecast.unchanged.is_some() {
            forecast.seconds = Some(0.0);
            return Ok(forecast);
        }
        let checksum = plan.parent_checksum();
        let parent = parent::known(&plan.parent, checksum, &plan.folder, &self.store).await?;
        match parent {
            Some(parent) => self.steps(plan, options, &parent, &past, &mut forecast).await?,
            None => {
                forecast.unknown.push("the parent is not here yet".to_owned());
                let why = || Some("the parent is not here yet".to_owned());
                forecast.steps.push(Forecasted {
                    name: START.to_owned(),
                    hit: false,
                    why: why(),
                    seconds: past.boot(),
                });
                for component in &plan.components {
                    if component.has_work_in(&BUILD_PHASES) {
                        let (name, seconds) = (component.name.clone(), past.component(&component.name));
                        forecast.steps.push(Forecasted { name, hit: false, why: why(), seconds });
                    }
                }
            }
        }
        forecast.estimate(&past, options.no_test);
        Ok(forecast)
    }

    async fn steps(
        &self,
        plan: &Plan,
        options: &Options,
        parent: &Parent,
        past: &Past,
        forecast: &mut Forecast,
    ) -> Result<(), Error> {
        let recipe = &plan.recipe;
        let site = site::resolve(recipe, &plan.folder, &options.site)?;
        let mut shape = self.shape(&recipe.machine.or(&parent.machine), recipe.network.open).await?;
        shape.reach.clone_from(&recipe.network.reach);
        let parent = key::of_parent(parent, plan.disk_size(parent), &shape)?;
        let due = key::due(plan, &site, &forecast.image, &parent)?;
        let records = self.store.layer_records()?;
        let row = match options.cold {
            true => None,
            false => self.longest_row(&parent, if options.fresh { &[] } else { &due })?,
        };
        let why = match (&row, options.cold) {
            (Some(_), _) => None,
            (None, true) => Some("--cold boots".to_owned()),
            (None, false) => Some(key::explain(&parent, None, &records)),
        };
        let seconds = if row.is_some() { Some(past.restore()) } else { past.boot() };
        forecast.steps.push(Forecasted { name: START.to_owned(), hit: row.is_some(), why, seconds });
        let done = row.map_or(0, |(done, _)| done);
        for (place, this) in due.iter().enumerate() {
            let name = this.component.name.clone();
            let why = match place.cmp(&done) {
                Ordering::Less => None,
                Ordering::Equal => Some(self.why_missed(this, options, &records)?),
                Ordering::Greater => Some(format!("comes after {}", due[done].component.name)),
            };
            let seconds = past.component(&name);
            forecast.steps.push(Forecasted { name, hit: why.is_none(), why, seconds });
        }
        Ok(())
    }

    /// Why the first component that has to run has to.
    fn why_missed(&self, due: &Due<'_>, options: &Options, records: &[LayerRecord]) -> Result<String, Error> {
        let Some(key) = &due.key else {
            return Ok("it or a component before it may handle secrets, which no layer may hold".to_owned());
        };
        if options.cold || options.fresh {
            return Ok(if options.cold { "--cold uses no layers" } else { "--fresh uses no layers" }.to_owned());
        }
        let layer = self.store.layer(key)?;
        let old = layer.as_ref().and_then(|layer| layer.record());
        let old = old.and_then(|record| key::too_old(record, due.max_age, jiff::Timestamp::now()));
        Ok(old.unwrap_or_else(|| key::explain(key, Some(due.component), records)))
    }
}

/// What the first part of a build is called.
const START: &str = "start of the parent";

impl Forecast {
    fn estimate(&mut self, past: &Past, no_test: bool) {
        let mut total = 0.0;
        let mut add = |what: &str, seconds: Option<f64>| match seconds {
            Some(seconds) => total += seconds,
            None => self.unknown.push(format!("how long {what} takes")),
        };
        for step in &self.steps {
            // What a layer has takes no time; the start takes some in any case.
            if !step.hit || step.name == START {
                add(&step.name, step.seconds);
            }
        }
        add("sealing", past.stage(&self.image, "seal"));
        if !no_test {
            add("the test", past.stage(&self.image, "test"));
        }
        self.seconds = self.unknown.is_empty().then_some(total);
    }
}

/// Earlier builds, newest first.
struct Past(Vec<Manifest>);

impl Past {
    fn read(factory: &Factory) -> Result<Self, Error> {
        let mut past: Vec<Manifest> = factory.store.images()?.into_iter().map(|image| image.manifest).collect();
        past.sort_by_key(|manifest| std::cmp::Reverse(manifest.created));
        Ok(Self(past))
    }

    fn component(&self, name: &str) -> Option<f64> {
        let mut built = self.0.iter().flat_map(|manifest| &manifest.components);
        built.find(|built| built.name == name).map(|built| built.seconds)
    }

    /// A stage of the newest image of the same name, or of any.
    fn stage(&self, image: &ImageId, name: &str) -> Option<f64> {
        let of_name = self.0.iter().filter(|manifest| manifest.image.name == image.name);
        let find =
            |manifest: &Manifest| manifest.stages.iter().find(|stage| stage.name == name).map(|stage| stage.seconds);
        of_name.filter_map(find).next().or_else(|| self.0.iter().find_map(find))
    }

    fn boot(&self) -> Option<f64> {
        self.start(|stage| !stage.cached)
    }

    fn restore(&self) -> f64 {
        self.start(|stage| stage.cached).unwrap_or(RESTORE)
    }

    fn start(&self, wanted: impl Fn(&Stage) -> bool) -> Option<f64> {
        let mut stages = self.0.iter().flat_map(|manifest| &manifest.stages);
        stages.find(|stage| stage.name == "boot" && wanted(stage)).map(|stage| stage.seconds)
    }
}
