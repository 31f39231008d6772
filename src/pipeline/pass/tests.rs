use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::machine::accelerator::Choice;
use crate::pipeline::{Disabled, DisabledBy, Status, documents};

/// A pipeline with a parent that is a file, so that nobody has to be asked about it.
struct Place {
    folder: tempfile::TempDir,
    factory: Factory,
    ledger: Ledger,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let factory = Factory {
            store: store.clone(),
            listener: Arc::new(|_| {}),
            cancel: CancellationToken::new(),
            accelerator: Choice::Auto,
            layer_budget: 0,
            endpoints: goldsmith_aws::Endpoints::default(),
            aftermath: tokio_util::task::TaskTracker::new(),
        };
        let place = Self { ledger: Ledger::new(&store), folder, factory };
        place.write("disk.qcow2", "bytes");
        place.write(
            "recipe.yaml",
            "name: web\nversion: 1.0.0\nparentImage: ./disk.qcow2\nmachine: { memory: 2GiB, cpus: 3 }\n",
        );
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn pipeline(&self, more: &str) -> Definition {
        let text = format!("kind: ImagePipeline\nname: web\nrecipe: recipe.yaml\n{more}");
        self.write("pipeline.yaml", &text);
        documents::in_file(Path::new(&self.folder.path().join("pipeline.yaml"))).unwrap().remove(0)
    }

    /// A look at the pipeline, so many hours after the first.
    async fn look(&self, definition: &Definition, hours: i64) -> Vec<String> {
        let seen = pass(&self.factory, &self.ledger, std::slice::from_ref(definition), at(hours)).await;
        seen.iter()
            .map(|seen| match seen {
                Seen::Queued(run) => format!("queued {} {:?}", run.id, run.reasons),
                Seen::Skipped { skip, .. } => format!("skipped {}: {}", skip.at, skip.reason),
                Seen::Unknown { why, .. } => format!("unknown: {why}"),
            })
            .collect()
    }

    /// Has the run under way end.
    fn end(&self, status: Status, hours: i64) -> Run {
        let held = self.ledger.hold().unwrap();
        let mut run = self.ledger.runs().unwrap().into_iter().rfind(|run| run.ended.is_none()).unwrap();
        run.builds.iter_mut().for_each(|build| build.end(status, None, at(hours)));
        assert!(run.settle(at(hours)));
        held.save_run(&run).unwrap();
        note_end(&held, &self.ledger, &run).unwrap();
        run
    }

    fn state(&self) -> State {
        self.ledger.state(&"web".parse().unwrap()).unwrap().unwrap()
    }
}

fn at(hours: i64) -> Timestamp {
    "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_hours(hours)
}

const DAILY: &str = "schedule: { scheduleExpression: cron(0 3 * * ? *) }\n";

#[tokio::test]
async fn a_gated_run_begins_for_a_reason_and_is_remembered_by_what_it_was_made_from() {
    let place = Place::new();
    let definition = place.pipeline(DAILY);
    assert_eq!(place.look(&definition, 0).await, Vec::<String>::new());
    // In one that has never run everything is new.
    let queued = place.look(&definition, 3).await;
    assert!(
        queued[0].starts_with("queued web@20261101T030000Z") && queued[0].contains("parent ./disk.qcow2"),
        "{queued:?}"
    );
    assert_eq!(place.look(&definition, 3).await, Vec::<String>::new(), "it was started twice");
    assert_eq!(place.look(&definition, 27).await, ["skipped 2026-11-02T03:00:00Z: the run before it has not ended"]);
    // One that fails owes the same still.
    place.end(Status::Failed, 28);
    assert!(place.look(&definition, 51).await[0].starts_with("queued web@20261103T030000Z"));
    let run = place.end(Status::Available, 52);
    assert!(!run.how.anew && run.trigger == super::super::Trigger::Scheduled);
    assert_eq!((run.builds[0].needs.memory, run.builds[0].needs.cpus), ((2 << 30) + QEMU, 3));
    let nothing = "nothing that it is made from is newer than at the last run";
    assert_eq!(place.look(&definition, 76).await, [format!("skipped 2026-11-04T03:00:00Z: {nothing}")]);
    place.write("disk.qcow2", "other bytes");
    let queued = place.look(&definition, 99).await;
    assert!(queued[0].contains("parent ./disk.qcow2: 5 bytes of"), "{queued:?}");
    place.end(Status::Available, 100);
    // Days of sleep are one run, and it names the first time.
    place.write("disk.qcow2", "yet other bytes");
    let queued = place.look(&definition, 1000).await;
    assert!(queued[0].starts_with("queued web@20261106T030000Z"), "{queued:?}");
    assert_eq!(place.state().next_run, Some(at(1011)));
}

