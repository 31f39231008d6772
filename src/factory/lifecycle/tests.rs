use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::document::lifecycle::{AmiExclusions, Exclusions, Filter, Include, Period, Unit};
use crate::document::syntax::Source;
use crate::store::version::ImageId;

const NOW: &str = "2026-11-26T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn image(id: &str, state: State, days: i64) -> Facts {
    Facts {
        id: id.parse().unwrap(),
        state,
        created: now() - SignedDuration::from_hours(days * 24),
        tags: Tags::new(),
        uses: Vec::new(),
        amis: Vec::new(),
    }
}

/// Tags of an image, or of a rule.
fn tags<T: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> T {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn age(action: Action, days: i64, retain_at_least: usize) -> Rule {
    Rule { retain_at_least, ..rule(action, Filter::OlderThan(Period { value: days, unit: Unit::Days })) }
}

fn rule(action: Action, filter: Filter) -> Rule {
    Rule { action, include: Include::default(), filter, retain_at_least: 0, exclusions: Exclusions::default() }
}

fn policy(rules: Vec<Rule>) -> LifecyclePolicy {
    let text = "
name: tidy
resourceType: AMI_IMAGE
policyDetails: [{ action: { type: DELETE }, filter: { type: COUNT, value: 1 } }]
resourceSelection: { recipes: [{ name: web, semanticVersion: x.x.x }] }
";
    LifecyclePolicy { rules, ..lifecycle::decode_file(&Source::new("tidy.yaml", text)).unwrap().0 }
}

/// What becomes of each image, a line each.
fn decided(policy: &LifecyclePolicy, images: &[Facts]) -> String {
    let line = |decision: &Decision| {
        let action = decision.action.map_or_else(|| "-".to_owned(), |action| action.to_string());
        let skipped = decision.skipped_amis.iter().map(|(id, why)| format!(" [{id}: {why}]")).collect::<String>();
        format!("{} {action}: {}{skipped}\n", decision.image, decision.reason)
    };
    decide(policy, images, now()).iter().map(line).collect()
}

#[test]
fn images_age_in_order_and_one_step_at_a_time() {
    let policy = policy(vec![age(Action::Delete, 90, 1), age(Action::Deprecate, 30, 0), age(Action::Disable, 60, 0)]);
    let images = [
        image("web/1.0.0/1", State::Disabled, 200),
        image("web/1.0.0/2", State::Available, 200),
        image("web/1.0.0/3", State::Deprecated, 61),
        image("web/1.0.0/4", State::Available, 30),
        image("web/1.0.0/5", State::Available, 29),
        image("web/1.0.0/6", State::Failed, 1),
        image("web/1.0.0/7", State::Building, 400),
        image("other/1.0.0/1", State::Available, 400),
        image("web/2.0.0/1", State::Disabled, 300),
    ];
    insta::assert_snapshot!(decided(&policy, &images), @r"
    web/1.0.0/6 DELETE: it is FAILED
    web/1.0.0/5 -: DEPRECATE: it is not older than 30 days; DISABLE: it is not older than 60 days; DELETE: it is not older than 90 days
    web/1.0.0/4 DEPRECATE: it is older than 30 days
    web/1.0.0/3 DISABLE: it is older than 60 days
    web/1.0.0/2 DEPRECATE: it is older than 30 days
    web/1.0.0/1 DELETE: it is older than 90 days
    web/2.0.0/1 -: DEPRECATE: it is DISABLED; DISABLE: it is DISABLED; DELETE: it is one of the 1 newest of its version, which are retained
    web/1.0.0/7 -: it is still BUILDING
    ");
}

#[test]
fn what_is_excluded_or_failed_takes_no_place_among_the_retained() {
    let mut rule = rule(Action::Delete, Filter::AllBut(2));
    rule.exclusions.tags = tags(&[("keep", "yes")]);
    let mut images: Vec<Facts> =
        (1..=6).map(|build| image(&format!("web/1.0.0/{build}"), State::Available, 10 - build)).collect();
    images[5].tags = tags(&[("keep", "yes")]);
    images[4].state = State::Failed;
    images[0].tags = tags(&[("keep", "no")]);
    insta::assert_snapshot!(decided(&policy(vec![rule]), &images), @r"
    web/1.0.0/6 -: DELETE: its tag keep=yes excludes it
    web/1.0.0/5 DELETE: it is FAILED
    web/1.0.0/4 -: DELETE: it is one of the 2 newest of its version
    web/1.0.0/3 -: DELETE: it is one of the 2 newest of its version
    web/1.0.0/2 DELETE: it is not one of the 2 newest of its version
    web/1.0.0/1 DELETE: it is not one of the 2 newest of its version
    ");
}

#[test]
fn what_is_used_stays_and_amis_are_excluded_one_by_one() {
    let mut rule = age(Action::Delete, 1, 0);
    rule.include.amis = true;
    rule.exclusions.amis = AmiExclusions {
        is_public: true,
        regions: ["eu-west-1".to_owned()].into(),
        shared_accounts: ["222222222222".to_owned()].into(),
        last_launched: Some(Period { value: 2, unit: Unit::Weeks }),
        tags: tags(&[("keep", "yes")]),
    };
    let mut named = image("web/1.0.0/1", State::Available, 9);
    named.uses = vec!["the channel web@stable".to_owned()];
    let mut published = image("web/1.0.0/2", State::Available, 8);
    let launched = |days: i64| Some(now() - SignedDuration::from_hours(days * 24));
    let ami = |id: &str| AmiFacts { id: id.to_owned(), region: "eu-north-1".to_owned(), ..AmiFacts::default() };
    published.amis = vec![
        AmiFacts { is_public: true, ..ami("ami-public") },
        AmiFacts { region: "eu-west-1".to_owned(), ..ami("ami-west") },
        AmiFacts { shared_accounts: ["222222222222".to_owned()].into(), ..ami("ami-shared") },
        AmiFacts { last_launched: launched(13), ..ami("ami-launched") },
        AmiFacts { last_launched: launched(15), ..ami("ami-idle") },
        AmiFacts { tags: tags(&[("keep", "yes")]), ..ami("ami-tagged") },
        ami("ami-plain"),
    ];
    insta::assert_snapshot!(decided(&policy(vec![rule]), &[named, published]), @r"
    web/1.0.0/2 DELETE: it is older than 1 day [ami-public: it is public] [ami-west: it is in eu-west-1] [ami-shared: it is shared with 222222222222] [ami-launched: it was launched in the last 2 weeks] [ami-tagged: its tag keep=yes excludes it]
    web/1.0.0/1 -: it is to be deleted, and is still used: the channel web@stable
    ");
}

#[test]
fn months_and_years_are_the_calendars() {
    let is_older = |created: &str, unit| {
        let rule = rule(Action::Deprecate, Filter::OlderThan(Period { value: 1, unit }));
        let image = Facts { created: created.parse().unwrap(), ..image("web/1.0.0/1", State::Available, 0) };
        let at = "2028-02-29T00:00:00Z".parse().unwrap();
        decide(&policy(vec![rule]), &[image], at)[0].action.is_some()
    };
    // A year after the 28th of February is before a leap day, and a month after the 31st is the last of the next.
    assert!(is_older("2027-02-28T00:00:00Z", Unit::Years) && !is_older("2027-03-01T00:00:00Z", Unit::Years));
    assert!(is_older("2028-01-29T00:00:00Z", Unit::Months) && is_older("2028-01-31T00:00:00Z", Unit::Months));
    assert!(!is_older("2028-01-31T00:00:01Z", Unit::Months));
}

fn any_state() -> impl Strategy<Value = State> {
    use State::{Available, Building, Cancelled, Deleted, Deprecated, Disabled, Failed};
    prop::sample::select(vec![
        Available, Available, Available, Deprecated, Disabled, Failed, Cancelled, Building, Deleted,
    ])
}

fn any_images() -> impl Strategy<Value = Vec<Facts>> {
    let one = (0u32..3, any_state(), 0i64..100, prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let numbered = (1..).zip(all).map(|(build, (patch, state, days, is_used, is_kept))| {
            let mut facts = image(&format!("web/1.0.{patch}/{build}"), state, days);
            facts.uses.extend(is_used.then(|| "a channel".to_owned()));
            facts.tags.extend(is_kept.then(|| ("keep".to_owned(), "yes".to_owned())));
            facts
        });
        numbered.collect()
    })
}

fn any_policy() -> impl Strategy<Value = LifecyclePolicy> {
    let filter = prop_oneof![
        (1usize..10).prop_map(Filter::AllBut),
        (1i64..90).prop_map(|value| Filter::OlderThan(Period { value, unit: Unit::Days })),
    ];
    (1i64..60, 1i64..60, filter, 0usize..5).prop_map(|(deprecate, disable, filter, retain_at_least)| {
        let mut rules = vec![
            Rule { retain_at_least, ..rule(Action::Delete, filter) },
            age(Action::Disable, disable, 0),
            age(Action::Deprecate, deprecate, 0),
        ];
        rules.iter_mut().for_each(|rule| rule.exclusions.tags = tags(&[("keep", "yes")]));
        policy(rules)
    })
}

/// Images that may be retained, by version.
fn retainable(images: &[Facts]) -> BTreeMap<String, Vec<&Facts>> {
    let mut by_version: BTreeMap<String, Vec<&Facts>> = BTreeMap::new();
    for image in images {
        let is_done = matches!(image.state, State::Available | State::Deprecated | State::Disabled);
        if is_done && image.tags.is_empty() {
            by_version.entry(image.id.version.to_string()).or_default().push(image);
        }
    }
    by_version
}

proptest! {
    #[test]
    fn nothing_used_excluded_or_unfinished_is_touched(policy in any_policy(), images in any_images()) {
        let decisions = decide(&policy, &images, now());
        prop_assert_eq!(decisions.len(), images.len());
        for decision in decisions.iter().filter(|decision| decision.action.is_some()) {
            let image = images.iter().find(|image| image.id == decision.image).unwrap();
            prop_assert!(image.uses.is_empty() && image.tags.is_empty() && !image.state.is_under_way(), "{image:?}");
        }
    }

    #[test]
    fn as_many_stay_as_are_to_be_retained_and_they_are_the_newest(policy in any_policy(), images in any_images()) {
        let deleted: Vec<ImageId> = decide(&policy, &images, now())
            .into_iter()
            .filter(|decision| decision.action == Some(Action::Delete))
            .map(|decision| decision.image)
            .collect();
        let deletion = &policy.rules[0];
        let retained = match deletion.filter {
            Filter::AllBut(count) => count.max(deletion.retain_at_least),
            Filter::OlderThan(_) => deletion.retain_at_least,
        };
        for (version, mut all) in retainable(&images) {
            let goes = |image: &&&Facts| deleted.contains(&image.id);
            let stay = all.len() - all.iter().filter(goes).count();
            prop_assert!(stay >= all.len().min(retained), "{version}: {stay} of {} stay", all.len());
            all.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
            let first = all.iter().position(|image| deleted.contains(&image.id)).unwrap_or(all.len());
            prop_assert!(first >= all.len().min(retained), "{version}: one of the newest goes");
        }
    }

    /// Run after run, an image goes from AVAILABLE to DEPRECATED to DISABLED and then goes, and in the end nothing changes.
    #[test]
    fn runs_come_to_an_end_and_never_go_back(policy in any_policy(), images in any_images()) {
        let mut images = images;
        for run in 0.. {
            prop_assert!(run < 5, "it does not come to an end");
            let decisions = decide(&policy, &images, now());
            if decisions.iter().all(|decision| decision.action.is_none()) {
                break;
            }
            for decision in decisions {
                let at = images.iter().position(|image| image.id == decision.image).unwrap();
                match decision.action {
                    None => {}
                    Some(Action::Deprecate) => {
                        prop_assert_eq!(images[at].state, State::Available);
                        images[at].state = State::Deprecated;
                    }
                    Some(Action::Disable) => {
                        prop_assert!(images[at].state.is_usable());
                        images[at].state = State::Disabled;
                    }
                    Some(Action::Delete) => {
                        images.remove(at);
                    }
                }
            }
        }
    }
}
