//! Build machines without a build: one with a terminal in it, one that only leaves its parent's layer.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use goldsmith_agent::message::Exec;

use super::build::{Build, CONSOLE_LOG, Options};
use super::plan::Plan;
use super::{Error, Factory, key};
use crate::component::Site as Surroundings;
use crate::guest::Guest;
use crate::guest::terminal::Terminal;
use crate::store::Run;

/// Connects a person to a terminal until one of both leaves.
pub type Attach = Arc<dyn Fn(Terminal) -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// The best shell that there is.
const SHELL: &str = "command -v bash >/dev/null && exec bash -l; exec sh -l";

impl Factory {
    /// Leads somebody into a guest.
    pub(super) async fn lead_in(
        &self,
        guest: &Guest,
        attach: &Attach,
        surroundings: &Surroundings,
    ) -> Result<(), Error> {
        let mut env = surroundings.environment.clone();
        env.push(("TERM".to_owned(), std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned())));
        let cwd = surroundings.working_directory.clone();
        let argv = ["sh", "-c", SHELL].map(str::to_owned).into();
        let failed = |source| Error::Shell { source: Box::new(source) };
        guest.is_there().await.map_err(failed)?;
        let opened = guest.terminal(Exec { argv, env, cwd, timeout_ms: None }).await;
        let terminal = opened.map_err(failed)?;
        tokio::select! {
            () = self.cancel.cancelled() => Err(Error::Interrupted),
            ended = guest.ended() => Err(failed(ended)),
            left = attach(terminal) => Ok(left?),
        }
    }

    /// Opens a terminal in the state before a component, or after all of them. What has to run for that state leaves its
    /// layers, and nothing else stays.
    pub async fn shell(&self, plan: &Plan, at: Option<&str>, options: &Options, attach: &Attach) -> Result<(), Error> {
        let mut run = self.store.begin_run("shell")?;
        let id = self.store.next_id(&plan.recipe.name, plan.recipe.version)?;
        let mut build = Build::new(self, plan, options, id.clone(), run.folder().to_owned());
        let ground = build.ground(&run).await?;
        let mut due = build.due(&ground)?;
        if let Some(name) = at {
            let place = due.iter().position(|due| due.component.name == name);
            let names = || due.iter().map(|due| due.component.name.as_str()).collect::<Vec<_>>().join(", ");
            let place = place.ok_or_else(|| Error::Recipe {
                place: plan.recipe.source.name.clone(),
                message: format!("no component `{name}` is built by this recipe"),
                help: Some(format!("its components: {}", names())),
            })?;
            due.truncate(place);
        }
        let keeper = build.keeper.clone();
        let wanted = build.wanted(&ground, &due, &run, &keeper);
        let led = async {
            let machine = build.machine_with_all(&wanted, &ground, None).await?;
            let surroundings = build.surroundings(&ground);
            let led = self.lead_in(&machine.guest, attach, &surroundings).await;
            machine.guest.finish().await;
            led
        };
        let led = led.await;
        self.settle_layers(&keeper).await;
        self.mask_log(&run.path(CONSOLE_LOG), &build.secrets);
        drop(build);
        keep_logs(&mut run, &led)?;
        led
    }

    /// Starts a plan's parent, unless its layer is here, so that builds need not. Returns whether it was here.
    pub async fn warm(&self, plan: &Plan) -> Result<bool, Error> {
        let mut run = self.store.begin_run("warm")?;
        let id = self.store.next_id(&plan.recipe.name, plan.recipe.version)?;
        let options = Options::default();
        let mut build = Build::new(self, plan, &options, id, run.folder().to_owned());
        let ground = build.ground(&run).await?;
        let keeper = build.keeper.clone();
        let wanted = build.wanted(&ground, &[], &run, &keeper);
        let started = build.machine(&wanted).await;
        let cached = match started {
            Ok(machine) => {
                let cached = machine.cached;
                machine.guest.finish().await;
                Ok(cached)
            }
            Err(error) => Err(error),
        };
        self.settle_layers(&keeper).await;
        let parent = key::of_parent(&ground.parent, ground.size, &ground.shape)?;
        drop(build);
        keep_logs(&mut run, &cached)?;
        let cached = cached?;
        if self.store.layer(&parent)?.is_none() {
            return Err(Error::Host {
                what: "the started parent could not be kept as a checkpoint".to_owned(),
                mend: "make room for it: `goldsmith gc`, or a larger --layer-budget".to_owned(),
            });
        }
        Ok(cached)
    }
}

/// Keeps the logs that an error names.
fn keep_logs<T>(run: &mut Run, ended: &Result<T, Error>) -> Result<(), Error> {
    match ended {
        Err(Error::Guest { .. } | Error::Step { .. }) => Ok(run.keep_logs()?),
        _ => Ok(()),
    }
}