#[tokio::test]
async fn without_a_gate_every_scheduled_run_makes_new_images() {
    let place = Place::new();
    let definition = place.pipeline(
        "schedule: { scheduleExpression: rate(12 hours), pipelineExecutionStartCondition: EXPRESSION_MATCH_ONLY }\n",
    );
    place.look(&definition, 0).await;
    for hours in [12, 24] {
        assert_eq!(place.look(&definition, hours).await.len(), 1);
        assert!(place.end(Status::Available, hours + 1).how.anew);
    }
    // Documents that can't be read are no reason to wait: the run says what is wrong.
    place.write("recipe.yaml", "name: web\n");
    assert!(place.look(&definition, 36).await[0].starts_with("queued"));
}

#[tokio::test]
async fn what_can_not_be_looked_up_stays_due() {
    let place = Place::new();
    let definition = place.pipeline(DAILY);
    place.look(&definition, 0).await;
    fs::remove_file(place.folder.path().join("disk.qcow2")).unwrap();
    let unknown = place.look(&definition, 3).await;
    assert!(unknown[0].starts_with("unknown: it can't be told whether anything is newer"), "{unknown:?}");
    place.write("disk.qcow2", "bytes");
    assert!(place.look(&definition, 4).await[0].starts_with("queued web@20261101T030000Z"));
}

#[tokio::test]
async fn two_that_look_at_the_same_time_start_nothing_twice() {
    let place = Place::new();
    let definition = place.pipeline(DAILY);
    place.look(&definition, 0).await;
    let looks = (0..8).map(|_| place.look(&definition, 3));
    let seen: Vec<String> = futures_util::future::join_all(looks).await.into_iter().flatten().collect();
    assert_eq!(seen.iter().filter(|seen| seen.starts_with("queued")).count(), 1, "{seen:?}");
    assert_eq!(place.ledger.runs().unwrap().len(), 1);
}

#[tokio::test]
async fn failures_in_a_row_disable_a_pipeline_until_somebody_enables_it() {
    let place = Place::new();
    let policy = "schedule: { scheduleExpression: rate(1 hour), autoDisablePolicy: { failureCount: 2 } }\n";
    let definition = place.pipeline(policy);
    place.look(&definition, 0).await;
    for hours in [1, 2] {
        assert_eq!(place.look(&definition, hours).await.len(), 1);
        place.end(Status::Failed, hours);
    }
    assert!(matches!(place.state().disabled, Some(Disabled { by: DisabledBy::Failures, .. })));
    assert_eq!(
        place.look(&definition, 3).await,
        ["skipped 2026-11-01T03:00:00Z: the pipeline was disabled after 2 failures in a row"]
    );
    assert_eq!(place.state().next_run, None);
    let enabled = set_enabled(&place.ledger, &definition, true, at(4)).unwrap();
    assert_eq!((enabled.consecutive_failures, enabled.next_run), (0, Some(at(5))));
    // A run by hand that fails does not count, an edit forgives.
    place.look(&definition, 5).await;
    place.end(Status::Failed, 5);
    ask(&place.factory, &place.ledger, &definition, false, at(5)).await.unwrap();
    place.end(Status::Failed, 5);
    assert_eq!(place.state().consecutive_failures, 1);
    let edited = place.pipeline(&format!("{policy}priority: 1\n"));
    place.look(&edited, 5).await;
    assert_eq!(place.state().consecutive_failures, 0);
    // What a person has disabled stays so, and a person may run it.
    set_enabled(&place.ledger, &edited, false, at(5)).unwrap();
    assert_eq!(place.look(&edited, 6).await, ["skipped 2026-11-01T06:00:00Z: the pipeline was disabled"]);
    let run = ask(&place.factory, &place.ledger, &edited, true, at(6)).await.unwrap();
    assert!(run.how.anew && run.priority == 1);
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_begins_has_ended() {
    let place = Place::new();
    let definition = place.pipeline("");
    let first = ask(&place.factory, &place.ledger, &definition, false, at(0)).await.unwrap();
    let second = ask(&place.factory, &place.ledger, &definition, false, at(0)).await.unwrap();
    let ids = (first.id.as_str(), second.id.as_str());
    assert_eq!(ids, ("web@20261101T000000Z-asked", "web@20261101T000000Z-asked-2"));
    let cancelled = cancel(&place.ledger, &first.id, at(1)).unwrap();
    assert_eq!((cancelled.status(), cancelled.ended), (Status::Cancelled, Some(at(1))));
    assert_eq!(place.state().last_run.unwrap().status, Status::Cancelled);
    assert!(matches!(cancel(&place.ledger, "../../x", at(1)), Err(Error::NoRun { .. })));
}
